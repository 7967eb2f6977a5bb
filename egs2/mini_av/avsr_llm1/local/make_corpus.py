"""Build the talking-face corpus of the mini recipe in the layout of LRS3.

    python local/make_corpus.py --out downloads/mini_av --split train:600:24 --split test:160:16 --nj 2

`<out>/{pretrain,trainval,test}/<speaker>/<5 digits>.{mp4,txt}`; train and valid speakers share `trainval`, and
`<out>/<split>.id` lists the clips of a split. A clip depends on the seed, its speaker and its number alone, so sizes, order and processes do not matter; clips that are
there are kept, so a killed run continues.
"""

import argparse
import json
import logging
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import cv2
from tqdm import tqdm

from corpus.clip import make_clip
from corpus.render import Face
from corpus.seeding import rng
from corpus.speakers import SPLITS, Speaker, make_speaker

_VERSION = 1  # of the generator; raise it when the clips change
_PACKAGES = ("numpy", "scipy", "opencv-python-headless", "av", "espeakng-loader")
_FOLDER = {"pretrain": "pretrain", "train": "trainval", "valid": "trainval", "test": "test"}
_BATCH = 10  # clips of one speaker given to a process at a time


@dataclass(frozen=True)
class Split:
    """A split to build: its name, and how many clips of how many speakers."""

    name: str
    clips: int
    speakers: int

    @classmethod
    def parse(cls, text: str) -> "Split":
        """Read `NAME:CLIPS:SPEAKERS`."""
        name, _, sizes = text.partition(":")
        clips, _, speakers = sizes.partition(":")
        if name not in SPLITS or not (clips.isdigit() and speakers.isdigit() and 1 <= int(speakers) <= int(clips)):
            known = ", ".join(SPLITS)
            raise argparse.ArgumentTypeError(f"{text!r} is not NAME:CLIPS:SPEAKERS with NAME among {known}")
        return cls(name, int(clips), int(speakers))


@dataclass(frozen=True)
class Batch:
    """Some clips of one speaker; clips are numbered from 1."""

    out: Path
    seed: int
    labels: bool
    split: str
    speaker: Speaker
    numbers: tuple[int, ...]

    def stems(self) -> list[str]:
        """Paths of the clips below the corpus, without extension."""
        return [f"{_FOLDER[self.split]}/{self.speaker.name}/{number:05d}" for number in self.numbers]


def main(argv: list[str] | None = None) -> None:
    """Build the splits asked for."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    _check_stamp(args.out, args.seed)
    batches = [batch for split in args.split for batch in _batches(split, args)]
    total = sum(len(batch.numbers) for batch in batches)
    with tqdm(total=total, unit="clip", desc="talking faces") as progress:
        for done in _run(batches, args.nj):
            progress.update(done)
    for split in args.split:
        clips = sorted(f"{stem}\n" for batch in batches if batch.split == split.name for stem in batch.stems())
        (args.out / f"{split.name}.id").write_text("".join(clips), encoding="utf-8")
    logging.info("%s: %d clips", args.out, total)


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument(
        "--split", type=Split.parse, action="append", required=True, metavar="NAME:CLIPS:SPEAKERS",
        help=f"a split to build, more than once; NAME is one of {', '.join(SPLITS)}",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other faces and sentences")
    parser.add_argument("--nj", type=int, default=1, help="processes")
    parser.add_argument("--labels", action="store_true", help="also write phone times, <id>.phn")
    return parser


def _check_stamp(out: Path, seed: int) -> None:
    """Record what the corpus is made with; refuse to add clips of another kind to it."""
    stamp = {"generator": _VERSION, "seed": seed, **{name: version(name) for name in _PACKAGES}}
    path = out / "corpus.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != stamp:
            raise SystemExit(f"{path} says {found}, but this run is {stamp}: delete {out} or give another --out")
        return
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")


def _batches(split: Split, args: argparse.Namespace) -> list[Batch]:
    """The clips of a split: clip i is speaker i mod S's, so that speakers differ by one clip at most."""
    batches = []
    for number in range(split.speakers):
        speaker = make_speaker(args.seed, split.name, number)
        count = len(range(number, split.clips, split.speakers))
        for first in range(1, count + 1, _BATCH):
            numbers = tuple(range(first, min(first + _BATCH, count + 1)))
            batches.append(Batch(args.out, args.seed, args.labels, split.name, speaker, numbers))
    return batches


def _run(batches: list[Batch], processes: int) -> Iterator[int]:
    """Make the batches in this process, or in several; yields the number of clips as they get done."""
    if processes == 1:
        yield from map(_make_batch, batches)
        return
    # not forked: a fork of a process with threads may hang
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_make_batch, batch) for batch in batches]):
            yield future.result()


def _make_batch(batch: Batch) -> int:
    cv2.setNumThreads(1)  # the processes are the parallelism
    for stem in batch.stems():
        path = batch.out / stem
        path.parent.mkdir(parents=True, exist_ok=True)
        make_clip(path, batch.seed, batch.speaker, _face(batch.seed, batch.speaker.name), batch.labels)
    return len(batch.numbers)


@lru_cache(maxsize=2)
def _face(seed: int, speaker: str) -> Face:
    return Face(rng(seed, "face", speaker))


if __name__ == "__main__":
    main()
