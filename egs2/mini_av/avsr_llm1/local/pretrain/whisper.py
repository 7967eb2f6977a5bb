"""Whisper-mini: sizes, audio augmentation, and how it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from espnet2_avsr_llm.data.noise import make_babble, mix
from espnet2_avsr_llm.data.transforms import adaptive_time_mask, normalise
from espnet2_avsr_llm.frontend.whisper import WhisperFrontend
from pretrain.clips import Clip
from pretrain.encoder import PhoneClassifier

SECONDS = 4
SIZES = {
    "d_model": 128,
    "encoder_layers": 4,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 512,
    "num_mel_bins": 80,
    "max_source_positions": 50 * SECONDS,
    "decoder_layers": 0,  # only the encoder is made
}
SNRS = (-5, 0, 5, 10, 20, None, None, None)
SPEEDS = (0.88, 1.14)
TALKERS = (4, 8, 16, 30)  # of each babble
BABBLE_SECONDS = 60


class Classifier(PhoneClassifier):
    """Whisper encoder and head; sound may be masked, is mixed with babble and normalised over the utterance."""

    rate, stream = 50, "audio"

    def __init__(self, folder: Path, talkers: list[Clip]) -> None:
        super().__init__(WhisperFrontend(str(folder)))
        rng = np.random.default_rng(0)
        groups = [[talkers[i].wave for i in rng.permutation(len(talkers))[:size]] for size in TALKERS]
        self.babble = np.concatenate([make_babble(group, 16000 * BABBLE_SECONDS, rng) for group in groups])

    def part(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """The clip as another speaker might say it, slowed down no further than the window allows."""
        slowest, fastest = SPEEDS
        return clip.faster(rng.uniform(max(slowest, len(clip.wave) / self.frontend.max_inputs), fastest))

    def inputs(self, clip: Clip, rng: np.random.Generator | None) -> np.ndarray:
        wave = clip.wave
        if rng is not None:
            if rng.random() < 0.5:
                wave = adaptive_time_mask(wave, rng, window=3200, stride=16000)
            wave = mix(wave, self.babble, SNRS[rng.integers(len(SNRS))], int(rng.integers(len(self.babble))))
        return normalise(wave)

    def save(self, folder: Path) -> None:
        """Write the encoder, in half precision."""
        self.frontend.encoder.half().save_pretrained(folder)
        self.frontend.encoder.float()


def initialise(folder: Path, seed: int) -> None:
    """Write an untrained Whisper encoder in Hugging Face's format."""
    torch.manual_seed(seed)
    WhisperEncoder(WhisperConfig(**SIZES)).save_pretrained(folder)
    WhisperFeatureExtractor(SIZES["num_mel_bins"], chunk_length=SECONDS).save_pretrained(folder)
