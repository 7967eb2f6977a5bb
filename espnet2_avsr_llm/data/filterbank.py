"""Sound as AV-HuBERT reads it: log filterbanks of python_speech_features, four frames stacked, arXiv:2201.02184, 4.1.

Shapes: `S` samples at 16 kHz, `T` stacked frames at 25 Hz.
"""

from __future__ import annotations

import functools

import numpy as np

from espnet2_avsr_llm.data import SAMPLE_RATE

FRAME, STEP, FFT = 400, 160, 512
BANDS, STACKED = 26, 4
PREEMPHASIS = 0.97


def num_stacked(num_samples: int) -> int:
    """Stacked frames of ``num_samples`` samples; 25 a second, as of the video that the sound belongs to."""
    return -(-_num_frames(num_samples) // STACKED)


def stacked_filterbanks(speech: np.ndarray) -> np.ndarray:
    """Filterbanks of one utterance, each stacked frame normalised over its 104 values.

    Args:
        speech: (S,) at 16 kHz in [-1, 1], not normalised: silence of exact zeros is told from sound, and the last frame, which zeros
            fill up, depends on the level.

    Returns:
        (T, 104) float32.
    """
    logs = _log_filterbanks(speech)
    stacked = np.pad(logs, ((0, -len(logs) % STACKED), (0, 0))).reshape(-1, STACKED * BANDS)
    centred = stacked - stacked.mean(1, keepdims=True)
    return (centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)).astype(np.float32)


def _num_frames(num_samples: int) -> int:
    """Windows of 25 ms every 10 ms, the last one filled up with zeros."""
    return 0 if num_samples == 0 else 1 + max(0, -(-(num_samples - FRAME) // STEP))


def _log_filterbanks(speech: np.ndarray) -> np.ndarray:
    """(S,) -> (frames, 26)."""
    count = _num_frames(len(speech))
    if count == 0:
        return np.zeros((0, BANDS))
    emphasised = np.append(speech[:1], speech[1:] - PREEMPHASIS * speech[:-1]).astype(np.float64)
    padded = np.pad(emphasised, (0, (count - 1) * STEP + FRAME - len(speech)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::STEP]
    energies = np.abs(np.fft.rfft(frames, FFT)) ** 2 / FFT @ _triangles().T
    return np.log(np.where(energies == 0, np.finfo(float).eps, energies))


@functools.cache
def _triangles() -> np.ndarray:
    """(26, 257) triangles whose corners are equally far apart in mel, rounded down to whole FFT bins."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    corners = np.floor((FFT + 1) * 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1) / SAMPLE_RATE)
    bins = np.arange(FFT // 2 + 1)
    rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
    return np.where(bins < corners[1:-1, None], rising, falling).clip(min=0)
