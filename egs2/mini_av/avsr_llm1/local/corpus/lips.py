"""From phones to lips: control tracks with co-articulation and hard closures.

Shapes: `T` frames at 25 fps, controls in the order of `phones.CONTROLS`.
"""

import numpy as np

from corpus.phones import CONTROLS, VISEMES, VISEMES_OF
from corpus.speech import Segment

FPS = 25
_STEP = 0.004  # seconds per point of the fine track
_BLUR = 0.028  # seconds; standard deviation of the co-articulation window
_CONSTRICTED = {"PBM": "press", "FV": "tuck", "TH": "tongue", "L": "tongue"}  # the control that must reach its target
_JAW, _WIDTH = CONTROLS.index("jaw"), CONTROLS.index("width")


def lip_track(phones: list[Segment], frames: int, lead: float, expressiveness: float) -> np.ndarray:
    """Lip controls of a clip.

    Args:
        phones: phones in order, times in seconds from the start of the clip.
        frames: number of 25 fps frames; frame t shows the time (t + 0.5) / 25.
        lead: seconds by which the lips run ahead of the sound.
        expressiveness: 1 for the table of visemes as it is, less for smaller movements.

    Returns:
        (T, 7) controls in 0..1.
    """
    spans = _viseme_spans(phones)
    track = _fine_track(spans, frames / FPS + 0.5)
    times = (np.arange(frames) + 0.5) / FPS + lead
    controls = track[np.minimum((times / _STEP).astype(int), len(track) - 1)]
    neutral = np.array(VISEMES["sil"])
    controls = neutral + expressiveness * (controls - neutral)
    for name, start, end in spans:
        if name in _CONSTRICTED:
            _constrict(controls, times, name, start, end)
    return np.clip(controls, 0, 1)


def _viseme_spans(phones: list[Segment]) -> list[tuple[str, float, float]]:
    spans = []
    for phone in phones:
        visemes = VISEMES_OF[phone.name]
        edges = np.linspace(phone.start, phone.end, len(visemes) + 1)
        spans += [(name, edges[i], edges[i + 1]) for i, name in enumerate(visemes)]
    return spans


def _fine_track(spans: list[tuple[str, float, float]], seconds: float) -> np.ndarray:
    """Targets at every `_STEP`, blurred: each viseme takes on something of its neighbours."""
    track = np.tile(np.array(VISEMES["sil"]), (int(seconds / _STEP) + 1, 1))
    for name, start, end in spans:
        track[round(start / _STEP) : round(end / _STEP)] = VISEMES[name]
    reach = int(3 * _BLUR / _STEP)
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) * _STEP / _BLUR) ** 2)
    padded = np.pad(track, ((reach, reach), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, window / window.sum(), mode="valid") for column in padded.T], axis=1)


def _constrict(controls: np.ndarray, times: np.ndarray, name: str, start: float, end: float) -> None:
    """Bring the frame nearest to the middle of a constriction to its target, however short the phone was."""
    frame = int(np.abs(times - (start + end) / 2).argmin())
    target = np.array(VISEMES[name])
    target[_WIDTH] = controls[frame, _WIDTH]  # spreading stays that of the neighbouring vowels
    weight = 1.0 if name == "PBM" else 0.7
    controls[frame] += weight * (target - controls[frame])
    if name == "PBM":
        controls[frame, _JAW] = 0.0
