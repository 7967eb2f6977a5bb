"""Convert a checkpoint of another program into files that this one reads, executing nothing from it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import NamedTuple


class Converter(NamedTuple):
    """One kind of checkpoint.

    Attributes:
        help: what is converted into what.
        run: does it, from the parsed options; returns what was kept and what was dropped.
        add_options: adds options of its own.
    """

    help: str
    run: Callable[[argparse.Namespace], str]
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None


def _avhubert(args: argparse.Namespace) -> str:
    from espnet2_avsr_llm.convert.avhubert import convert_avhubert

    return convert_avhubert(args.input, args.output)


def _released(args: argparse.Namespace) -> str:
    from espnet2_avsr_llm.convert.released import Options, convert_released, describe

    given = {field.name: getattr(args, field.name) for field in fields(Options)}
    convert_released(args.input, args.output, Options(**given | {"rates": dict(args.rates)}), args.kind)
    return describe(args.output)


def _to_released(args: argparse.Namespace) -> str:
    from espnet2_avsr_llm import checkpoint
    from espnet2_avsr_llm.convert.released import to_released

    states = to_released(args.input, args.model_file)
    checkpoint.save(states, args.output)
    return f"{args.output}: {len(states)} tensors\n"


def _add_released_options(parser: argparse.ArgumentParser) -> None:
    source = "folder or hub id, or a YAML mapping such as '{%s}', or nothing for a public size"
    parser.add_argument("--audio_encoder", type=_source, metavar="SOURCE", help=source % "encoder_attention_heads: 16")
    parser.add_argument("--video_encoder", type=_source, metavar="SOURCE", help=source % "encoder_attention_heads: 16")
    parser.add_argument("--llm", type=_source, metavar="SOURCE", help=source % "num_attention_heads: 32, rms_norm_eps: 1.0e-5, rope_theta: 5.0e5")
    parser.add_argument("--tokenizer", help="folder or hub id of the LLM's tokenizer, where --llm is no folder")
    parser.add_argument("--rates", type=_rates, nargs="+", default=[], metavar="STREAM=RATE,...", help="where features were pooled: audio=4,16 video=2,5")
    parser.add_argument("--lora_scale", type=float, default=0.125, help="alpha / reduction factor of the LLM's LoRA (default: %(default)s)")
    parser.add_argument("--rope_frequency_dtype", choices=("bfloat16", "float32"), help="default: format of the LLM's tensors")
    parser.add_argument("--released", action="store_true", help="lengths of Whisper features and videos as in the released programs")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="of the pretrained parts; default: as in the checkpoint")


def _add_to_released_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model_file", help="checkpoint trained further from it, instead of its own")


def _source(text: str):
    import yaml

    value = yaml.safe_load(text)
    return value if isinstance(value, dict) else text


def _rates(text: str) -> tuple[str, list[int]]:
    stream, _, rates = text.partition("=")
    return stream, [int(rate) for rate in rates.split(",")]


RELEASED = {"llama_avsr": "Llama-AVSR", "omni_avsr": "Omni-AVSR (and Llama-MT)", "mtsk": "Llama-MTSK", "smop": "Llama-SMoP"}
CONVERTERS = {
    "avhubert": Converter("AV-HuBERT of fairseq (.pt), pretrained or fine-tuned -> source folder of the avhubert frontend", _avhubert),
    **{k: Converter(f"released checkpoint of {name} (.pth) -> experiment folder", _released, _add_released_options) for k, name in RELEASED.items()},
    "to_released": Converter(
        "experiment folder of a released checkpoint -> its authors' layout (.pth)",
        _to_released,
        _add_to_released_options,
    ),
}


def get_parser() -> argparse.ArgumentParser:
    """Options: the kind of checkpoint, input, output, and those of the kind."""
    parser = argparse.ArgumentParser(prog="avsr-llm convert", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, converter in CONVERTERS.items():
        options = kinds.add_parser(name, help=converter.help, description=converter.help)
        options.add_argument("input", metavar="IN", help="the checkpoint (or experiment)")
        options.add_argument("output", metavar="OUT", help="folder (or file) to write")
        converter.add_options(options)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Convert, and print what was kept and dropped."""
    args = get_parser().parse_args(argv)
    from espnet2_avsr_llm.hub.resolve import SourceError

    try:
        sys.stdout.write(CONVERTERS[args.kind].run(args))
    except SourceError as e:
        sys.exit(f"avsr-llm convert {args.kind}: {e}")


if __name__ == "__main__":
    main()
