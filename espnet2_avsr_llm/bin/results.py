"""Collect the scores of experiments: RESULTS.md in each, and one table over all."""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence


def get_parser() -> argparse.ArgumentParser:
    """Options of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exps", type=Path, nargs="+", help="experiment folders, scored by `avsr-llm score`")
    parser.add_argument("--output", type=Path, help="write one file for all experiments here, instead of one in each")
    parser.add_argument("--plot_dir", type=Path, help="folder of experiments, for wer.txt, the table, and wer_by_tokens.png: WER against LLM tokens of all in it")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Write RESULTS.md and print the table."""
    args = get_parser().parse_args(argv)
    from espnet2_avsr_llm.data.atomic import write_text
    from espnet2_avsr_llm.scoring.report import error_table, results_markdown

    table = error_table(args.exps) + "\n"
    if args.output:
        write_text(args.output, results_markdown(args.exps))
    else:
        for exp in args.exps:
            write_text(exp / "RESULTS.md", results_markdown([exp]))
    if args.plot_dir:
        from espnet2_avsr_llm.scoring.plot import plot_wer_by_tokens, scored_experiments

        plot_wer_by_tokens(scored_experiments(args.plot_dir), args.plot_dir / "wer_by_tokens.png")
        write_text(args.plot_dir / "wer.txt", table)
    sys.stdout.write(table)


if __name__ == "__main__":
    main()
