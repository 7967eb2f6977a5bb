"""Pretrained parts inside a released checkpoint: configuration from shapes and from what the user adds, and source folders.

Shapes: `D` width of a part, `H` its attention heads.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from espnet2_avsr_llm.convert.released.facts import count
from espnet2_avsr_llm.frontend.avhubert import AVHubertFrontend
from espnet2_avsr_llm.frontend.whisper import WhisperFrontend
from espnet2_avsr_llm.hub.build import from_folder, read_config
from espnet2_avsr_llm.hub.resolve import SourceError, arch, arch_names, resolve

HEAD_WIDTH = 64  # D / H of every public Whisper and AV-HuBERT
_SHOWN = 5  # tensors that an error lists
WEIGHT_FILES = ("*.safetensors", "*.bin")
LLM_NEEDS = ("num_attention_heads", "rms_norm_eps", "rope_theta")  # what shapes never tell and no default may replace

Config = dict[str, Any]
Tensors = dict[str, Tensor]
Source = Union[str, Path, Mapping[str, Any], None]  # a folder or hub id; a configuration; nothing but the checkpoint


@dataclass(frozen=True)
class Kind:
    """One kind of pretrained part.

    Attributes:
        shapes: the configuration that names and shapes tell.
        rest: what they do not tell, completed from the given configuration or the public model of these shapes.
        empty: builds the module of a configuration.
        load: reads a source folder in a number format.
    """

    shapes: Callable[[Tensors], Config]
    rest: Callable[[Config, Tensors, Config], Config]
    empty: Callable[[Config], nn.Module]
    load: Callable[[str, torch.dtype], nn.Module]


def _whisper_shapes(tensors: Tensors) -> Config:
    width, mels, _ = tensors["conv1.weight"].shape
    return dict(
        d_model=width,
        num_mel_bins=mels,
        encoder_layers=count(tensors, r"layers\.(\d+)\."),
        encoder_ffn_dim=tensors["layers.0.fc1.weight"].shape[0],
        max_source_positions=tensors["embed_positions.weight"].shape[0],
    )


def _avhubert_shapes(tensors: Tensors) -> Config:
    width, group, taps = tensors["encoder.pos_conv.0.weight_v"].shape
    return dict(
        encoder_embed_dim=width,
        encoder_layers=count(tensors, r"encoder\.layers\.(\d+)\."),
        encoder_ffn_embed_dim=tensors["encoder.layers.0.fc1.weight"].shape[0],
        trunk_widths=[tensors[f"feature_extractor_video.resnet.trunk.layer{i}.0.conv1.weight"].shape[0] for i in range(1, 5)],
        conv_pos=taps,
        conv_pos_groups=width // group,
        modality_fuse="concat" if tensors["layer_norm.weight"].shape[0] == 2 * width else "add",
        resnet_relu_type="prelu" if "feature_extractor_video.resnet.frontend3D.2.weight" in tensors else "relu",
        audio_feat_dim=tensors["feature_extractor_audio.proj.weight"].shape[1],
    )


def _llm_shapes(tensors: Tensors) -> Config:
    return dict(
        hidden_size=tensors["model.embed_tokens.weight"].shape[1],
        num_hidden_layers=count(tensors, r"model\.layers\.(\d+)\."),
        intermediate_size=tensors["model.layers.0.mlp.gate_proj.weight"].shape[0],
    )


def _encoder_rest(model_type: str, width_key: str) -> Callable[[Config, Tensors, Config], Config]:
    def rest(shapes: Config, tensors: Tensors, given: Config) -> Config:
        width = shapes[width_key]
        if "encoder_attention_heads" not in given and width % HEAD_WIDTH:
            raise SourceError(f"No public {model_type} is {width} wide: give its configuration, such as {{'encoder_attention_heads': 4}}")
        return {"model_type": model_type, "encoder_attention_heads": width // HEAD_WIDTH}

    return rest


def public_llm(tensors: Tensors) -> Config:
    """Configuration of the public LLM (``arch/``) that has the sizes of these tensors; empty when there is none."""
    sizes = {**_llm_shapes(tensors), "hidden_act": "silu"}  # the activation tells LLMs from encoders of the same sizes
    return next((known for known in map(arch, arch_names()) if all(known.get(k) == v for k, v in sizes.items())), {})


def _llm_rest(shapes: Config, tensors: Tensors, given: Config) -> Config:
    public = public_llm(tensors)
    if any(key.startswith("rope") for key in given):
        public = {key: value for key, value in public.items() if not key.startswith("rope")}
    known = {**public, **given}
    lacking = [key for key in LLM_NEEDS if key not in known and not (key == "rope_theta" and "rope_parameters" in known)]
    if lacking:
        raise SourceError(
            f"No LLM known here has the sizes {shapes}, and tensors do not tell {', '.join(lacking)}: give llm, the folder of the LLM that was "
            "fine-tuned (its config.json and tokenizer are enough), or these as a configuration"
        )
    first = "model.layers.0.self_attn.{}".format
    kind = "qwen3" if first("q_norm.weight") in tensors else "qwen2" if first("q_proj.bias") in tensors else "llama"
    width = tensors[first("q_proj.weight")].shape[0] // known["num_attention_heads"]
    return {"model_type": kind, "head_dim": width, "num_key_value_heads": tensors[first("k_proj.weight")].shape[0] // width, **public}


def _empty_llm(config: Config) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


def _load_llm(folder: str, dtype: torch.dtype) -> nn.Module:
    from transformers import AutoModelForCausalLM

    return from_folder(AutoModelForCausalLM, folder, dtype=dtype)


KINDS = {
    "whisper": Kind(_whisper_shapes, _encoder_rest("whisper", "d_model"), WhisperFrontend.random, WhisperFrontend.load),
    "avhubert": Kind(_avhubert_shapes, _encoder_rest("avhubert", "encoder_embed_dim"), AVHubertFrontend.random, AVHubertFrontend.load),
    "llm": Kind(_llm_shapes, _llm_rest, _empty_llm, _load_llm),
}


def given_configuration(source: Source) -> Config:
    """The configuration in a folder (or of a hub id), or a given one.

    Raises:
        SourceError: the folder has none.
    """
    if source is None or isinstance(source, Mapping):
        return dict(source or {})
    return read_config(resolve(str(source)))


def configure(part: str, kind: Kind, tensors: Tensors, given: Config) -> Config:
    """Configuration of a part, checked against its tensors.

    Args:
        part: released prefix, for messages.
        kind: of :data:`KINDS`.
        tensors: of the part, without prefix.
        given: configuration from the user, complete or in part.

    Raises:
        SourceError: ``given`` contradicts the tensors, or what they do not tell is missing.
    """
    try:
        shapes = kind.shapes(tensors)
        wrong = [f"{k} is {given[k]}, but the checkpoint has {v}" for k, v in shapes.items() if k in given and given[k] != v]
        if wrong:
            raise SourceError(f"The configuration given for {part} contradicts the checkpoint: {'; '.join(wrong)}")
        config = {**kind.rest(shapes, tensors, given), **given, **shapes}
        with torch.device("meta"):
            expected = {name: t.shape for name, t in kind.empty(dict(config)).state_dict().items()}
    except (LookupError, ValueError, TypeError, ArithmeticError) as e:
        raise SourceError(f"{part} of the checkpoint cannot be built, from its shapes and what was given: {type(e).__name__}: {e}") from e
    if config.get("tie_word_embeddings"):
        expected.pop("lm_head.weight")
    wrong = _misfits(part, expected, {name: t.shape for name, t in tensors.items()})
    if wrong:
        raise SourceError(f"The checkpoint does not fit the configuration of {part} in {len(wrong)} tensors; it {'; it '.join(wrong[:_SHOWN])}")
    return config


def _misfits(part: str, expected: Mapping[str, torch.Size], found: Mapping[str, torch.Size]) -> list[str]:
    wrong = [f"lacks {part}.{n}" for n in sorted(expected.keys() - found.keys())]
    wrong += [f"has {part}.{n} besides" for n in sorted(found.keys() - expected.keys())]
    return wrong + [f"has {part}.{n} of {list(found[n])}, not {list(s)}" for n, s in expected.items() if n in found and found[n] != s]


def place_source(kind: Kind, source: Source, config: Config, tensors: Tensors, folder: Path) -> str:
    """The source that holds a part: the user's, where it has the checkpoint's very tensors, else ``folder``, written here.

    Args:
        kind: of :data:`KINDS`.
        source: what the user gave.
        config: of :func:`configure`.
        tensors: of the part.
        folder: to write.

    Returns:
        The source to name in the experiment.
    """
    if isinstance(source, (str, Path)) and any(f for pattern in WEIGHT_FILES for f in resolve(str(source)).glob(pattern)):
        public = kind.load(str(resolve(str(source))), number_format(tensors)).state_dict()
        differ = sorted(n for n, t in tensors.items() if n not in public or not torch.equal(public[n], t))
        if not differ:
            logging.info("%s: the checkpoint has its tensors", source)
            return str(source)
        logging.info("%s: %d tensors of the checkpoint differ from it, such as %s", source, len(differ), differ[0])
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    logging.info("%s: %d tensors of the checkpoint", folder, len(tensors))
    return str(folder)


def number_format(tensors: Tensors) -> torch.dtype:
    """Number format of a part: that of its first weight."""
    return next(t.dtype for t in tensors.values() if t.is_floating_point())
