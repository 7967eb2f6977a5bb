"""Base class of the parts that start from pretrained weights: which tensors are the source's, and the source's fingerprint.

A checkpoint leaves out every tensor that can be rebuilt from its recorded source. That is decided by provenance (was the
tensor there when the source was loaded?), not by ``requires_grad``: a projector frozen for one run must stay in the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from espnet2_avsr_llm.hub.resolve import SourceError

_SAMPLES = 64  # values per tensor that enter the fingerprint


def fingerprint(module: nn.Module) -> str:
    """Digest of names, shapes and evenly spaced values of a module's saved tensors.

    Values are compared in bfloat16, so that a source loaded in float32 and in bfloat16 has one fingerprint. Tensors on
    ``meta`` have no values: their digest covers names and shapes only.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        if tensor.is_meta or not tensor.is_floating_point():
            continue
        flat = tensor.detach().flatten()
        index = torch.linspace(0, flat.numel() - 1, min(_SAMPLES, flat.numel()), dtype=torch.float64).long()
        digest.update(flat[index.to(flat.device)].to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:32]


def refuse_non_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are no numbers.

    Raises:
        SourceError: a tensor holds NaN or infinity; it is named.
    """
    for name, tensor in tensors.items():
        # A sum is finite only where all its terms are, and needs no memory.
        if tensor.is_floating_point() and not tensor.is_meta and not tensor.detach().sum(dtype=torch.float32).isfinite():
            raise SourceError(f"{where}: {name} holds NaN or infinity; the file is damaged or was saved by a training that had diverged")


class Pretrained(nn.Module):
    """A part with a frozen pretrained module inside.

    Subclasses call :meth:`adopt` once, after the source's weights are in place and before anything is added to it (LoRA).
    """

    def __init__(self) -> None:
        super().__init__()
        self.provenance: dict[str, str] = {}
        self._source_names: set[str] = set()
        self.pinned = False  # to devices of its own

    def adopt(self, prefix: str, module: nn.Module, source: str, commit: str = "") -> None:
        """Record ``module`` (the attribute ``prefix`` of this part) as rebuilt from ``source``, and freeze it.

        Raises:
            SourceError: a weight is NaN or infinite.
        """
        refuse_non_finite(module.state_dict(), source)
        self.provenance = {"source": source, "revision": commit, "digest": fingerprint(module)}
        module.requires_grad_(False)
        self._source_names = {f"{prefix}.{name}" for name in module.state_dict()}

    def is_external(self, name: str) -> bool:
        """Whether the tensor ``name`` (relative to this part) is rebuilt from the source and so stays out of checkpoints."""
        return name.replace(".base_layer.", ".") in self._source_names

    @property
    def frozen(self) -> bool:
        """True when nothing in this part is trained (then it runs without gradients)."""
        return not any(p.requires_grad for p in self.parameters())

    def pin(self, device: str | None) -> None:
        """Keep this part on a device of its own, wherever the model around it is moved; None lets it follow."""
        if device is not None and self.device.type != "meta":
            self.to(device)
            self.pinned = True

    def _apply(self, fn, recurse: bool = True):
        return self if self.pinned else super()._apply(fn, recurse)

    @property
    def device(self) -> torch.device:
        """Where this part is, or its first layers where it is spread over several."""
        return next(self.parameters()).device

    def train(self, mode: bool = True):
        """Stay in eval mode: a frozen source gets no dropout, layer drop or BatchNorm updates (design contract 4)."""
        return super().train(False)
