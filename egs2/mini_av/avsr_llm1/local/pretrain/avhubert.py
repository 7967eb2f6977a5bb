"""AV-HuBERT-mini: sizes, video augmentation, and how it is written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from espnet2_avsr_llm.data.transforms import adaptive_time_mask, center_crop, random_crop
from espnet2_avsr_llm.frontend.avhubert import AVHubertFrontend
from espnet2_avsr_llm.frontend.avhubert_model import AVHubert, AVHubertConfig
from pretrain.clips import Clip
from pretrain.encoder import PhoneClassifier

SIZES = AVHubertConfig(
    encoder_embed_dim=128,
    encoder_layers=3,
    encoder_attention_heads=4,
    encoder_ffn_embed_dim=512,
    trunk_widths=(8, 16, 32, 64),
    conv_pos=32,
    conv_pos_groups=8,
    dropout=0.05,
    dropout_input=0.05,
    encoder_layerdrop=0.0,
)
WINDOW = 40  # frames of a clip in a training step


class Classifier(PhoneClassifier):
    """AV-HuBERT and head; pictures are cropped at random, may be masked, and vary in brightness and contrast."""

    rate, stream = 25, "video"

    def __init__(self, folder: Path, clips: list[Clip]) -> None:
        super().__init__(AVHubertFrontend(str(folder)))

    def part(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """A window: the ResNet is dear, and many clips a step teach it more than long ones."""
        start = int(rng.integers(max(1, len(clip.mouth) - WINDOW + 1)))
        return clip.cut(start, start + WINDOW)

    def inputs(self, clip: Clip, rng: np.random.Generator | None) -> np.ndarray:
        if rng is None:
            return center_crop(clip.mouth)
        video = random_crop(clip.mouth, rng)
        levels = np.arange(256) * rng.uniform(0.8, 1.2) + rng.uniform(-25, 25)
        video = levels.clip(0, 255).astype(np.uint8)[video]
        return adaptive_time_mask(video, rng, window=6, stride=25) if rng.random() < 0.5 else video

    def save(self, folder: Path) -> None:
        """Write the encoder, in half precision (the counters of BatchNorm stay integers)."""
        state = self.frontend.encoder.state_dict()
        state = {name: x.half() if x.is_floating_point() else x for name, x in state.items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def initialise(folder: Path, seed: int) -> None:
    """Write an untrained AV-HuBERT."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "avhubert", **asdict(SIZES)}, indent=2) + "\n")
    save_file(AVHubert(SIZES).state_dict(), folder / "model.safetensors")
