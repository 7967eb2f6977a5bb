"""AV-HuBERT encoder in plain PyTorch: Shi et al., Learning Audio-Visual Speech Representation by Masked Multimodal Cluster Prediction, arXiv:2201.02184.

Module names are those of the fairseq checkpoints. Shapes: `B` batch, `T` frames at 25 Hz, `D` model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet2_avsr_llm.frontend.avhubert_resnet import VideoResNet
from espnet2_avsr_llm.frontend.avhubert_transformer import Transformer

AUDIO_WIDTH = 104  # four stacked frames of 26 log filterbanks


@dataclass(frozen=True)
class AVHubertConfig:
    """Sizes of an AV-HuBERT; the defaults are the public Large model's.

    Attributes:
        trunk_widths: channels of the four ResNet stages.
        conv_pos, conv_pos_groups: kernel and groups of the positional convolution.
    """

    encoder_embed_dim: int = 1024
    encoder_layers: int = 24
    encoder_attention_heads: int = 16
    encoder_ffn_embed_dim: int = 4096
    trunk_widths: tuple[int, ...] = (64, 128, 256, 512)
    conv_pos: int = 128
    conv_pos_groups: int = 16
    dropout: float = 0.1
    dropout_input: float = 0.1
    encoder_layerdrop: float = 0.05

    def __post_init__(self) -> None:
        if len(self.trunk_widths) != 4:
            raise ValueError(f"trunk_widths {list(self.trunk_widths)}: expected the widths of four stages")
        for name in ("encoder_attention_heads", "conv_pos_groups"):
            if self.encoder_embed_dim % getattr(self, name):
                raise ValueError(f"encoder_embed_dim {self.encoder_embed_dim} is no multiple of {name} {getattr(self, name)}")


class VideoExtractor(nn.Module):
    def __init__(self, config: AVHubertConfig) -> None:
        super().__init__()
        self.resnet = VideoResNet(config.trunk_widths)
        self.proj = nn.Linear(config.trunk_widths[-1], config.encoder_embed_dim)

    def forward(self, video: Tensor, valid: Tensor) -> Tensor:
        return self.proj(self.resnet(video, valid))


class AudioExtractor(nn.Module):
    def __init__(self, config: AVHubertConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(AUDIO_WIDTH, config.encoder_embed_dim)

    def forward(self, audio: Tensor) -> Tensor:
        return self.proj(audio)


class AVHubert(nn.Module):
    """Encoder of video, audio filterbanks, or both fused frame by frame."""

    def __init__(self, config: AVHubertConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder_embed_dim
        self.feature_extractor_audio = AudioExtractor(config)
        self.feature_extractor_video = VideoExtractor(config)
        self.layer_norm = nn.LayerNorm(2 * width)
        self.post_extract_proj = nn.Linear(2 * width, width)
        self.dropout_input = nn.Dropout(config.dropout_input)
        self.encoder = Transformer(
            width,
            config.encoder_layers,
            config.encoder_attention_heads,
            config.encoder_ffn_embed_dim,
            config.conv_pos,
            config.conv_pos_groups,
            config.dropout,
            config.encoder_layerdrop,
        )

    def forward(self, valid: Tensor, video: Tensor | None = None, audio: Tensor | None = None) -> Tensor:
        """Encode.

        Args:
            valid: ``(B, T)`` True at the frames of each clip.
            video: ``(B, T, 88, 88)`` normalised mouth pictures, zero at padding; None when there are none.
            audio: ``(B, T, 104)`` normalised filterbanks; None when there are none.

        Returns:
            ``(B, T, D)``, zero at padding.
        """
        mask = valid.unsqueeze(-1)
        absent = self.post_extract_proj.weight.new_zeros(*valid.shape, self.config.encoder_embed_dim)
        video_features = absent if video is None else self.feature_extractor_video(video, valid)
        audio_features = absent if audio is None else self.feature_extractor_audio(audio)
        x = self.layer_norm(torch.cat([audio_features, video_features], dim=-1))
        x = self.dropout_input(self.post_extract_proj(x)) * mask
        return self.encoder(x, valid) * mask
