"""Pass plan: which passes through the LLM one training step makes.

Encoders run once per batch; each pass compresses and projects their features at its own rates and calls the LLM. One pass is
Llama-AVSR (arXiv 2409.12319); all rate pairs are Llama-MTSK (2503.06362); three tasks at one drawn pair are Omni-AVSR (2511.07253).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterable, Mapping, Sequence

TASKS = {"asr": {"audio"}, "vsr": {"video"}, "avsr": {"audio", "video"}}
JOINT = {"audiovisual"}  # instead of both streams, one that a frontend has fused


def task_of(streams: Iterable[str]) -> str | None:
    """The task that reads exactly these streams; None if no task does."""
    read = set(streams)
    return "avsr" if read == JOINT else next((task for task, of in TASKS.items() if of == read), None)


@dataclass(frozen=True)
class Pass:
    """One pass through the LLM.

    Attributes:
        task: ``asr``, ``vsr`` or ``avsr``.
        rates: compression rate of each stream that the pass reads.
        weight: factor of its loss in the step's loss.
    """

    task: str
    rates: Mapping[str, int] = field(hash=False)
    weight: float = 1.0

    def __post_init__(self):
        if self.task not in TASKS:
            raise ValueError(f"Pass: unknown task {self.task!r}; known: {', '.join(TASKS)}")
        if task_of(self.rates) != self.task:
            raise ValueError(f"Pass: {self.task} reads {sorted(TASKS[self.task])}, but rates are given for {sorted(self.rates)}")
        if any(not isinstance(r, int) or r < 1 for r in self.rates.values()):
            raise ValueError(f"Pass: rates are integers from 1, not {dict(self.rates)}")


class FixedPlan:
    """The same passes at every step, with the weighted sum of their losses.

    Args:
        passes: for each pass a mapping with ``task``, ``rates`` and, if not 1, ``weight``.
    """

    def __init__(self, passes: Sequence[Mapping]):
        if not passes:
            raise ValueError("FixedPlan: at least one pass is needed, for example {task: asr, rates: {audio: 3}}")
        self._passes = [Pass(**p) for p in passes]

    def passes(self, step: int | None = None) -> list[Pass]:
        """Passes of training step ``step``; of validation when None."""
        return self._passes

    def all_passes(self) -> list[Pass]:
        """Every pass that can occur: what the model must be built for."""
        return self._passes

    def rates(self) -> dict[str, list[int]]:
        """All rates of each stream, finest first."""
        streams = sorted({s for p in self.all_passes() for s in p.rates})
        return {s: sorted({p.rates[s] for p in self.all_passes() if s in p.rates}) for s in streams}


PLANS = {"fixed": FixedPlan}
