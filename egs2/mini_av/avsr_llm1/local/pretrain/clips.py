"""Pretraining clips: sound, mouth pictures, transcript and phone times, read from a dumped data directory.

Shapes: `S` samples at 16 kHz, `T` frames.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from corpus.phones import LABELS
from espnet2_avsr_llm.data.media import read_audio, read_roi

SILENCE = LABELS.index("sil")


@dataclass(frozen=True)
class Segment:
    """A phone or a word and its time in seconds."""

    name: str
    start: float
    end: float

    def shifted(self, seconds: float) -> Segment:
        return Segment(self.name, self.start + seconds, self.end + seconds)


@dataclass(frozen=True)
class Clip:
    """One utterance: `wave` (S,) float32, `mouth` (T, 96, 96) uint8."""

    speaker: str
    text: str
    wave: np.ndarray
    mouth: np.ndarray
    phones: tuple[Segment, ...]
    words: tuple[Segment, ...]

    def labels(self, count: int, rate: int) -> np.ndarray:
        """Phone index at the middle of each of ``count`` frames at ``rate`` Hz; silence between and around the phones."""
        labels = np.full(count, SILENCE)
        for phone in self.phones:
            labels[_frames(phone, rate)] = LABELS.index(phone.name)
        return labels

    def cut(self, start: int, stop: int) -> Clip:
        """The part between two video frames."""
        wave, mouth = self.wave[start * 640 : stop * 640], self.mouth[start:stop]
        phones, words = (tuple(s.shifted(-start / 25) for s in segments) for segments in (self.phones, self.words))
        return replace(self, wave=wave, mouth=mouth, phones=phones, words=words)

    def faster(self, factor: float) -> Clip:
        """The sound ``factor`` times as fast and as high, as another speaker might say it; without pictures."""
        times = np.arange(0, len(self.wave) - 1, factor)
        wave = np.interp(times, np.arange(len(self.wave)), self.wave).astype(np.float32)
        phones, words = (tuple(Segment(s.name, s.start / factor, s.end / factor) for s in segments) for segments in (self.phones, self.words))
        return Clip(self.speaker, self.text, wave, self.mouth[:0], phones, words)

    def word_frames(self, rate: int) -> list[slice]:
        """Frames of each word at ``rate`` Hz, cut at word starts so that they tile the clip."""
        starts = [round(word.start * rate) for word in self.words[1:]]
        return [slice(*ends) for ends in zip([0, *starts], [*starts, None], strict=True)]


def load(data: Path, dump: Path) -> list[Clip]:
    """Read every clip of a set.

    Args:
        data: its directory before the dump, whose ``wav.scp`` names the corpus files, with ``.phn`` and ``.txt`` beside them.
        dump: its directory after the dump (16 kHz sound and mouth pictures).
    """
    corpus, sound, video, text, speaker = (
        _read(folder / name) for folder, name in ((data, "wav.scp"), (dump, "wav.scp"), (dump, "video.scp"), (dump, "text"), (dump, "utt2spk"))
    )

    def clip(utt: str) -> Clip:
        phones = _segments(Path(corpus[utt]).with_suffix(".phn").read_text())
        words = _segments(Path(corpus[utt]).with_suffix(".txt").read_text().split("ASDSCORE\n")[1])
        return Clip(speaker[utt], text[utt], read_audio(sound[utt]), read_roi(video[utt]), phones, words)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(clip, sound))


def split_speakers(clips: list[Clip], held_out: int) -> tuple[list[Clip], list[Clip]]:
    """Clips to train on, and those of the last ``held_out`` speakers, on which the figures of the README are measured."""
    last = sorted({clip.speaker for clip in clips})[-held_out:]
    return [c for c in clips if c.speaker not in last], [c for c in clips if c.speaker in last]


def _frames(segment: Segment, rate: int) -> slice:
    return slice(max(0, round(segment.start * rate)), max(0, round(segment.end * rate)))


def _segments(lines: str) -> tuple[Segment, ...]:
    rows = (line.split() for line in lines.splitlines() if line.strip())
    return tuple(Segment(name, float(start), float(end)) for name, start, end, *_ in rows)


def _read(path: Path) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
