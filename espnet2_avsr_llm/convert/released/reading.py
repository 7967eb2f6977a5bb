"""Read the file of a released checkpoint: a flat state dict of finite tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from espnet2_avsr_llm.convert.torch_file import read_torch_file
from espnet2_avsr_llm.hub.pretrained import refuse_non_finite
from espnet2_avsr_llm.hub.resolve import SourceError

FORMATS = {torch.bfloat16: "bfloat16", torch.float32: "float32", torch.int64: "int64"}


def read_released(path: Path | str) -> dict[str, Tensor]:
    """The state dict, without executing anything from the file.

    Raises:
        SourceError: the file is refused by :func:`~espnet2_avsr_llm.convert.torch_file.read_torch_file`, holds anything but named
            tensors, tensors of a format that no released program writes, or NaN.
    """
    states = read_torch_file(path)
    if not isinstance(states, dict) or not states or not all(isinstance(t, Tensor) for t in states.values()):
        found = f"the keys {', '.join(map(str, list(states)[:5]))}" if isinstance(states, dict) else type(states).__name__
        raise SourceError(f"{path} is no released checkpoint: expected a flat state dict of tensors (audio_proj.0.weight, llm.*), found {found}")
    for name, tensor in states.items():
        if tensor.dtype not in FORMATS:
            raise SourceError(f"{path}: {name} is of {tensor.dtype}, expected {' or '.join(FORMATS.values())}")
    refuse_non_finite(states, str(path))
    return states
