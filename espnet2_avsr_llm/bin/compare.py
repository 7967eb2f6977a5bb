"""Print mean and deviation over seeds of the systems that compare.sh trained; write wer.txt and draw wer_by_tokens.png of all of them."""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence


def get_parser() -> argparse.ArgumentParser:
    """Options of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("expdir", type=Path, help="folder of experiments SYSTEM.NUMBER_seedN")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Print the means; write table and picture of all, where each training has left the table of its own alone."""
    args = get_parser().parse_args(argv)
    from espnet2_avsr_llm.data.atomic import write_text
    from espnet2_avsr_llm.scoring.compare import comparison
    from espnet2_avsr_llm.scoring.plot import plot_wer_by_tokens, scored_experiments
    from espnet2_avsr_llm.scoring.report import error_table

    exps = scored_experiments(args.expdir)
    plot_wer_by_tokens(exps, args.expdir / "wer_by_tokens.png")
    write_text(args.expdir / "wer.txt", error_table(exps) + "\n")
    sys.stdout.write(comparison(exps) + "\n")


if __name__ == "__main__":
    main()
