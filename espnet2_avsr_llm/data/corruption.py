"""Damage to mouth video, as test conditions: blur, occlusion, dropped frames, frozen frames.

Occlusion and blur follow AV-RelScore (arXiv:2303.08536), where they make video unreliable for part of a clip; dropped
and frozen frames are what lossy transmission does. All randomness comes from the generator passed in.

Shapes: T frames of H x W pixels.
"""

from collections.abc import Callable

import cv2
import numpy as np

_BLUR = 3.0  # standard deviation in pixels
_SPAN = (5, 16)  # frames of a stretch, lost or good: at least, less than


def blur(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur every frame of (T, H, W)."""
    return np.stack([cv2.GaussianBlur(frame, (0, 0), _BLUR) for frame in video]) if len(video) else video


def occlusion(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hide a square of half the height and width, anywhere, behind noise, for half of the clip."""
    hidden, (length, height, width) = video.copy(), video.shape
    top, left = (int(rng.integers(side - side // 2 + 1)) for side in (height, width))
    first = int(rng.integers(length - length // 2 + 1))
    area = hidden[first : first + length // 2, top : top + height // 2, left : left + width // 2]
    area[:] = rng.integers(0, 256, area.shape, dtype=np.uint8)
    return hidden


def dropped(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lose about half of the frames, in stretches of 0.2 to 0.6 s: black."""
    damaged = video.copy()
    damaged[_lost(len(video), rng)] = 0
    return damaged


def frozen(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lose about half of the frames, in stretches of 0.2 to 0.6 s: the last frame before each stretch stays."""
    shown = np.arange(len(video))
    shown[_lost(len(video), rng)] = 0
    return video[np.maximum.accumulate(shown)]


def _lost(length: int, rng: np.random.Generator) -> np.ndarray:
    """Which frames (T,) of a clip are lost."""
    lost, done, is_lost = np.zeros(length, bool), 0, bool(rng.integers(2))
    while done < length:
        span = int(rng.integers(*_SPAN))
        lost[done : done + span] = is_lost
        done, is_lost = done + span, not is_lost
    return lost


CORRUPTIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "blur": blur,
    "occlusion": occlusion,
    "dropped": dropped,
    "frozen": frozen,
}
