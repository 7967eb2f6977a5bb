"""Pass plan: which passes through the LLM one training step makes.

Encoders run once per batch; each pass compresses and projects their features at its own rates and calls the LLM. One pass is
Llama-AVSR (arXiv 2409.12319); all rate pairs are Llama-MTSK (2503.06362); three tasks at one drawn pair are Omni-AVSR (2511.07253).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Iterable, Mapping, Sequence

from espnet2_avsr_llm.data.noise import named_rng

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

    @property
    def scale(self) -> str:
        """The rates as a name: ``audio4_video2``."""
        return "_".join(f"{stream}{rate}" for stream, rate in sorted(self.rates.items()))

    @property
    def name(self) -> str:
        """Task and rates as a name: ``avsr_audio4_video2``."""
        return f"{self.task}_{self.scale}"


Step = tuple[int, int]  # names a training step: seed and number of the update


class FixedPlan:
    """The same passes at every step, with the weighted sum of their losses.

    Args:
        passes: for each pass a mapping with ``task``, ``rates`` and, if not 1, ``weight``.
    """

    def __init__(self, passes: Sequence[Mapping]):
        if not passes:
            raise ValueError("FixedPlan: at least one pass is needed, for example {task: asr, rates: {audio: 3}}")
        self._passes = [Pass(**p) for p in passes]

    def passes(self, step: Step | None = None) -> list[Pass]:
        """Passes of a training step; of validation when None."""
        return self._passes

    def all_passes(self) -> list[Pass]:
        """Every pass that can occur: what the model must be built for."""
        return self._passes

    def longest(self) -> list[Pass]:
        """Passes of the training step with the most LLM tokens: what a batch must leave room for."""
        return self._passes

    def rates(self) -> dict[str, list[int]]:
        """All rates of each stream, finest first."""
        streams = sorted({s for p in self.all_passes() for s in p.rates})
        return {s: sorted({p.rates[s] for p in self.all_passes() if s in p.rates}) for s in streams}


class AllRatesPlan(FixedPlan):
    """One task at every combination of rates, with the mean of the losses (Llama-MTSK, arXiv 2503.06362, equation 5).

    A weight stands before everything that its pass adds, the balance loss of experts too, and weights add up to 1. With weights c of
    mean m, MoME's paper (arXiv 2510.04136) has mean(c NLL) + 0.01 balance instead: m times as much cross-entropy, and a balance
    loss that c leaves alone. Where all c are 1, as in its main results, the two are one.

    Args:
        task: ``asr``, ``vsr`` or ``avsr``.
        rates: rates of each stream that the task reads.
        weights: of each combination, audio slowest and rates in their order, for a weighted mean; None weights all alike.
    """

    def __init__(self, task: str, rates: Mapping[str, Sequence[int]], weights: Sequence[float] | None = None):
        pairs = combinations(rates)
        weights = [1.0] * len(pairs) if weights is None else list(weights)
        if len(weights) != len(pairs) or min(weights, default=1) <= 0:
            raise ValueError(f"AllRatesPlan: expected a positive weight for each of {pairs}, found {weights}")
        super().__init__([dict(task=task, rates=pair, weight=w / sum(weights)) for pair, w in zip(pairs, weights)])


class RandomRatesPlan(FixedPlan):
    """Several tasks at one rate of each stream, drawn anew for each update (Omni-AVSR, arXiv 2511.07253, equation 1).

    The draw depends on the seed and the number of the update alone: it is the same on every rank and after a resume. (The
    released program draws from each process's own state, in validation too.) Validation makes every pass that can occur, its
    loss being the expectation of the training loss.

    Args:
        rates: rates of each stream, all equally probable.
        tasks: weight of each task's loss in the sum.
        mean_over_tasks: divide the sum by the number of tasks, as the released program does and the paper does not.
    """

    def __init__(self, rates: Mapping[str, Sequence[int]], tasks: Mapping[str, float], mean_over_tasks: bool = False):
        unread = set(rates) - {stream for task in tasks for stream in TASKS.get(task, ())}
        if unread:
            raise ValueError(f"RandomRatesPlan: none of the tasks {list(tasks)} reads {sorted(unread)}, for which rates are given")
        divisor = len(tasks) if mean_over_tasks else 1
        self._rates = {stream: sorted(of) for stream, of in sorted(rates.items())}
        self._weights = {task: weight / divisor for task, weight in tasks.items()}
        expected = []
        for task, weight in self._weights.items():
            pairs = combinations(self._read_by(task, self._rates))
            expected += [dict(task=task, rates=pair, weight=weight / len(pairs)) for pair in pairs]
        super().__init__(expected)

    def passes(self, step: Step | None = None) -> list[Pass]:
        """Each task at the drawn rates; every pass when ``step`` is None."""
        if step is None:
            return self._passes
        seed, update = step
        rng = named_rng(seed, "rates", str(update))
        return self._at({stream: of[rng.integers(len(of))] for stream, of in self._rates.items()})

    def longest(self) -> list[Pass]:
        """Each task at the finest rates."""
        return self._at({stream: of[0] for stream, of in self._rates.items()})

    def _at(self, rates: Mapping[str, int]) -> list[Pass]:
        return [Pass(task, self._read_by(task, rates), weight) for task, weight in self._weights.items()]

    @staticmethod
    def _read_by(task: str, rates: Mapping) -> dict:
        """Those of the streams that the task reads; an unknown task is refused by :class:`Pass`."""
        return {stream: of for stream, of in rates.items() if stream in TASKS.get(task, ())}


def combinations(rates: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """Every choice of one rate for each stream: streams in alphabetical order, the first slowest; rates in theirs."""
    streams = sorted(rates)
    return [dict(zip(streams, choice)) for choice in itertools.product(*(rates[s] for s in streams))]


PLANS = {"fixed": FixedPlan, "all_rates": AllRatesPlan, "random_rates": RandomRatesPlan}
