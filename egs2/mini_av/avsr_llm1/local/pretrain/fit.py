"""The optimiser loop that the three parts share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

_LOG = logging.getLogger(__name__)
_REPORT = 50  # steps between log lines


def fit(parameters: Iterable[nn.Parameter], loss: Callable[[], Tensor], steps: int, peak_lr: float) -> None:
    """Minimise ``loss()``, which draws its own batch, by AdamW with a one-cycle learning rate."""
    parameters = list(parameters)
    optimiser = torch.optim.AdamW(parameters, peak_lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak_lr, total_steps=steps, pct_start=0.15)
    start, total = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        total += value.item()
        if step % _REPORT == 0 or step == steps:
            count = (step - 1) % _REPORT + 1
            _LOG.info("step %d of %d: loss %.4f, %.0f s", step, steps, total / count, time.monotonic() - start)
            total = 0.0
