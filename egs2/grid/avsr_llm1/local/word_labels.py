"""Words beside phones: "b" and "d" differ in a frame or two, and the rest of the word must tell too.

Shapes: `T` frames, `P` phones, `W` words.
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
from pretrain.clips import SILENCE, Clip
from pretrain.llama import Reader

WORDS = ["", *(word for slot in SLOTS for word in slot)]  # the first is silence
MARGIN = 10  # video frames before and after a sentence


class WordTeacher:
    """Mixin of a ``PhoneClassifier``: a second head, for words; what it reads are phones and words, half each."""

    def __init__(self, folder: Path, clips: list[Clip]) -> None:
        super().__init__(folder, clips)
        self.heads = nn.ModuleList([self.head, nn.Linear(self.head.in_features, len(WORDS))])

    def loss(self, clips: list[Clip], rng: np.random.Generator) -> Tensor:
        features, lengths = self.features([self.inputs(clip, rng) for clip in clips])
        words = pad_sequence([word_labels(clip, n, self.rate) for clip, n in zip(clips, lengths.tolist())], batch_first=True, padding_value=-100)
        labels = (self.labels(clips, lengths), words)
        return sum(F.cross_entropy(head(features).transpose(1, 2), y) for head, y in zip(self.heads, labels, strict=True))

    @torch.no_grad()
    def posteriors(self, clip: Clip, rng: np.random.Generator | None) -> np.ndarray:
        """Probabilities ``(T, P + W)`` of the phones and the words of one clip; both together sum to one."""
        features = self.features([self.inputs(clip, rng)])[0][0]
        return (torch.cat([head(features).softmax(-1) for head in self.heads], -1) / 2).numpy()


class Whisper(WordTeacher, whisper.Classifier):
    """Whisper with both heads."""


class AVHubert(WordTeacher, avhubert.Classifier):
    """AV-HuBERT with both heads; its windows are of the sentence, since more than half of a clip is silence."""

    def part(self, clip: Clip, rng: np.random.Generator) -> Clip:
        return super().part(sentence(clip), rng)


ENCODERS = {"whisper": Whisper, "avhubert": AVHubert}


def sentence(clip: Clip) -> Clip:
    """A clip without most of its silence."""
    return clip.cut(max(0, round(clip.words[0].start * 25) - MARGIN), round(clip.words[-1].end * 25) + MARGIN)


def word_labels(clip: Clip, count: int, rate: int) -> Tensor:
    """Index in ``WORDS`` at each of ``count`` frames at ``rate`` Hz."""
    labels = torch.zeros(count, dtype=torch.long)
    for word in clip.words:
        labels[max(0, round(word.start * rate)) : max(0, round(word.end * rate))] = WORDS.index(word.name)
    return labels


def add_words(reader: Reader) -> None:
    """Let Llama-mini read words beside phones: each is the token of its text, silence that of the phone."""
    words = reader.tokenizer.convert_tokens_to_ids([f"\u0120{word}" for word in WORDS[1:]])  # byte-level BPE writes a space so
    for ids in reader.symbols.values():
        ids += [ids[SILENCE], *words]
