"""AV-HuBERT as a frontend: mouth pictures in, one feature per frame out, arXiv:2201.02184; encoder LoRA of Llama-AVSR, arXiv:2409.12319.

Shapes: `B` batch, `T` video frames at 25 Hz, `F` feature width.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor, nn

from espnet2_avsr_llm.frontend.abs_frontend import AbsFrontend, Lengthed
from espnet2_avsr_llm.frontend.avhubert_model import AVHubert, AVHubertConfig
from espnet2_avsr_llm.hub.build import build, torch_dtype
from espnet2_avsr_llm.hub.resolve import SourceError

PIXEL_MEAN, PIXEL_STD = 0.421, 0.165  # of LRS3 mouths in [0, 1]
LORA_TARGETS = r".*\.self_attn\.[qv]_proj"


class AVHubertFrontend(AbsFrontend):
    """Video stream of an AV-HuBERT.

    Args:
        source: folder with ``config.json`` and ``model.safetensors`` (``avsr-llm convert avhubert`` writes one), or its hub id.
        init: ``pretrained`` reads ``source``; ``random`` builds ``arch`` without weights.
        arch: name of ``arch/*.json``, for ``init="random"``.
        revision: branch, tag or commit of a hub id.
        dtype: of the encoder.
        lora: ``{"rank": r, "scale": s}`` trains LoRA on ``q_proj`` and ``v_proj`` of every layer (q <- Wx + b + s UDx); the
            papers use rank 64 and scale 2.

    Raises:
        SourceError: the source is missing or does not fit its configuration.
    """

    inputs = ("video",)

    def __init__(
        self,
        source: str | None = None,
        init: str = "pretrained",
        arch: str | None = None,
        revision: str | None = None,
        dtype: str = "float32",
        lora: dict | None = None,
    ) -> None:
        super().__init__()
        self.encoder, origin = build(source, init, arch, revision, torch_dtype(dtype), load_avhubert, _random)
        self.adopt("encoder", self.encoder, origin, revision)
        if lora is not None:
            add_lora(self.encoder, **lora)
        self.streams = {"video": self.encoder.config.encoder_embed_dim}
        self.eval()

    @staticmethod
    def num_frames(num_inputs: int) -> int:
        """One feature per video frame."""
        return num_inputs

    def forward(self, video: Lengthed) -> dict[str, Lengthed]:
        """Encode.

        Args:
            video: ``(B, T, 88, 88)`` uint8, or float already normalised, and its lengths ``(B,)`` in frames. What lies beyond a
                length is ignored.

        Returns:
            ``{"video": (features (B, T, F), lengths (B,))}``; ``T`` is the longest length of the batch.
        """
        pictures, lengths = video
        pictures = pictures[:, : int(lengths.max())]
        valid = torch.arange(pictures.size(1), device=pictures.device) < lengths[:, None]
        if not valid.any():
            return {"video": (self._dtype_like(pictures).new_zeros(*valid.shape, self.streams["video"]), lengths)}
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.encoder(valid, video=self._normalise(pictures, valid))
        return {"video": (features, lengths)}

    def _dtype_like(self, x: Tensor) -> Tensor:
        return x.new_zeros((), dtype=self.encoder.layer_norm.weight.dtype)

    def _normalise(self, pictures: Tensor, valid: Tensor) -> Tensor:
        if pictures.dtype == torch.uint8:
            pictures = (pictures.float() / 255 - PIXEL_MEAN) / PIXEL_STD
        # Zero, not black: the released programs pad with zeros after normalisation, and so does the 3-D convolution.
        return pictures.to(self.encoder.layer_norm.weight.dtype) * valid[..., None, None]


def add_lora(encoder: nn.Module, rank: int, scale: float) -> None:
    """Add trained LoRA to the attention of ``encoder``, in place (PEFT; its tensors are float32)."""
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=scale * rank, target_modules=LORA_TARGETS), encoder)
    for name, parameter in encoder.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def load_avhubert(folder: str, dtype: torch.dtype) -> AVHubert:
    """Read an encoder from ``config.json`` and ``model.safetensors``.

    Raises:
        SourceError: a file is missing, or configuration and tensors disagree.
    """
    from safetensors.torch import load_file

    for name in ("config.json", "model.safetensors"):
        if not (Path(folder) / name).is_file():
            raise SourceError(f"{folder} has no {name}: an AV-HuBERT source is a folder with config.json and model.safetensors")
    model = _random(json.loads((Path(folder) / "config.json").read_text()))
    try:
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    except RuntimeError as e:
        raise SourceError(f"{folder}: model.safetensors does not fit config.json: {e}") from e
    return model.to(dtype)


def _random(config: dict) -> AVHubert:
    if config.get("model_type") != "avhubert":
        raise SourceError(f"The configuration says model_type {config.get('model_type')!r}, expected 'avhubert'")
    sizes = {k: v for k, v in config.items() if k != "model_type"}
    unknown = set(sizes) - {f.name for f in fields(AVHubertConfig)}
    if unknown:
        raise SourceError(f"Unknown AV-HuBERT configuration keys: {', '.join(sorted(unknown))}")
    return AVHubert(AVHubertConfig(**sizes | {"trunk_widths": tuple(sizes.get("trunk_widths", AVHubertConfig.trunk_widths))}))
