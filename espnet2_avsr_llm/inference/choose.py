"""Which pass decodes an utterance: what a user asks for, or has to spare, against what the model was trained for."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Mapping, Sequence

from espnet2_avsr_llm.config import override
from espnet2_avsr_llm.lengths import TokenCount, count_tokens
from espnet2_avsr_llm.model import AVSRLLM
from espnet2_avsr_llm.pass_plan import Pass, task_of
from espnet2_avsr_llm.registry import construct
from espnet2_avsr_llm.summary import prefill_flops


@dataclass(frozen=True)
class Request:
    """What a user asks for; None leaves it to the model.

    Attributes:
        task: ``asr``, ``vsr`` or ``avsr``; None is the trained one that reads the most.
        audio_rate: compression rate; None is the finest trained one that the budget allows.
        video_rate: likewise; it is also that of a joint audio-visual stream.
        max_llm_tokens: what the LLM may read of an utterance before it writes: BOS, delimiters, audio, video, prompt.
        max_tflops: what reading it may cost (``llm_tflops`` of ``avsr-llm summary``).
    """

    task: str | None = None
    audio_rate: int | None = None
    video_rate: int | None = None
    max_llm_tokens: int | None = None
    max_tflops: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Request":
        """From ``task=avsr,audio_rate=4`` and the like.

        Raises:
            ValueError: no ``name=value``, or an unknown name.
        """
        return construct({"request": cls}, "request", override({}, "request", text.split(","))["request"])

    @classmethod
    def of(cls, pass_: Pass) -> "Request":
        """That of exactly one pass."""
        return cls(pass_.task, pass_.rates.get("audio"), pass_.rates.get("video", pass_.rates.get("audiovisual")))

    @property
    def name(self) -> str:
        """A name for files: that of the pass where task and rates are given."""
        labels = {"task": "", "audio_rate": "audio", "video_rate": "video", "max_llm_tokens": "tokens", "max_tflops": "tflops"}
        given = ((labels[f.name], getattr(self, f.name)) for f in fields(self))
        return "_".join(f"{label}{value}" for label, value in given if value is not None)

    def wanted(self, trained: Sequence[Pass]) -> str:
        """The task asked for, whatever an utterance has."""
        return self.task or max(trained, key=lambda p: len(p.rates)).task

    def allows(self, pass_: Pass) -> bool:
        """Whether the rates of a pass are those asked for."""
        rates = {"audio": self.audio_rate, "video": self.video_rate, "audiovisual": self.video_rate}
        return all(rates[stream] in (None, rate) for stream, rate in pass_.rates.items())

    def candidates(self, trained: Sequence[Pass], task: str) -> list[Pass]:
        """The trained passes of ``task`` at the rates asked for.

        Raises:
            ValueError: there are none; the trained ones are named.
        """
        found = [p for p in trained if p.task == task and self.allows(p)]
        if not found:
            rates = {"audio_rate": self.audio_rate, "video_rate": self.video_rate}
            asked = "".join(f", {name}={rate}" for name, rate in rates.items() if rate is not None)
            names = "; ".join(", ".join([p.task, *(f"{s}_rate={r}" for s, r in sorted(p.rates.items()))]) for p in trained)
            raise ValueError(f"This model was not trained for {task}{asked}. It was trained for: {names}")
        return found


@dataclass(frozen=True)
class Choice:
    """What decodes an utterance.

    Attributes:
        pass_: the pass.
        llm_tokens: what the LLM reads of the utterance in it (of all its windows, if there are several).
        tflops: what reading it costs.
        note: what differs from the request; empty if nothing.
    """

    pass_: Pass
    llm_tokens: int
    tflops: float
    note: str


def choose_task(trained: Sequence[Pass], request: Request, present: set[str]) -> tuple[list[Pass], str]:
    """Passes of the task asked for, or of the trained one that fits an utterance that lacks a stream.

    Args:
        trained: passes of the training plan.
        request: the request.
        present: streams of the utterance.

    Returns:
        Those of its passes that the request allows; and a note when the task is another, or is read without one of its streams.
    """
    wanted = request.wanted(trained)
    passes = request.candidates(trained, wanted)
    missing = sorted(passes[0].rates.keys() - present)
    if not missing:
        return passes, ""
    lacking = f"no {' and no '.join(missing)}"
    fitting = [p for p in trained if p.rates.keys() <= present and request.allows(p)]
    return (fitting, f"{lacking}: {fitting[0].task} instead of {wanted}") if fitting else (passes, lacking)


def choose_pass(model: AVSRLLM, request: Request, passes: Sequence[Pass], windows: Sequence[Mapping[str, int]], note: str) -> Choice:
    """The finest pass that the request's budget allows: that with the most audio and video tokens, ties to audio.

    Args:
        model: the model.
        request: the request.
        passes: of :func:`choose_task`.
        windows: encoder features of each stream, for each window of the utterance.
        note: of :func:`choose_task`.

    Returns:
        The choice; the coarsest pass, and a note that says so, where none fits the budget.

    Raises:
        ValueError: the utterance has no token of any stream.
    """
    counted = []
    for p in passes:
        counts = [_count(model, p, frames) for frames in windows]
        tokens = {s: sum(c.streams[s] for c in counts) for s in p.rates}
        if any(tokens.values()):
            total, flops = sum(c.prefix for c in counts), sum(prefill_flops(model, p, c.prefix) for c in counts)
            counted.append(((sum(tokens.values()), tokens.get("audio", 0)), Choice(p, total, flops / 1e12, note)))
    if not counted:
        raise ValueError("no audio and no video token: its inputs are empty or shorter than one rate step")
    choices = [choice for _, choice in sorted(counted, key=lambda c: c[0], reverse=True)]
    fitting = next((c for c in choices if not _excess(c, request)), None)
    return fitting or replace(choices[-1], note="; ".join(filter(None, [note, *_excess(choices[-1], request)])))


def _excess(choice: Choice, request: Request) -> list[str]:
    """In words, the limits that a choice does not keep."""
    limits = {"max_llm_tokens": choice.llm_tokens, "max_tflops": choice.tflops}
    asked = {name: getattr(request, name) for name in limits}
    return [f"{limits[n]:g} exceeds {n}={limit:g}" for n, limit in asked.items() if limit is not None and limits[n] > limit]


def _count(model: AVSRLLM, pass_: Pass, frames: Mapping[str, int]) -> TokenCount:
    """Tokens of one window, with the prompt of what remains when a stream has none."""
    tokens = model.llm.tokens
    count = count_tokens(pass_, frames, prompt=0, bos=int(tokens.bos_id is not None))
    task = task_of(stream for stream, n in count.streams.items() if n)
    return replace(count, prompt=len(tokens.prompt_ids(task))) if task else count
