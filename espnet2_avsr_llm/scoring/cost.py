"""What decoding cost: LLM tokens, TFLOPs, time."""

import json
from pathlib import Path
from typing import NamedTuple, Optional

COSTS = ["LLM tokens/s", "TFLOPs/s", "speed"]  # of speech; speed is seconds of speech decoded in a second


class Cost(NamedTuple):
    """Of one decoded condition, over all its utterances.

    Attributes:
        llm_tokens: read by the LLM before it writes.
        tflops: of reading them.
        speech_seconds: duration of what was decoded.
        seconds: that decoding took, reading of files included.
    """

    llm_tokens: int
    tflops: float
    speech_seconds: float
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """LLM tokens for each second of speech."""
        return self.llm_tokens / self.speech_seconds

    def cells(self) -> list[str]:
        """A table's cells below :data:`COSTS`."""
        return [f"{self.tokens_per_second:.1f}", f"{self.tflops / self.speech_seconds:.3g}", f"{self.speech_seconds / self.seconds:.1f}x"]


def read_cost(log: Path) -> Optional[Cost]:
    """Cost from a decoding's `log.json`; None where there is no such file."""
    if not log.is_file():
        return None
    values = json.loads(log.read_text(encoding="utf-8"))
    return Cost(*(values[name] for name in Cost._fields))
