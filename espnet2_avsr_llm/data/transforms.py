"""Augmentation and normalisation as in auto_avsr (arXiv:2303.14307) and Llama-AVSR (arXiv:2409.12319).

All randomness comes from the generator passed in.

Shapes: T frames or samples, H height, W width.
"""

import numpy as np

CROP_SIZE = 88


def center_crop(video: np.ndarray) -> np.ndarray:
    """Cut the middle 88 x 88 pixels out of (T, H, W) video."""
    top, left = (round((side - CROP_SIZE) / 2) for side in video.shape[1:])
    return _crop(video, top, left)


def random_crop(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut 88 x 88 pixels out of (T, H, W) video, at one place for the whole clip."""
    top, left = (int(rng.integers(side - CROP_SIZE + 1)) for side in video.shape[1:])
    return _crop(video, top, left)


def _crop(video: np.ndarray, top: int, left: int) -> np.ndarray:
    return video[:, top : top + CROP_SIZE, left : left + CROP_SIZE]


def hflip(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror a (T, H, W) clip with probability one half."""
    return video[:, :, ::-1] if rng.random() < 0.5 else video


def adaptive_time_mask(x: np.ndarray, rng: np.random.Generator, window: int, stride: int) -> np.ndarray:
    """Set spans to zero, about one for each ``stride`` frames or samples begun.

    As in the released programs, two lengths t and u below ``window`` are drawn for each span: t only limits
    where the span may start (and none is set where t is 0 or the clip is not longer than t); u is its length.
    Video is masked before its normalisation, so that a masked frame is black.

    Args:
        x: (T, ...) video frames (window 10, stride 25) or samples (6400, 16000); not changed.
        rng: source of the draws.
        window: spans are shorter than this.
        stride: T / stride, rounded up, is the number of spans.

    Returns:
        a copy of ``x`` with the spans set to 0.
    """
    masked, length = x.copy(), len(x)
    n_spans = int((length + stride - 0.1) // stride)
    for limit, span in rng.integers(0, window, size=(n_spans, 2)):
        if length <= limit:
            continue
        start = rng.integers(0, length - limit)
        if limit > 0:
            masked[start : start + span] = 0
    return masked


def normalise(wave: np.ndarray) -> np.ndarray:
    """Bring samples (T,) to zero mean and unit variance over the utterance (layer norm, eps 1e-8), in float32."""
    if not len(wave):
        return wave.astype(np.float32)
    centred = wave - wave.mean(dtype=np.float64)
    return (centred / np.sqrt(centred.var() + 1e-8)).astype(np.float32)
