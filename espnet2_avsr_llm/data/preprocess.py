"""From a loaded utterance to model inputs: crop, masks, noise, normalisation, token ids (system specification 0.1).

Every draw comes from (seed, epoch, utterance id): workers, ranks and resumed runs see the same augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from espnet2_avsr_llm.data.filterbank import stacked_filterbanks
from espnet2_avsr_llm.data import SAMPLES_PER_FRAME
from espnet2_avsr_llm.data.noise import NoiseSource, mix, named_rng
from espnet2_avsr_llm.data.transforms import adaptive_time_mask, center_crop, hflip, normalise, random_crop

LENGTH_TOLERANCE = 0.2  # seconds by which sound and video may differ without a warning


@dataclass
class Augmentation:
    """Training augmentation; the defaults are those of the released programs.

    Attributes:
        noise_file: noise, or a list of noise files (``noise.NoiseSource``); None trains without.
        snrs: signal-to-noise ratios in dB, one drawn per utterance and epoch; None is clean.
        time_mask: mask spans of sound (up to 0.4 s per second) and video (up to 10 frames per second).
        hflip: mirror half of the videos (claimed by the papers, absent from the released programs).
    """

    noise_file: str | None = None
    snrs: tuple[float | None, ...] = (-5, 0, 5, 10, 15, 20, None)
    time_mask: bool = True
    hflip: bool = False


def eval_inputs(speech: np.ndarray | None = None, video: np.ndarray | None = None, filterbanks: bool = False) -> dict[str, np.ndarray]:
    """Model inputs without augmentation.

    Args:
        speech: (T,) 16 kHz.
        video: (T, 96, 96) uint8 mouth ROI.
        filterbanks: the model hears through AV-HuBERT.

    Returns:
        ``speech`` (T,) float32 normalised over the utterance, or filterbanks (T, 104), cut or padded to the video's length where
        both are given; ``video`` (T, 88, 88) uint8.
    """
    return _inputs(speech, video, filterbanks)


def _inputs(speech, video, filterbanks: bool, rng: np.random.Generator | None = None, augmentation=None, noise=None) -> dict[str, np.ndarray]:
    data: dict[str, np.ndarray] = {}
    if speech is not None and video is not None and len(video) and len(speech):
        speech = cut_or_pad(speech, len(video) * SAMPLES_PER_FRAME)
    if video is not None:
        cropped = center_crop(video) if rng is None else _augment_video(video, rng, augmentation)
        data["video"] = np.ascontiguousarray(cropped)
    if speech is not None:
        if rng is not None:
            speech = _augment_speech(speech, rng, augmentation, noise)
        data["speech"] = stacked_filterbanks(speech) if filterbanks else normalise(speech)
    return data


def _augment_video(video: np.ndarray, rng: np.random.Generator, augmentation: Augmentation) -> np.ndarray:
    video = random_crop(video, rng)
    if augmentation.time_mask:
        video = adaptive_time_mask(video, rng, window=10, stride=25)
    return hflip(video, rng) if augmentation.hflip else video


def _augment_speech(speech: np.ndarray, rng: np.random.Generator, augmentation: Augmentation, noise) -> np.ndarray:
    if augmentation.time_mask:
        speech = adaptive_time_mask(speech, rng, window=6400, stride=16000)
    if noise is None:
        return speech
    snr = augmentation.snrs[rng.integers(len(augmentation.snrs))]
    return speech if snr is None or not len(speech) else mix(speech, noise.draw(len(speech), rng), snr)


def cut_or_pad(speech: np.ndarray, length: int) -> np.ndarray:
    """Exactly ``length`` samples: cut, or padded with zeros, at the end."""
    return speech[:length] if len(speech) >= length else np.pad(speech, (0, length - len(speech)))


class Preprocessor:
    """ESPnet's preprocess function; picklable.

    Args:
        tokens: :class:`~espnet2_avsr_llm.llm.tokens.Tokens`.
        augmentation: of training; None for validation and inference.
        seed: of the run.
        filterbanks: the model hears through AV-HuBERT.
    """

    def __init__(self, tokens, augmentation: Augmentation | None, seed: int, filterbanks: bool = False):
        self.tokens, self.augmentation, self.seed, self.filterbanks = tokens, augmentation, seed, filterbanks
        self.epoch = 0
        self._noise = NoiseSource(augmentation.noise_file) if augmentation and augmentation.noise_file else None

    def __call__(self, utt: str, data: dict[str, Any]) -> dict[str, np.ndarray]:
        """Model inputs of one utterance, and ``text`` (L,) ids without BOS and EOS."""
        rng = None
        if self.augmentation is not None:
            rng = named_rng(self.seed, str(self.epoch), utt)
        inputs = _inputs(data.get("speech"), data.get("video"), self.filterbanks, rng, self.augmentation, self._noise)
        if "text" in data:
            inputs["text"] = np.array(self.tokens.encode(data["text"]), dtype=np.int64)
        return inputs
