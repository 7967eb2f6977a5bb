"""AV-HuBERT encoder in plain PyTorch: Shi et al., Learning Audio-Visual Speech Representation by Masked Multimodal Cluster Prediction, arXiv:2201.02184.

Module names are those of the fairseq checkpoints. Shapes: `B` batch, `T` frames at 25 Hz, `D` model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet2_avsr_llm.frontend.avhubert_resnet import RELU_TYPES, VideoResNet
from espnet2_avsr_llm.frontend.avhubert_transformer import Transformer

FUSIONS = ("concat", "add")
Present = tuple[Tensor, Tensor]  # inputs (B, T, ...), zero where there are none, and (B, T) True where there are


@dataclass(frozen=True)
class AVHubertConfig:
    """Sizes of an AV-HuBERT; the defaults are the public Large model's.

    Attributes:
        trunk_widths: channels of the four ResNet stages.
        conv_pos, conv_pos_groups: kernel and groups of the positional convolution.
        layer_norm_first: LayerNorm before attention and feed-forward, else after them.
        modality_fuse: ``concat`` or ``add`` the features of both modalities.
        resnet_relu_type: ``prelu`` or ``relu``.
        audio_feat_dim: width of the sound's frames, four stacked frames of 26 log filterbanks.
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
    layer_norm_first: bool = True
    modality_fuse: str = "concat"
    resnet_relu_type: str = "prelu"
    audio_feat_dim: int = 104

    def __post_init__(self) -> None:
        if len(self.trunk_widths) != 4:
            raise ValueError(f"trunk_widths {list(self.trunk_widths)}: expected the widths of four stages")
        for name, known in (("modality_fuse", FUSIONS), ("resnet_relu_type", RELU_TYPES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r}: expected {' or '.join(known)}")
        for name in ("encoder_attention_heads", "conv_pos_groups"):
            if self.encoder_embed_dim % getattr(self, name):
                raise ValueError(f"encoder_embed_dim {self.encoder_embed_dim} is no multiple of {name} {getattr(self, name)}")


class VideoExtractor(nn.Module):
    def __init__(self, config: AVHubertConfig) -> None:
        super().__init__()
        self.resnet = VideoResNet(config.trunk_widths, config.resnet_relu_type)
        self.proj = nn.Linear(config.trunk_widths[-1], config.encoder_embed_dim)

    def forward(self, video: Tensor, valid: Tensor) -> Tensor:
        return self.proj(self.resnet(video, valid))


class AudioExtractor(nn.Module):
    def __init__(self, config: AVHubertConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.audio_feat_dim, config.encoder_embed_dim)

    def forward(self, audio: Tensor) -> Tensor:
        return self.proj(audio)


class AVHubert(nn.Module):
    """Encoder of video, audio filterbanks, or both fused frame by frame."""

    def __init__(self, config: AVHubertConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder_embed_dim
        fused = 2 * width if config.modality_fuse == "concat" else width
        self.feature_extractor_audio = AudioExtractor(config)
        self.feature_extractor_video = VideoExtractor(config)
        self.layer_norm = nn.LayerNorm(fused)
        self.post_extract_proj = nn.Linear(fused, width) if fused != width else None
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
            config.layer_norm_first,
        )

    def forward(self, video: Present | None = None, audio: Present | None = None) -> Tensor:
        """Encode.

        Args:
            video: ``(B, T, 88, 88)`` normalised mouth pictures; None when there are none.
            audio: ``(B, T, 104)`` normalised filterbanks; None when there are none.

        Returns:
            ``(B, T, D)``, zero where there is neither. The features of a modality are zero where it is absent, as in its training
            with modality dropout.
        """
        given = [present for _, present in filter(None, (audio, video))]
        valid = torch.stack(given).any(0)
        absent = self.layer_norm.weight.new_zeros(*valid.shape, self.config.encoder_embed_dim)
        video_features = absent if video is None else self.feature_extractor_video(*video) * video[1].unsqueeze(-1)
        audio_features = absent if audio is None else self.feature_extractor_audio(audio[0]) * audio[1].unsqueeze(-1)
        if self.config.modality_fuse == "concat":
            x = self.layer_norm(torch.cat([audio_features, video_features], dim=-1))
        else:
            x = self.layer_norm(audio_features + video_features)
        if self.post_extract_proj is not None:
            x = self.post_extract_proj(x)
        mask = valid.unsqueeze(-1)
        return self.encoder(self.dropout_input(x) * mask, valid) * mask
