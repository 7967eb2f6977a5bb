"""Count the features of an utterance and the LLM tokens of a pass without running anything."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterable, Mapping

from espnet2_avsr_llm.data import FPS, SAMPLES_PER_FRAME
from espnet2_avsr_llm.pass_plan import Pass

if TYPE_CHECKING:
    from espnet2_avsr_llm.frontend.abs_frontend import AbsFrontend

DELIMITERS = {"audio": 2, "video": 2, "audiovisual": 0}
EOS = 1


@dataclass(frozen=True)
class TokenCount:
    """LLM tokens of one utterance in one pass.

    Attributes:
        streams: tokens of each stream that has any.
        prompt: tokens of the prompt.
        bos: 1 where the tokenizer has a beginning-of-sequence token.
    """

    streams: Mapping[str, int]
    prompt: int
    bos: int = 1

    @property
    def prefix(self) -> int:
        """What the LLM reads before it writes: BOS, blocks with their delimiters, prompt."""
        return self.bos + sum(n + DELIMITERS[stream] for stream, n in self.streams.items() if n) + self.prompt

    def total(self, text: int) -> int:
        """The prefix, ``text`` tokens and EOS."""
        return self.prefix + text + EOS


def count_features(frontends: Iterable[AbsFrontend], counts: Mapping[str, int]) -> dict[str, int]:
    """Encoder features of each stream of an utterance.

    Args:
        frontends: of the model.
        counts: number of samples (``speech``) and frames (``video``); where it has both, sound is as long as the video (data/preprocess.py).
    """
    if counts.get("speech") and counts.get("video"):
        counts = {**counts, "speech": counts["video"] * SAMPLES_PER_FRAME}
    return {stream: f.num_frames(stream, counts) for f in frontends for stream in f.streams}


def count_tokens(pass_: Pass, frames: Mapping[str, int], prompt: int, bos: int = 1) -> TokenCount:
    """Tokens of an utterance with ``frames[stream]`` encoder features: the remainder of each rate is dropped."""
    return TokenCount({s: frames[s] // rate for s, rate in sorted(pass_.rates.items())}, prompt, bos)


def empty_pass(passes: Iterable[Pass], frames: Mapping[str, int]) -> Pass | None:
    """The first pass in which an utterance with ``frames[stream]`` encoder features has no token of any stream; None if it has some in all."""
    return next((p for p in passes if not any(count_tokens(p, frames, 0).streams.values())), None)


def shortest(passes: Iterable[Pass], frontends: Iterable[AbsFrontend]) -> float:
    """Seconds of sound and video from which on an utterance has tokens in every pass."""
    features = ((n, count_features(frontends, {"speech": n * SAMPLES_PER_FRAME, "video": n})) for n in itertools.count(1))
    return next(n for n, frames in features if empty_pass(passes, frames) is None) / FPS
