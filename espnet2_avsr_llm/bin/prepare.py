"""Write the data directories of a published corpus (stage 1 of the recipes)."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path


def get_parser() -> argparse.ArgumentParser:
    """Build the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    corpora = parser.add_subparsers(required=True, metavar="CORPUS", dest="corpus")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        corpus = corpora.add_parser(name, help=text, description=text)
        corpus.add_argument("root", type=Path, help="folder of the corpus")
        corpus.add_argument("--out_dir", type=Path, default=Path("data"), help="the sets are made below")
        return corpus

    add("lrs3", "LRS3").add_argument("--valid_list", type=Path, help="clips for validation; by default 3.75 %% of trainval, by whole videos")
    add("lrs2", "LRS2")
    add("grid", "GRID").add_argument("--split", default="unseen", help="unseen or overlapped speakers, or a file of lines `speaker_clip set`")
    add("muavic", "MuAViC").add_argument("--languages", nargs="*", default=[], help="all that are there if none is given")
    add("vox2", "VoxCeleb2, still without transcripts").add_argument("--clip_list", type=Path, help="clips to take, such as AV-HuBERT's vox-en.id.gz")
    labels = add("labels", "mouth crops with label files of auto_avsr or Llama-AVSR")
    labels.add_argument("--train_csv", type=Path, required=True)
    labels.add_argument("--test_csv", type=Path, required=True)
    labels.add_argument("--valid_csv", type=Path, help="by default a part of --train_csv, by whole recordings")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Read the corpus, write its sets."""
    options = vars(get_parser().parse_args(argv))
    from espnet2_avsr_llm.data.corpora import grid, labels, lrs, muavic, vox2, write_sets

    readers = {
        "lrs3": lrs.read_lrs3,
        "lrs2": lrs.read_lrs2,
        "grid": grid.read_grid,
        "muavic": muavic.read_muavic,
        "vox2": vox2.read_vox2,
        "labels": labels.read_labels,
    }
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    corpus, root, out_dir = options.pop("corpus"), options.pop("root").absolute(), options.pop("out_dir")
    if not root.is_dir():
        raise SystemExit(f"no folder {root}: give the corpus's place in db.sh (its README says how to obtain it)")
    write_sets(readers[corpus](root, **options), out_dir)


if __name__ == "__main__":
    main()
