"""Collate samples into padded tensors with their lengths."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def collate(samples: list[tuple[str, dict[str, np.ndarray]]]) -> tuple[list[str], dict[str, Tensor]]:
    """Pad at the end with zeros.

    Args:
        samples: (utterance id, {name: array (T, ...)}); all with the same names.

    Returns:
        The ids, and for each name the tensor (B, T, ...) and ``name_lengths`` (B,).
    """
    batch: dict[str, Tensor] = {}
    for name in samples[0][1]:
        rows = [torch.from_numpy(data[name]) for _, data in samples]
        batch[name] = pad_sequence(rows, batch_first=True)
        batch[f"{name}_lengths"] = torch.tensor([len(row) for row in rows])
    return [utt for utt, _ in samples], batch
