"""Print mean and deviation over seeds of the systems that compare.sh trained."""

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
    """Print the tables."""
    args = get_parser().parse_args(argv)
    from espnet2_avsr_llm.scoring.compare import comparison
    from espnet2_avsr_llm.scoring.plot import scored_experiments

    sys.stdout.write(comparison(scored_experiments(args.expdir)) + "\n")


if __name__ == "__main__":
    main()
