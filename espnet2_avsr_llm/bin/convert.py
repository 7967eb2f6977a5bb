"""Convert a checkpoint of another program into files that this one reads, executing nothing from it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from typing import NamedTuple


class Converter(NamedTuple):
    """One kind of checkpoint.

    Attributes:
        help: what is converted into what.
        run: does it, from the parsed options.
        add_options: adds options of its own.
    """

    help: str
    run: Callable[[argparse.Namespace], None]
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None


def _avhubert(args: argparse.Namespace) -> None:
    from espnet2_avsr_llm.convert.avhubert import convert_avhubert

    convert_avhubert(args.input, args.output)


CONVERTERS = {
    "avhubert": Converter("AV-HuBERT of fairseq (.pt), pretrained or fine-tuned -> source folder of the avhubert frontend", _avhubert),
}


def get_parser() -> argparse.ArgumentParser:
    """Options: the kind of checkpoint, input, output, and those of the kind."""
    parser = argparse.ArgumentParser(prog="avsr-llm convert", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, converter in CONVERTERS.items():
        options = kinds.add_parser(name, help=converter.help, description=converter.help)
        options.add_argument("input", metavar="IN", help="the checkpoint")
        options.add_argument("output", metavar="OUT", help="folder to write")
        converter.add_options(options)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Convert; what was kept and dropped is logged."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    from espnet2_avsr_llm.hub.resolve import SourceError

    try:
        CONVERTERS[args.kind].run(args)
    except SourceError as e:
        sys.exit(f"avsr-llm convert {args.kind}: {e}")


if __name__ == "__main__":
    main()
