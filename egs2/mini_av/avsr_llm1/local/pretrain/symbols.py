"""What the language model reads in pretraining: streams of phone symbols at the rates of the recipe, with an encoder's confusions.

Shapes: `T` frames, `n` symbols after compression, `P` phones.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from pretrain.clips import Clip
from pretrain.encoder import PhoneClassifier

COMPRESSION = {"audio": 4, "video": 2}  # both give 12.5 symbols per second


@dataclass(frozen=True)
class Reading:
    """A clip as its encoders hear and see it: one array (T, P) of phone probabilities per stream and condition."""

    clip: Clip
    probabilities: dict[str, list[np.ndarray]]


def read(clip: Clip, classifiers: list[tuple[PhoneClassifier, int]], seed: int) -> Reading:
    """Let trained encoders read a clip: each as often as it says, once as the clip is and then augmented."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{clip.speaker} {clip.text}".encode())])
    return Reading(clip, {c.stream: [c.posteriors(clip, rng if k else None) for k in range(count)] for c, count in classifiers})


class Splicer:
    """Draws sentences that nobody spoke, by putting words of one speaker's readings together."""

    def __init__(self, readings: list[Reading]) -> None:
        self.readings = readings
        self.by_speaker: dict[str, list[Reading]] = {}
        for reading in readings:
            self.by_speaker.setdefault(reading.clip.speaker, []).append(reading)

    def draw(self, rates: dict[str, int], rng: np.random.Generator) -> tuple[str, dict[str, np.ndarray]]:
        """
        Args:
            rates: frames per second of each stream wanted.

        Returns:
            The sentence, and for each stream its symbols ``(n, P)``.
        """
        base = self.readings[rng.integers(len(self.readings))]
        pool = self.by_speaker[base.clip.speaker]
        words = base.clip.text.split()
        spoken = [base if rng.random() < 0.5 else pool[rng.integers(len(pool))] for _ in words]
        text = " ".join(reading.clip.text.split()[i] for i, reading in enumerate(spoken))
        streams = {}
        for stream, rate in rates.items():
            condition = rng.integers(len(base.probabilities[stream]))
            frames = [r.probabilities[stream][condition][r.clip.word_frames(rate)[i]] for i, r in enumerate(spoken)]
            streams[stream] = blur(compress(np.concatenate(frames), COMPRESSION[stream]), rng)
        return text, streams


def compress(probabilities: np.ndarray, rate: int) -> np.ndarray:
    """Mean over each ``rate`` frames; the incomplete rest is dropped, as in the recipe."""
    n = len(probabilities) // rate
    return probabilities[: n * rate].reshape(n, rate, -1).mean(1)


def blur(symbols: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make probabilities sharper or flatter by a random temperature: encoders are surer of the clips they were trained on."""
    flat = symbols ** rng.uniform(0.8, 1.5)
    return flat / flat.sum(-1, keepdims=True)
