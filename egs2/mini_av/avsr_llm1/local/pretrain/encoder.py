"""Frame-wise phone classification: how both encoders are pretrained. The linear head is thrown away by the recipe.

Shapes: `B` batch, `T` frames, `F` feature width, `P` phones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from corpus.phones import LABELS
from pretrain.clips import Clip
from pretrain.fit import fit


class PhoneClassifier(nn.Module, ABC):
    """A frontend with a linear head over the phones.

    Attributes:
        frontend: the encoder being pretrained, through the interface that the recipe uses.
        rate: its features per second.
    """

    rate: int
    stream: str

    def __init__(self, frontend: nn.Module) -> None:
        super().__init__()
        self.frontend = frontend
        self.head = nn.Linear(frontend.streams[self.stream], len(LABELS))

    @abstractmethod
    def inputs(self, clip: Clip, rng: np.random.Generator | None) -> np.ndarray:
        """Model input of a clip, augmented where a generator is given."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the trained encoder as its frontend loads it."""

    def part(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """What one training step sees of a clip."""
        return clip

    def features(self, inputs: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """What the encoder makes of the inputs ``(B, T, F)``, and lengths ``(B,)``."""
        lengths = torch.tensor([len(x) for x in inputs])
        padded = pad_sequence([torch.from_numpy(np.ascontiguousarray(x)) for x in inputs], batch_first=True)
        return self.frontend(**{self.frontend.inputs[0]: (padded, lengths)})[self.stream]

    def forward(self, inputs: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Logits ``(B, T, P)`` and lengths ``(B,)``."""
        features, lengths = self.features(inputs)
        return self.head(features), lengths

    def labels(self, clips: list[Clip], lengths: Tensor) -> Tensor:
        """Phone indices ``(B, T)``, -100 at padding."""
        rows = [torch.from_numpy(clip.labels(n, self.rate)) for clip, n in zip(clips, lengths.tolist(), strict=True)]
        return pad_sequence(rows, batch_first=True, padding_value=-100)

    def loss(self, clips: list[Clip], rng: np.random.Generator) -> Tensor:
        """Mean cross-entropy of the frames of clips, augmented."""
        logits, lengths = self([self.inputs(clip, rng) for clip in clips])
        return F.cross_entropy(logits.transpose(1, 2), self.labels(clips, lengths))

    def train_on(self, clips: list[Clip], steps: int, batch: int, peak_lr: float, seed: int) -> None:
        """Train encoder and heads on random batches."""
        rng = np.random.default_rng(seed)
        self.frontend.encoder.requires_grad_(True).train()

        def loss() -> Tensor:
            return self.loss([self.part(clips[i], rng) for i in rng.choice(len(clips), min(batch, len(clips)), replace=False)], rng)

        fit([p for p in self.parameters() if p.requires_grad], loss, steps, peak_lr)
        self.frontend.encoder.requires_grad_(False).eval()

    @torch.no_grad()
    def posteriors(self, clip: Clip, rng: np.random.Generator | None) -> np.ndarray:
        """Phone probabilities ``(T, P)`` of one clip."""
        return self([self.inputs(clip, rng)])[0][0].softmax(-1).numpy()

    @torch.no_grad()
    def accuracy(self, clips: list[Clip], rng: np.random.Generator | None = None) -> float:
        """Share of frames whose most probable phone is the true one."""
        guesses = [self([self.inputs(clip, rng)])[0][0].argmax(-1).numpy() for clip in clips]
        right = [(guess == clip.labels(len(guess), self.rate)) for guess, clip in zip(guesses, clips, strict=True)]
        return float(np.concatenate(right).mean())
