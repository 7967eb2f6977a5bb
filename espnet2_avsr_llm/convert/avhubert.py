"""AV-HuBERT checkpoints of fairseq into source folders of the avhubert frontend, without fairseq; arXiv:2201.02184.

Pretrained files hold the encoder at the top, fine-tuned ones below a prefix, with the encoder's own configuration inside theirs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from espnet2_avsr_llm.convert.torch_file import Stub, read_torch_file
from espnet2_avsr_llm.data.atomic import atomic_path, write_text
from espnet2_avsr_llm.frontend.avhubert_model import AVHubert, AVHubertConfig
from espnet2_avsr_llm.hub.pretrained import refuse_non_finite
from espnet2_avsr_llm.hub.resolve import SourceError

ANCHOR = "feature_extractor_video.proj.weight"  # every AV-HuBERT has it, once
# What fairseq takes where a file does not say: its own defaults, not those of the public models.
DEFAULTS = {
    "encoder_embed_dim": 768,
    "encoder_layers": 12,
    "encoder_attention_heads": 12,
    "encoder_ffn_embed_dim": 3072,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "dropout": 0.1,
    "dropout_input": 0.0,
    "encoder_layerdrop": 0.0,
    "layer_norm_first": False,
    "modality_fuse": "concat",
    "resnet_relu_type": "prelu",
    "audio_feat_dim": -1,
}
ONLY = {"activation_fn": "gelu", "sub_encoder_layers": 0}  # options of fairseq with a single value here
_SHOWN = 5


def convert_avhubert(path: Path | str, output: Path | str) -> str:
    """Write ``config.json`` and ``model.safetensors``.

    Args:
        path: fairseq's ``.pt``.
        output: the folder, made where it is missing.

    Returns:
        What was kept and what was dropped.

    Raises:
        SourceError: the file is refused, damaged, holds no AV-HuBERT, or contradicts itself.
    """
    from safetensors.torch import save_file

    checkpoint = read_torch_file(path)
    tensors = checkpoint.get("model") if isinstance(checkpoint, Mapping) else None
    if not isinstance(tensors, Mapping) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise SourceError(f"{path} has no state dict under 'model': it is no checkpoint of fairseq")
    prefix = _prefix(path, tensors)
    config = _config(path, checkpoint, {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})
    kept = _kept(path, prefix, tensors, config)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    with atomic_path(output / "model.safetensors") as temporary:
        save_file(kept, temporary, metadata={"format": "pt"})
    write_text(output / "config.json", json.dumps({"model_type": "avhubert", **asdict(config)}, indent=2) + "\n")
    dropped = Counter(".".join(name.split(".")[:2]) for name in tensors if name not in {prefix + k for k in kept})
    others = sorted(str(key) for key in checkpoint if key not in ("model", "cfg", "args"))
    return (
        f"{path}: AV-HuBERT{f' under {prefix}' if prefix else ''} -> {output}\n"
        f"kept {len(kept)} tensors, {sum(t.numel() for t in kept.values()):,} values: {json.dumps(asdict(config))}\n"
        f"dropped {sum(dropped.values())} tensors: {', '.join(f'{name} ({n})' for name, n in sorted(dropped.items())) or 'none'}\n"
        f"dropped besides: {', '.join(others) or 'nothing'}\n"
    )


def _prefix(path: Path | str, tensors: Mapping[str, Tensor]) -> str:
    found = [name.removesuffix(ANCHOR) for name in tensors if name.endswith(ANCHOR)]
    if len(found) != 1:
        raise SourceError(f"{path} holds {len(found)} AV-HuBERT encoders (tensors named *{ANCHOR}), expected one; it has for example {min(tensors, default='nothing')}")
    return found[0]


def _config(path: Path | str, checkpoint: Mapping, tensors: Mapping[str, Tensor]) -> AVHubertConfig:
    """Sizes of the encoder, as the file's own configuration says; the ResNet's widths are in no configuration, but in its tensors."""
    options = _plain(checkpoint.get("cfg") or checkpoint.get("args"))
    options = options.get("model", options) if isinstance(options, Mapping) else None
    if isinstance(options, Mapping) and isinstance(options.get("w2v_args"), Mapping):  # fine-tuned
        options = options["w2v_args"].get("model", options["w2v_args"])
    if not isinstance(options, Mapping) or "encoder_layers" not in options:
        raise SourceError(f"{path} does not say the encoder's sizes: expected them in cfg.model, or in cfg.model.w2v_args of a fine-tuned model")
    for name, value in ONLY.items():
        if options.get(name, value) != value:
            raise SourceError(f"{path}: {name} is {options[name]!r}, expected {value!r}, as in every public AV-HuBERT")
    widths = [t.shape[0] for i in range(1, 5) if (t := tensors.get(f"feature_extractor_video.resnet.trunk.layer{i}.0.bn1.weight")) is not None]
    try:
        return AVHubertConfig(**{name: options.get(name, value) for name, value in DEFAULTS.items()}, trunk_widths=tuple(widths))
    except (ValueError, TypeError) as e:
        raise SourceError(f"{path}: {e}") from e


def _plain(value: Any) -> Any:
    """Containers in place of stubs: of a Namespace its attributes, of OmegaConf's nodes their content."""
    if isinstance(value, Stub):
        state = vars(value)
        value = state.get("_content", state.get("_val", state))
    return {key: _plain(v) for key, v in value.items()} if isinstance(value, Mapping) else value


def _kept(path: Path | str, prefix: str, tensors: Mapping[str, Tensor], config: AVHubertConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        expected = AVHubert(config).state_dict()
    missing = [prefix + name for name in expected if prefix + name not in tensors]
    if missing:
        raise SourceError(f"{path} lacks {len(missing)} tensors of its encoder, such as {', '.join(missing[:_SHOWN])}")
    kept = {name: tensors[prefix + name].contiguous().clone() for name in expected}
    wrong = [f"{prefix}{name} {list(kept[name].shape)}, expected {list(t.shape)}" for name, t in expected.items() if kept[name].shape != t.shape]
    if wrong:
        raise SourceError(f"{path} contradicts its configuration in {len(wrong)} tensors: {'; '.join(wrong[:_SHOWN])}")
    refuse_non_finite(kept, str(path))
    return kept
