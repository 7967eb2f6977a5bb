"""Learning rate of the papers: linear warm-up, then a cosine to zero over the whole training, step by step (specification 0.7)."""

from __future__ import annotations

import math

from torch.optim.lr_scheduler import LRScheduler

from espnet2_avsr_llm.compat import AbsBatchStepScheduler


class WarmupCosine(LRScheduler, AbsBatchStepScheduler):
    """``--scheduler warmup_cosine``. The trainer tells it the number of updates, so no configuration has to.

    Args:
        optimizer: the optimizer.
        warmup: share of all updates over which the rate rises linearly from 0.
    """

    def __init__(self, optimizer, warmup: float = 0.0, last_epoch: int = -1):
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup is a share of all updates, from 0 to below 1, not {warmup}")
        self.warmup, self.total = warmup, None
        super().__init__(optimizer, last_epoch)

    def set_total(self, updates: int) -> None:
        """Fix the number of optimizer updates of the whole training, and the rate of the next one."""
        self.total = updates
        for group, rate in zip(self.optimizer.param_groups, self.get_lr()):
            group["lr"] = rate

    def get_lr(self) -> list[float]:
        """Rate of each parameter group at the current update."""
        if self.total is None:
            return list(self.base_lrs)
        done, rise = self.last_epoch, self.warmup * self.total
        if done < rise:
            factor = (done + 1) / (rise + 1)
        else:
            factor = 0.5 * (1 + math.cos(math.pi * min(1.0, (done - rise) / max(1.0, self.total - rise))))
        return [rate * factor for rate in self.base_lrs]
