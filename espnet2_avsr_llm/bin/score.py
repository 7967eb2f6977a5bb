"""Score decoded text: word and character error rates, per-utterance alignments, 95 % intervals."""

import argparse
import logging
import shutil
from pathlib import Path
from typing import Optional, Sequence


def get_parser() -> argparse.ArgumentParser:
    """Options of this program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--ref", type=Path, required=True, help="reference transcripts, a Kaldi text file")
    parser.add_argument(
        "--decode_dir",
        type=Path,
        required=True,
        help="the file text of each PASS/CONDITION below it is scored into score_wer/ and score_cer/ beside it",
    )
    parser.add_argument("--asr_model_file", type=Path, help="checkpoint: what was decoded before it was made is not scored, and loses its old scores")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Score every condition below a folder."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    from espnet2_avsr_llm.data.tables import read_table
    from espnet2_avsr_llm.scoring.files import score_condition

    if not (hyps := sorted(args.decode_dir.glob("*/*/text"))):
        raise SystemExit(f"No file named text in {args.decode_dir} or its folders: run the decoding (stage 12) first.")
    refs = read_table(args.ref)
    trained = args.asr_model_file.stat().st_mtime if args.asr_model_file and args.asr_model_file.is_file() else 0
    for hyp in hyps:
        if hyp.stat().st_mtime < trained:
            logging.warning("%s is skipped: %s is newer (decode it again, stage 12, or remove that folder)", hyp.parent, args.asr_model_file)
            for scores in hyp.parent.glob("score_*"):
                shutil.rmtree(scores)
            continue
        rates = score_condition(refs, read_table(hyp), hyp.parent)
        wer = rates["wer"]
        logging.info("%s: WER %.2f %% (95 %%: %.2f to %.2f)", hyp.parent, wer.percent, *wer.interval)
        if wer.empty_references:
            logging.warning("%s: %d references are empty; their words count as inserted", args.ref, wer.empty_references)


if __name__ == "__main__":
    main()
