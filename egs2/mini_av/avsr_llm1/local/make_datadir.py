"""Write a Kaldi data directory from a list of clips in the layout of LRS3.

    python local/make_datadir.py --corpus downloads/mini_av --split train --out_dir data/train

Reads `<corpus>/<split>.id` (a line `trainval/<speaker>/<id>` per clip) and the `Text:` line of each clip's txt.
"""

import argparse
import logging
from pathlib import Path

from espnet2_avsr_llm.data.tables import write_dir


def main(argv: list[str] | None = None) -> None:
    """Write one data directory."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    tables: dict[str, dict[str, str]] = {name: {} for name in ("wav.scp", "video.scp", "text", "utt2spk")}
    for clip in (args.corpus / f"{args.split}.id").read_text(encoding="utf-8").split():
        path = args.corpus / clip
        speaker = path.parent.name
        utt = f"{speaker}_{path.name}"
        tables["wav.scp"][utt] = tables["video.scp"][utt] = f"{path}.mp4"
        tables["text"][utt] = transcript(path.with_suffix(".txt"))
        tables["utt2spk"][utt] = speaker
    write_dir(args.out_dir, tables)
    logging.info("%s: %d utterances", args.out_dir, len(tables["text"]))


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--split", required=True, help="name of the list of clips")
    parser.add_argument("--out_dir", type=Path, required=True)
    return parser


def transcript(path: Path) -> str:
    """Text of a clip in lower case.

    Args:
        path: the clip's txt, whose first line is `Text:  WORDS IN CAPITALS`.

    Raises:
        ValueError: the first line is something else.
    """
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    tag, _, text = first.partition(":")
    if tag != "Text" or not text.strip():
        raise ValueError(f"{path}: found {first!r} as first line, expected 'Text:  WORDS'; delete the clip to have it remade")
    return " ".join(text.lower().split())


if __name__ == "__main__":
    main()
