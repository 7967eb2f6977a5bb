"""Write the page of an experiment's analyses: figures, tables and the numbers behind them, to be opened from disk."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exps", type=Path, nargs="+", help="experiment folders with analysis/*/section.md (stage 16)")
    parser.add_argument("--output", type=Path, help="write the pages of experiments here, a folder for each, with figures and numbers; default: into EXP/analysis")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Write the pages."""
    args = get_parser().parse_args(argv)
    from espnet2_avsr_llm.analysis.report import write_page

    for exp in args.exps:
        sys.stdout.write(f"{write_page(exp, args.output and args.output / exp.name)}\n")


if __name__ == "__main__":
    main()
