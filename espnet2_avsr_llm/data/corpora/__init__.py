"""Readers of published corpora, as they lie on disk; each yields utterances and what had to be left out."""

import gzip
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_avsr_llm.data import MISSING
from espnet2_avsr_llm.data.atomic import write_text
from espnet2_avsr_llm.data.noise import named_rng
from espnet2_avsr_llm.data.tables import writing

_VALID_MOST, _VALID_SHARE = 1200, 1200 / 31982  # AV-HuBERT's list for LRS3 has 1,200 of trainval's 31,982 clips
_TABLES = ("wav.scp", "video.scp", "text", "utt2spk", "utt2video", "utt2segment")


class Utterance(NamedTuple):
    """One utterance of a set.

    Attributes:
        dset: the set it belongs to, such as ``train``.
        utt: its id, begun by the speaker's.
        speaker: of it; where the corpus does not tell speakers apart, the recording.
        recording: what it was cut out of, by its YouTube id where it has one; no recording may be in training and test.
        text: normalised transcript.
        wav, video: files; None where there is none.
        start, end: the part of the files, in seconds; end -1 is their end.
    """

    dset: str
    utt: str
    speaker: str
    recording: str
    text: str
    wav: Path | None
    video: Path | None
    start: float = 0.0
    end: float = -1.0

    def row(self) -> dict[str, str]:
        """Values by table."""
        wav, video = (MISSING if path is None else str(path) for path in (self.wav, self.video))
        values = (wav, video, self.text, self.speaker, self.recording, f"{self.start:g} {self.end:g}")
        return dict(zip(_TABLES, values, strict=True))


class Dropped(NamedTuple):
    """Something that was left out, and why."""

    dset: str
    what: str
    reason: str


def drawn(groups: Sequence[str]) -> set[str]:
    """Draw whole groups for validation, until they have 1,200 utterances, or 3.75 % where that is less.

    Args:
        groups: of each utterance that could be drawn: its recording or its speaker. Their names alone decide the order.
    """
    sizes, chosen, count = Counter(groups), set(), 0
    for group in sorted(sizes, key=lambda name: (named_rng(0, "validation", name).random(), name)):
        if count >= min(_VALID_MOST, max(1, _VALID_SHARE * len(groups))):
            break
        chosen.add(group)
        count += sizes[group]
    return chosen


def read_lines(path: Path) -> list[str]:
    """Lines of a text file, or of a gzipped one (`.gz`); line ends alone separate them."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n") for line in lines]


def write_sets(items: Iterable[Utterance | Dropped], out_dir: Path) -> dict[str, int]:
    """Write a data directory for each set, with what was dropped and why in its dropped.jsonl.

    Args:
        items: of any sets, in any order.
        out_dir: folder of the data directories.

    Returns:
        utterances by set.

    Raises:
        SystemExit: nothing usable was found.
        ValueError: an id occurs twice in a set.
    """
    sets: dict[str, list[Utterance]] = {}
    dropped: dict[str, list[Dropped]] = {}
    for item in items:
        (sets if isinstance(item, Utterance) else dropped).setdefault(item.dset, []).append(item)
    if not sets:
        reasons = [f"{lost.what}: {lost.reason}" for losses in dropped.values() for lost in losses]
        raise SystemExit(f"found no utterance ({len(reasons)} were left out: {reasons[:3]}); expected the corpus in its published layout")
    for dset, utterances in sets.items():
        utterances.sort(key=lambda utterance: utterance.utt)
        twice = [one.utt for one, other in zip(utterances, utterances[1:]) if one.utt == other.utt]
        if twice:
            raise ValueError(f"{dset}: {len(twice)} ids occur more than once, such as {twice[:3]}")
        with writing(out_dir / dset, _TABLES) as write:
            for utterance in utterances:
                write(utterance.utt, utterance.row())
        losses = dropped.pop(dset, [])
        lines = (json.dumps({"what": lost.what, "reason": lost.reason}, ensure_ascii=False) for lost in losses)
        write_text(out_dir / dset / "dropped.jsonl", "".join(f"{line}\n" for line in lines))
        reasons = Counter(lost.reason.partition(":")[0] for lost in losses)
        logging.info("%s: %d utterances; left out: %s", out_dir / dset, len(utterances), dict(reasons) or "none")
    for dset, losses in dropped.items():
        logging.warning("%s: no utterance; %d left out, such as %s", dset, len(losses), losses[0])
    return {dset: len(utterances) for dset, utterances in sets.items()}
