"""Where a recording that is too long for an encoder is cut: in pauses, so that no word is lost between two windows."""

from __future__ import annotations

import math

import numpy as np

from espnet2_avsr_llm.data import SAMPLES_PER_FRAME

_FILL = 0.9  # of what an encoder takes; the rest is room to look for a pause
_PAUSE = 5  # frames of 40 ms


def window_cuts(frames: int, longest: float, speech: np.ndarray | None = None) -> list[int]:
    """Ends of the windows, in video frames.

    Args:
        frames: of the recording.
        longest: frames that an encoder takes.
        speech: 16 kHz waveform of the recording, if there is one.

    Returns:
        0, the cuts, ``frames``. The cuts of equal windows move to the quietest 0.2 s nearby, as far as no window gets longer than
        ``longest``; without speech they stay.
    """
    if frames <= longest:
        return [0, frames]
    parts = math.ceil(frames / (_FILL * longest))
    equal = [round(k * frames / parts) for k in range(parts + 1)]
    if speech is None or not len(speech):
        return equal
    power = np.pad(np.square(speech), (0, -len(speech) % SAMPLES_PER_FRAME)).reshape(-1, SAMPLES_PER_FRAME).mean(1)
    power = np.convolve(np.pad(power, (0, max(0, frames - len(power)))), np.ones(_PAUSE), "same")
    reach = max(0, int(longest - frames / parts - 1) // 2)
    return [0, *(cut - reach + int(power[cut - reach : cut + reach + 1].argmin()) for cut in equal[1:-1]), frames]
