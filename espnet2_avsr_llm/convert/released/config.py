"""The training configuration of a released model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from espnet2_avsr_llm.convert.released.facts import ENCODERS, Facts, Lora, only
from espnet2_avsr_llm.convert.released.names import PARTS, SETS
from espnet2_avsr_llm.pass_plan import task_of

ENCODER_SCALE = 2.0  # of AV-HuBERT's LoRA in every released program
LORA_TARGETS = ["q_proj", "v_proj"]
OMNI_TASKS = {"asr": 1.0, "vsr": 1.5, "avsr": 1.0}  # weights in the training of the released models


@dataclass(frozen=True)
class Part:
    """Where a pretrained part comes from, and its number format."""

    source: str
    dtype: str


def model_config(facts: Facts, parts: dict[str, Part], lora_scale: float, rope_frequency_dtype: str, released: bool) -> dict[str, Any]:
    """The configuration.

    Args:
        facts: of the checkpoint.
        parts: by our name.
        lora_scale: s of the LLM's LoRA.
        rope_frequency_dtype: number format of the rotary frequencies.
        released: lengths as in the released programs.
    """
    return {
        **_frontends(facts, parts, released),
        "compression": facts.compression,
        "compression_conf": {},
        **_projector(facts),
        "llm": "causal_lm",
        "llm_conf": {**vars(parts["llm"]), "rope_frequency_dtype": rope_frequency_dtype},
        **_adapter(facts.lora.get("llm"), lora_scale),
        **_plan(facts),
    }


def _frontends(facts: Facts, parts: dict[str, Part], released: bool) -> dict[str, Any]:
    config: dict[str, Any] = {"audio_frontend": None, "video_frontend": None}
    for prefix, kind in facts.encoders.items():
        conf: dict[str, Any] = dict(vars(parts[PARTS[prefix]]))
        if kind == "avhubert":
            conf["streams"] = [stream for stream in ENCODERS[prefix] if stream in facts.projectors]
            if released and "video" in conf["streams"] and not facts.projectors["video"].indexed:
                conf["video_multiple"] = facts.rates["video"][0]
        elif released:
            conf["released_lengths"] = True
        if prefix in facts.lora:
            conf["lora"] = {"rank": facts.lora[prefix].rank, "scale": ENCODER_SCALE}
        config |= {PARTS[prefix]: kind, f"{PARTS[prefix]}_conf": conf}
    return config


def _projector(facts: Facts) -> dict[str, Any]:
    projectors = facts.projectors
    norms = {stream: p.layer_norm for stream, p in projectors.items()}
    conf: dict[str, Any] = {
        "hidden_size": only("the inner width of the projectors", (p.hidden_size for p in projectors.values())),
        "layer_norm": norms if len(set(norms.values())) > 1 else all(norms.values()),
    }
    first = next(iter(projectors.values()))
    if first.experts:
        return {"projector": "smop", "projector_conf": {"routing": "jejr", "experts": first.experts, **conf}}
    return {"projector": "mlp_bank" if first.indexed else "mlp", "projector_conf": conf}


def _adapter(lora: Lora | None, scale: float) -> dict[str, Any]:
    if lora is None:
        return {"adapter": None, "adapter_conf": {}}
    sets = sorted({SETS[suffix].split("_")[0] for suffix in lora.sets})
    return {"adapter": "lora", "adapter_conf": {"rank": lora.rank, "scale": scale, "target_modules": LORA_TARGETS, "sets": sets}}


def _plan(facts: Facts) -> dict[str, Any]:
    if facts.system == "omni_avsr":
        return {"plan": "random_rates", "plan_conf": {"rates": facts.rates, "tasks": OMNI_TASKS}}
    return {"plan": "all_rates", "plan_conf": {"task": task_of(facts.rates), "rates": facts.rates}}
