"""Frontend interface: padded inputs and lengths in, features of named streams out; what all pretrained encoders have in common.

Shapes: `B` batch, `T` frames, `F` feature width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from espnet2_avsr_llm.hub.build import build, torch_dtype
from espnet2_avsr_llm.hub.lora import inject_lora
from espnet2_avsr_llm.hub.pretrained import Pretrained
from espnet2_avsr_llm.registry import construct

Lengthed = tuple[Tensor, Tensor]  # a padded tensor (B, T, ...) and its lengths (B,)
LORA_TARGETS = r".*\.[qv]_proj"


class AbsFrontend(Pretrained, ABC):
    """One pretrained encoder that yields one or more streams.

    Args:
        source: folder or hub id of the weights.
        init: ``pretrained`` reads ``source``; ``random`` builds ``arch`` without weights.
        arch: name of ``arch/*.json``; it names the hub id and gives the sizes for ``init="random"``.
        revision: branch, tag or commit of a hub id.
        dtype: of the encoder.
        lora: ``{"rank": r, "scale": s}`` trains LoRA on the query and value projection of every layer (q <- Wx + b + s BAx; Llama-AVSR,
            arXiv 2409.12319, gives AV-HuBERT rank 64 and scale 2); ``zero`` as of :func:`~espnet2_avsr_llm.hub.lora.inject_lora`.
        device: keeps the encoder there (``cuda:1``) wherever the rest of the model is moved.

    Attributes:
        inputs: names of the batch entries it reads (``speech``, ``video``).
        streams: feature width ``F`` of each stream it yields (``audio``, ``video``, ``audiovisual``).
        max_inputs: longest input in samples (speech) or frames (video); None for no limit.
        filterbanks: ``speech`` are the filterbanks (B, T, 104) of AV-HuBERT instead of a waveform.

    Raises:
        SourceError: the source is missing, damaged, or no encoder of this kind.
    """

    inputs: tuple[str, ...]
    streams: dict[str, int]
    max_inputs: int | None = None
    filterbanks = False

    def __init__(
        self, source: str | None, init: str, arch: str | None, revision: str | None, dtype: str, lora: Mapping | None, device: str | None
    ) -> None:
        super().__init__()
        self.encoder, origin, commit = build(source, init, arch, revision, torch_dtype(dtype), self.load, self.random)
        self.adopt("encoder", self.encoder, origin, commit)
        if lora is not None:
            construct({"lora": inject_lora}, "lora", lora, module=self.encoder, target_modules=LORA_TARGETS, name="default")
        self.pin(device)
        self.eval()

    def inputs_of(self, stream: str) -> tuple[str, ...]:
        """Those of :attr:`inputs` that a stream is made from; it is as long as the longest of them."""
        return self.inputs

    @staticmethod
    @abstractmethod
    def load(folder: str, dtype: torch.dtype) -> nn.Module:
        """The encoder of a folder."""

    @staticmethod
    @abstractmethod
    def random(config: dict) -> nn.Module:
        """The encoder that a configuration describes, with random weights."""

    @abstractmethod
    def forward(self, **inputs: Lengthed) -> dict[str, Lengthed]:
        """Encode.

        Args:
            inputs: each name of :attr:`inputs` with its padded tensor (design contract 9) and lengths. A missing modality is
                a row of length zero.

        Returns:
            For each stream the features ``(B, T, F)`` and their lengths ``(B,)``; positions beyond a length are zero.
        """

    @abstractmethod
    def num_frames(self, stream: str, counts: Mapping[str, int]) -> int:
        """Number of features of a stream.

        Args:
            stream: one of :attr:`streams`.
            counts: number of samples (``speech``) and frames (``video``) of an utterance, by name; one that it lacks may be left out.
        """

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the frozen encoder."""
        return next(p.dtype for name, p in self.encoder.named_parameters() if "lora_" not in name)


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """``(B, size)``, True before each length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]
