"""Stacking of K consecutive frames (Llama-AVSR, arXiv 2409.12319, section II).

Shapes: `B` batch, `T` frames, `F` feature width, `K` rate.
"""

from __future__ import annotations

from torch import Tensor


class Stack:
    """(B, T, F) -> (B, T // K, K F). The last ``length % K`` frames of each utterance are dropped."""

    def output_size(self, size: int, rate: int) -> int:
        """Width after compression of features of width ``size``."""
        return size * rate

    def __call__(self, x: Tensor, lengths: Tensor, rate: int) -> tuple[Tensor, Tensor]:
        """Compress.

        Args:
            x: (B, T, F), padded at the end.
            lengths: (B,) valid frames.
            rate: K.

        Returns:
            (B, T // K, K F) and lengths // K.
        """
        batch, frames, size = x.shape
        kept = frames // rate
        return x[:, : kept * rate].reshape(batch, kept, rate * size), lengths // rate
