"""Assemble a model from a configuration: the one place where the parts meet."""

from __future__ import annotations

from typing import Any, Collection, Mapping

import torch

from espnet2_avsr_llm.adapter import ADAPTERS
from espnet2_avsr_llm.compression import COMPRESSIONS
from espnet2_avsr_llm.frontend import FRONTENDS
from espnet2_avsr_llm.frontend.abs_frontend import AbsFrontend
from espnet2_avsr_llm.llm import LLMS
from espnet2_avsr_llm.loss import LOSSES
from espnet2_avsr_llm.model import AVSRLLM
from espnet2_avsr_llm.pass_plan import PLANS
from espnet2_avsr_llm.projector import PROJECTORS
from espnet2_avsr_llm.registry import construct, nearest

# Each part of the configuration, `PART: name` and `PART_conf: {options}`, with the registry it is chosen from.
PARTS: dict[str, dict[str, type]] = {
    "audio_frontend": FRONTENDS,
    "video_frontend": FRONTENDS,
    "compression": COMPRESSIONS,
    "projector": PROJECTORS,
    "llm": LLMS,
    "adapter": ADAPTERS,
    "plan": PLANS,
}
PRETRAINED = ("audio_frontend", "video_frontend", "llm")  # parts that start from a source
OPTIONAL = ("audio_frontend", "video_frontend", "adapter")


def build(config: Mapping[str, Any], model_class: type[AVSRLLM] = AVSRLLM) -> AVSRLLM:
    """Build the model that a configuration describes.

    Args:
        config: keys ``PART`` and ``PART_conf`` for each of :data:`PARTS`; optional parts may be null. ``losses`` lists names, and
            ``losses_conf`` gives the options of each by its name. Other keys are ignored.
        model_class: the class to instantiate (the ESPnet face is a subclass).

    Returns:
        The model; under ``torch.device("meta")`` without storage.

    Raises:
        ValueError: unknown name or option, or parts that do not fit together (:func:`stream_widths`).
        SourceError: a pretrained part is missing.
    """
    plan = part(config, "plan")
    frontends = build_frontends(config)
    widths, rates = stream_widths(plan, frontends.values()), plan.rates()
    compression = part(config, "compression")
    llm = part(config, "llm")
    sizes = {s: {r: compression.output_size(widths[s], r) for r in rs} for s, rs in rates.items()}
    projector = part(config, "projector", input_sizes=sizes, output_size=llm.width)
    adapter = part(config, "adapter", llm=llm, passes=plan.all_passes())
    return model_class(frontends, compression, projector, llm, adapter, plan, _losses(config))


def stream_widths(plan, frontends: Collection[AbsFrontend]) -> dict[str, int]:
    """Feature width of each stream of the frontends.

    Raises:
        ValueError: the plan reads others, two frontends yield the same one, or one hears waveforms and the other filterbanks.
    """
    streams = [item for f in frontends for item in f.streams.items()]
    names = sorted(stream for stream, _ in streams)
    if len({f.filterbanks for f in frontends if "speech" in f.inputs}) > 1:
        raise ValueError("One frontend hears waveforms and the other filterbanks (AV-HuBERT): an utterance has one form of speech. Choose one")
    if names != sorted(plan.rates()):
        raise ValueError(f"The plan reads the streams {sorted(plan.rates())}, but the frontends yield {names}")
    return dict(streams)


def build_frontends(config: Mapping[str, Any]) -> dict[str, AbsFrontend]:
    """The frontends of a configuration, by the name of their part."""
    frontends = {name: part(config, name) for name in ("audio_frontend", "video_frontend")}
    return {name: frontend for name, frontend in frontends.items() if frontend is not None}


def outline(config: Mapping[str, Any]) -> list[AbsFrontend]:
    """The frontends of a configuration on ``meta``: what they read and yield, without their weights."""
    with torch.device("meta"):
        return list(build_frontends(sized(config)).values())


def sized(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with its pretrained parts by their sizes alone: those of ``arch``, or else of the source's ``config.json``."""
    changed = dict(config)
    for name in PRETRAINED:
        conf = config.get(f"{name}_conf") or {}
        if config.get(name) is not None and conf.get("arch"):
            changed[f"{name}_conf"] = {k: v for k, v in conf.items() if k not in ("source", "revision")} | {"init": "random"}
    return changed


def part(config: Mapping[str, Any], name: str, **given):
    """The part that a configuration names; None for an optional one that it leaves out."""
    if config.get(name) is None:
        if name in OPTIONAL:
            return None
        raise ValueError(f"The configuration names no {name}; choose from {', '.join(PARTS[name])}")
    return construct(PARTS[name], config[name], config.get(f"{name}_conf") or {}, **given)


def _losses(config: Mapping[str, Any]) -> dict[str, Any]:
    confs = config.get("losses_conf") or {}
    for name in confs:
        if name not in LOSSES:
            raise ValueError(f"losses_conf: unknown loss {name!r}{nearest(name, LOSSES)}; known: {', '.join(LOSSES)}")
    return {name: construct(LOSSES, name, confs.get(name) or {}) for name in config.get("losses") or []}
