"""Sums over the ranks of a distributed training.

ESPnet weights each rank's loss by its scored tokens. A loss that is a function of all ranks' rows is therefore given as this
rank's part, the parts' sum over ranks being the loss: nothing is communicated in the backward pass, where DDP's own
reductions run in an order that depends on the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sum_over_ranks(x: Tensor) -> Tensor:
    """``x`` summed over all ranks, without gradient; ``x`` itself where training is not distributed. Every rank must call it."""
    total = x.detach().clone()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    return total
