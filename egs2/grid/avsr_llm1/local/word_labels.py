"""Encoders that learn the word of each frame beside its phone: "b" and "d" differ in a frame or two, and the rest of the word must tell too.

Shapes: `B` batch, `T` frames.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from corpus.grammar import SLOTS
from pretrain import avhubert, whisper
from pretrain.clips import Clip

WORDS = ["", *(word for slot in SLOTS for word in slot)]  # the first is silence


class WordTeacher:
    """Mixin of a ``PhoneClassifier``: a second head, for words."""

    def __init__(self, folder: Path, clips: list[Clip]) -> None:
        super().__init__(folder, clips)
        self.word_head = nn.Linear(self.head.in_features, len(WORDS))

    def loss(self, clips: list[Clip], rng: np.random.Generator) -> Tensor:
        features, lengths = self.features([self.inputs(clip, rng) for clip in clips])
        words = pad_sequence([word_labels(clip, n, self.rate) for clip, n in zip(clips, lengths.tolist())], batch_first=True, padding_value=-100)
        losses = ((self.head, self.labels(clips, lengths)), (self.word_head, words))
        return sum(F.cross_entropy(head(features).transpose(1, 2), labels) for head, labels in losses)


class Whisper(WordTeacher, whisper.Classifier):
    """Whisper with both heads."""


class AVHubert(WordTeacher, avhubert.Classifier):
    """AV-HuBERT with both heads."""


def word_labels(clip: Clip, count: int, rate: int) -> Tensor:
    """Index in ``WORDS`` at each of ``count`` frames at ``rate`` Hz."""
    labels = torch.zeros(count, dtype=torch.long)
    for word in clip.words:
        labels[max(0, round(word.start * rate)) : max(0, round(word.end * rate))] = WORDS.index(word.name)
    return labels
