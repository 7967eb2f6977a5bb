"""Frontend interface: padded inputs and lengths in, features of named streams out.

Shapes: `B` batch, `T` frames, `F` feature width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from espnet2_avsr_llm.hub.pretrained import Pretrained

Lengthed = tuple[Tensor, Tensor]  # a padded tensor (B, T, ...) and its lengths (B,)


class AbsFrontend(Pretrained, ABC):
    """One encoder that yields one or more streams.

    Attributes:
        inputs: names of the batch entries it reads (``speech``, ``video``).
        streams: feature width ``F`` of each stream it yields (``audio``, ``video``, ``audiovisual``).
        max_inputs: longest input in samples (speech) or frames (video); None for no limit.
    """

    inputs: tuple[str, ...]
    streams: dict[str, int]
    max_inputs: int | None = None

    @abstractmethod
    def forward(self, **inputs: Lengthed) -> dict[str, Lengthed]:
        """Encode.

        Args:
            inputs: each name of :attr:`inputs` with its padded tensor (design contract 9) and lengths. A missing modality is
                a row of length zero.

        Returns:
            For each stream the features ``(B, T, F)`` and their lengths ``(B,)``; positions beyond a length are zero.
        """

    @staticmethod
    @abstractmethod
    def num_frames(num_inputs: int) -> int:
        """Number of features that an input of ``num_inputs`` samples (speech) or frames (video) gives."""
