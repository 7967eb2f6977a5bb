"""Average pooling over K consecutive frames (Llama-MTSK, arXiv 2503.06362, section II-B).

Shapes: `B` batch, `T` frames, `F` feature width, `K` rate.
"""

from __future__ import annotations

from torch import Tensor


class AvgPool:
    """(B, T, F) -> (B, T // K, F). The last ``length % K`` frames of each utterance are dropped."""

    def output_size(self, size: int, rate: int) -> int:
        """Width after compression of features of width ``size``: unchanged."""
        return size

    def __call__(self, x: Tensor, lengths: Tensor, rate: int) -> tuple[Tensor, Tensor]:
        """Compress.

        Args:
            x: (B, T, F), padded at the end.
            lengths: (B,) valid frames.
            rate: K, kernel and stride.

        Returns:
            (B, T // K, F) and lengths // K.
        """
        batch, frames, size = x.shape
        kept = frames // rate
        return x[:, : kept * rate].reshape(batch, kept, rate, size).mean(2), lengths // rate
