"""Assemble a model from a configuration: the one place where the parts meet."""

from __future__ import annotations

from typing import Any, Mapping

from espnet2_avsr_llm.adapter import ADAPTERS
from espnet2_avsr_llm.compression import COMPRESSIONS
from espnet2_avsr_llm.frontend import FRONTENDS
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
        ValueError: unknown name or option, or a plan that asks for a stream that no frontend yields.
        SourceError: a pretrained part is missing.
    """

    def part(name: str, **given):
        if config.get(name) is None:
            if name in OPTIONAL:
                return None
            raise ValueError(f"The configuration names no {name}; choose from {', '.join(PARTS[name])}")
        return construct(PARTS[name], config[name], config.get(f"{name}_conf") or {}, **given)

    plan = part("plan")
    frontends = {name: part(name) for name in ("audio_frontend", "video_frontend")}
    frontends = {name: frontend for name, frontend in frontends.items() if frontend is not None}
    widths = {stream: width for frontend in frontends.values() for stream, width in frontend.streams.items()}
    rates = plan.rates()
    if set(rates) != set(widths):
        raise ValueError(f"The plan reads the streams {sorted(rates)}, but the frontends yield {sorted(widths)}")
    compression = part("compression")
    llm = part("llm")
    sizes = {s: {r: compression.output_size(widths[s], r) for r in rs} for s, rs in rates.items()}
    projector = part("projector", input_sizes=sizes, output_size=llm.width)
    adapter = part("adapter", llm=llm, passes=plan.all_passes())
    return model_class(frontends, compression, projector, llm, adapter, plan, _losses(config))


def _losses(config: Mapping[str, Any]) -> dict[str, Any]:
    confs = config.get("losses_conf") or {}
    for name in confs:
        if name not in LOSSES:
            raise ValueError(f"losses_conf: unknown loss {name!r}{nearest(name, LOSSES)}; known: {', '.join(LOSSES)}")
    return {name: construct(LOSSES, name, confs.get(name) or {}) for name in config.get("losses") or []}
