"""What keys and shapes of a released checkpoint say about its model (system specification 0.10).

Shapes: `D` LLM width, `F` encoder width, `K` compression rate, `r` LoRA rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from espnet2_avsr_llm.hub.resolve import SourceError

Tensors = Mapping[str, Tensor]

ENCODERS = {"audio_encoder": ("audio",), "video_encoder": ("video",), "audiovisual_encoder": ("audio", "video", "audiovisual")}
WIDTH_KEYS = {"whisper": "conv1.weight", "avhubert": "post_extract_proj.weight"}  # tensor whose rows are F; only that kind has it
PROJECTOR = re.compile(r"(audio|video|audiovisual)_proj\.(?:(\d+)\.)?([023])\.(?:weight|bias)")
EXPERT = re.compile(r"audiovisual_proj\.experts\.(\d+)\.([023])\.(?:weight|bias)")
GATE = "audiovisual_proj.gate.weight"
LORA = re.compile(r"(.+)\.lora_(down|up)_(Q|V)(_shared|\.audio|\.video|\.audiovisual)?\.weight")


@dataclass(frozen=True)
class Lora:
    """LoRA of one module: its true rank r, and its sets by the suffix of their released names ("" for an only one)."""

    rank: int
    sets: frozenset[str]


@dataclass(frozen=True)
class Projector:
    """The projectors of one stream.

    Attributes:
        prefixes: released prefix of each; one for each rate of a bank, or for each expert.
        indexed: it is a bank.
        experts: number of SMoP's experts, else 0.
        input_sizes: in-features of each.
        hidden_size: inner width.
        layer_norm: LayerNorm at the end.
    """

    prefixes: list[str]
    indexed: bool
    experts: int
    input_sizes: list[int]
    hidden_size: int
    layer_norm: bool


@dataclass(frozen=True)
class Facts:
    """A released model.

    Attributes:
        system: ``llama_avsr``, ``omni_avsr``, ``mtsk`` or ``smop``.
        encoders: ``whisper`` or ``avhubert`` by released prefix.
        projectors: of each stream.
        rates: of each stream, in the order of its bank.
        compression: ``stack`` or ``avg_pool``.
        lora: of the LLM and the encoders that have some, by released prefix.
    """

    system: str
    encoders: dict[str, str]
    projectors: dict[str, Projector]
    rates: dict[str, list[int]]
    compression: str
    lora: dict[str, Lora]


def read_facts(tensors: Tensors, rates: Mapping[str, int | Sequence[int]] | None = None) -> Facts:
    """Infer the model.

    Args:
        tensors: the released state dict.
        rates: rate or rates of each stream, in the order of the training options, where the widths do not tell them (average
            pooling); where they do, they are checked.

    Raises:
        SourceError: the keys are not of these systems, contradict each other or ``rates``, or need ``rates``.
    """
    encoders = _encoders(tensors)
    projectors = _projectors(tensors)
    idle = [prefix for prefix in encoders if not set(ENCODERS[prefix]) & set(projectors)]
    if idle:
        raise SourceError(f"The checkpoint has {', '.join(idle)}, but no projector for it: its projectors are for {sorted(projectors)}")
    widths = {stream: _width(tensors, encoders, stream) for stream in projectors}
    factors = {s: [_factor(prefix, n, widths[s]) for prefix, n in zip(p.prefixes, p.input_sizes)] for s, p in projectors.items()}
    stacked = any(k > 1 for ks in factors.values() for k in ks)
    given = {s: [r] if isinstance(r, int) else list(r) for s, r in (rates or {}).items()}
    if set(given) - set(projectors):
        raise SourceError(f"rates are given for {sorted(given)}, but the checkpoint has projectors for {sorted(projectors)} only")
    return Facts(
        system=_system(tensors, projectors),
        encoders=encoders,
        projectors=projectors,
        rates={s: _rates(s, p, factors[s], given.get(s), stacked) for s, p in projectors.items()},
        compression="stack" if stacked else "avg_pool",
        lora={part: lora for part in ("llm", *encoders) if (lora := _lora(under(tensors, part), part))},
    )


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors below ``prefix.``, without it."""
    return {name[len(prefix) + 1 :]: t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def count(names: Iterable[str], pattern: str) -> int:
    """How many numbers the group of ``pattern`` takes.

    Raises:
        SourceError: they do not run from 0 without a gap.
    """
    found = {int(m[1]) for name in names if (m := re.match(pattern, name))}
    if found != set(range(len(found))):
        raise SourceError(f"The tensors {pattern} are numbered {sorted(found)}: expected 0 to {len(found) - 1}")
    return len(found)


def only(what: str, values: Iterable):
    """The one value that all agree on.

    Raises:
        SourceError: they differ.
    """
    found = sorted(set(values), key=str)
    if len(found) != 1:
        raise SourceError(f"The checkpoint contradicts itself: {what} is {' and '.join(map(str, found)) or 'nowhere'}")
    return found[0]


def _encoders(tensors: Tensors) -> dict[str, str]:
    found = {}
    for prefix in ENCODERS:
        names = under(tensors, prefix)
        kinds = [kind for kind, key in WIDTH_KEYS.items() if key in names]
        if names and not kinds:
            raise SourceError(f"{prefix}.* is no encoder of a released checkpoint (Whisper or AV-HuBERT); it has for example {prefix}.{min(names)}")
        found |= {prefix: kind for kind in kinds}
    return found


def _projectors(tensors: Tensors) -> dict[str, Projector]:
    if GATE in tensors:
        experts = tensors[GATE].shape[0]
        if count(tensors, EXPERT.pattern) != experts:
            raise SourceError(f"{GATE} has {experts} rows, but the checkpoint has {count(tensors, EXPERT.pattern)} experts: expected as many")
        both = _projector(tensors, [f"audiovisual_proj.experts.{i}" for i in range(experts)], experts=experts)
        return {"audio": both, "video": both}
    found = {}
    for stream in ("audio", "video", "audiovisual"):
        matches = [m for m in map(PROJECTOR.fullmatch, tensors) if m and m[1] == stream]
        if matches:
            indexed = only(f"the number of indices in {stream}_proj.*", (m[2] is not None for m in matches))
            numbers = [f".{i}" for i in range(count(tensors, rf"{stream}_proj\.(\d+)\.\d\."))] if indexed else [""]
            found[stream] = _projector(tensors, [f"{stream}_proj{n}" for n in numbers], indexed=indexed)
    if not found:
        raise SourceError("The checkpoint has no audio_proj, video_proj or audiovisual_proj: it is none of Llama-AVSR's family")
    only("the kind of projector", (p.indexed for p in found.values()))
    return found


def _projector(tensors: Tensors, prefixes: list[str], indexed: bool = False, experts: int = 0) -> Projector:
    layers = {prefix: frozenset(name.split(".")[0] for name in under(tensors, prefix)) for prefix in prefixes}
    lacking = [f"{prefix}.{layer}.{kind}" for prefix in prefixes for layer in sorted({"0", "2"} | layers[prefix]) for kind in ("weight", "bias")]
    lacking = [name for name in lacking if name not in tensors]
    if lacking:
        raise SourceError(f"The checkpoint lacks {', '.join(lacking)}")
    return Projector(
        prefixes,
        indexed,
        experts,
        [tensors[f"{prefix}.0.weight"].shape[1] for prefix in prefixes],
        only(f"the inner width of {prefixes[0]} and its like", (tensors[f"{prefix}.0.weight"].shape[0] for prefix in prefixes)),
        only(f"LayerNorm in {prefixes[0]} and its like", ("3" in found for found in layers.values())),
    )


def _width(tensors: Tensors, encoders: dict[str, str], stream: str) -> int:
    prefix = only(f"the encoder of the {stream} stream", (p for p in encoders if stream in ENCODERS[p]))
    return tensors[f"{prefix}.{WIDTH_KEYS[encoders[prefix]]}"].shape[0]


def _factor(prefix: str, input_size: int, width: int) -> int:
    if input_size % width:
        raise SourceError(f"{prefix}.0.weight reads {input_size} features: expected a multiple of the encoder's {width}")
    return input_size // width


def _rates(stream: str, projector: Projector, factors: list[int], given: list[int] | None, stacked: bool) -> list[int]:
    """Rates of one stream: the stacking that the widths show, or those ``given``."""
    if projector.experts:
        factors = [only("the width of the experts", factors)]
    if stacked:
        if given not in (None, factors):
            raise SourceError(f"rates of {stream}: {given} are given, but the widths of its projectors show stacking by {factors}")
        return factors
    if given is None:
        raise SourceError(
            f"The {stream} features enter their projector as wide as the encoder gives them, so they were pooled at a rate that no tensor "
            f"tells (or not compressed, rate 1). Give it by the option rates, such as {stream}=4"
            + (f" with {len(factors)} rates for the {len(factors)} projectors, in their order" if projector.indexed else "")
        )
    if projector.indexed and len(given) != len(factors):
        raise SourceError(f"rates of {stream}: {given} are given for {len(factors)} projectors: expected a rate for each, in their order")
    if len(set(given)) != len(given) or min(given) < 1:
        raise SourceError(f"rates of {stream}: expected different integers from 1, found {given}")
    return given


def _lora(tensors: dict[str, Tensor], part: str) -> Lora | None:
    """Rank and sets; every layer must have the same."""
    found = {name: m for name in tensors if (m := LORA.fullmatch(name))}
    if not found:
        return None
    sets = frozenset(m[4] or "" for m in found.values())
    hosts = [name.removesuffix(".q_proj.weight") for name in tensors if name.endswith(".q_proj.weight")]
    wanted = {f"{host}.lora_{matrix}_{letter}{s}.weight" for host in hosts for matrix in ("down", "up") for letter in "QV" for s in sets}
    if wanted != set(found):
        odd = min(wanted ^ set(found))
        raise SourceError(f"The checkpoint {'lacks' if odd in wanted else 'has'} {part}.{odd}, unlike its other layers")
    ranks = (t.shape[0 if found[name][2] == "down" else 1] for name, t in tensors.items() if name in found)
    return Lora(only(f"the LoRA rank of {part}", ranks), sets)


def _system(tensors: Tensors, projectors: dict[str, Projector]) -> str:
    if any(p.experts for p in projectors.values()):
        return "smop"
    if any(name.startswith("prompt_") for name in tensors):
        return "omni_avsr"
    return "mtsk" if any(p.indexed for p in projectors.values()) else "llama_avsr"
