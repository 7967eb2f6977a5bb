"""Numbers, tables and figures of the sinks of one model over a set of utterances (arXiv 2510.22603)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np

from espnet2_avsr_llm.analysis.report import plain, table, write_analysis
from espnet2_avsr_llm.analysis.sinks import Trace
from espnet2_avsr_llm.model import ROLES
from espnet2_avsr_llm.sequence import Role

GROUPS = {"token 0": None, "delimiters": Role.DELIMITER, **ROLES, "prompt": Role.PROMPT}
MAPS = 4  # layers whose attention is drawn


@dataclass
class Seen:
    """One utterance: its id, the trace, and role and name of each token."""

    utt: str
    trace: Trace
    roles: Sequence[int]
    names: Sequence[str]

    def rows(self, group: str) -> list[int]:
        """Positions of a group of tokens; token 0 is in no other."""
        return [0] if GROUPS[group] is None else [i for i, r in enumerate(self.roles) if i and r == GROUPS[group]]


def write_sinks(folder: Path, about: Mapping[str, Any], seen: Sequence[Seen], origin: Mapping[str, Any], rotations: Mapping[str, Any]) -> None:
    """Write the analysis of a model.

    Args:
        folder: where.
        about: model, pass, threshold: what the numbers come from.
        seen: utterances, the first with attention maps; it is the example of ``origin``, ``rotations`` and the maps.
        origin: of :func:`~espnet2_avsr_llm.analysis.sinks.mlp_origin`.
        rotations: of :func:`~espnet2_avsr_llm.analysis.sinks.interventions`.
    """
    numbers = {
        **about,
        "utterances": len(seen),
        "layers": layer_means(seen),
        "sinks": sink_counts(seen),
        "attention_of_token_0": float(np.mean([_first_over_median(s.trace.attention) for s in seen])),
        "by_utterance": [
            {"utt": s.utt, "tokens": len(s.names), "sinks": [_sink(s, i, layers) for i, layers in s.trace.sinks.items()]} for s in seen
        ],
        "origin": origin,
        "rotations": rotations,
        "example": _by_token(seen[0]),
    }
    example, tau = seen[0], about["tau"]
    figures = {
        "attention": (f"Attention, mean over heads, of {plain(example.utt)}: each row is what one token reads.", lambda: _attention(example)),
        "layers": ("Attention received, cosine to token 0, and largest activation over the median (dotted: threshold), by layer.", lambda: _curves(numbers["layers"], tau)),
        "cosine": (f"Cosine of each token's state to that of token 0, {plain(example.utt)}.", lambda: _cosine(example)),
        "activations": (f"Largest activations of the layer with the very largest, {plain(example.utt)}; dotted: threshold.", lambda: _scatter(example, tau)),
    }
    write_analysis(folder, f"Attention sinks ({folder.name})", _text(numbers, example), figures, numbers)


# ---- numbers -----------------------------------------------------------------------------------------------------------


def layer_means(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """For each layer the means over utterances of ``attention``, ``cosine`` and ``peak`` by group of tokens (the largest peak of the
    group), of ``massive`` tokens, and of cos² over all tokens but the first, which the decorrelation loss lowers."""
    layers = []
    for row in range(len(seen[0].trace.massive)):
        found: dict[str, Any] = {"layer": row + 1}
        for key, reduce in (("attention", np.mean), ("cosine", np.mean), ("peak", np.max)):
            of = {g: [float(reduce(getattr(s.trace, key)[row, s.rows(g)])) for s in seen if s.rows(g)] for g in GROUPS}
            # layers without attention (linear ones) have NaN, which JSON has not
            found[key] = {g: None if np.isnan(values).any() else float(np.mean(values)) for g, values in of.items() if values}
        found["massive"] = float(np.mean([len(s.trace.massive[row]) for s in seen]))
        found["cosine_squared"] = float(np.mean([np.square(s.trace.cosine[row, 1:]).mean() for s in seen]))
        layers.append(found)
    return layers


def _first_over_median(attention: np.ndarray) -> float:
    """Attention that token 0 receives over that of the median token, mean over layers 2 … L−1 of α (L, N)."""
    inner = attention[1:-1]
    return float(np.nanmean(inner[:, 0] / np.median(inner, 1)))


def sink_counts(seen: Sequence[Seen]) -> dict[str, dict[str, int]]:
    """By token name, with audio and video tokens under one name each: in how many utterances it is there, and a sink."""
    there, sinks = Counter(), Counter()
    for s in seen:
        labels = [Role(r).name.lower() if r in ROLES.values() else f"{name} ({Role(r).name.lower()})" for r, name in zip(s.roles, s.names)]
        there.update(set(labels))
        sinks.update({labels[i] for i in s.trace.sinks})
    return {label: {"sink": sinks[label], "there": count} for label, count in there.items() if sinks[label]}


def _by_token(seen: Seen) -> list[dict[str, Any]]:
    """For each token of an utterance its name, and its attention, cosine and peak in every layer."""
    values = {key: getattr(seen.trace, key).T.tolist() for key in ("attention", "cosine", "peak")}
    rounded = {key: [[None if np.isnan(x) else float(f"{x:.4g}") for x in row] for row in rows] for key, rows in values.items()}
    return [{"position": i, "token": name} | {key: rows[i] for key, rows in rounded.items()} for i, name in enumerate(seen.names)]


def _sink(seen: Seen, token: int, layers: Sequence[int]) -> dict[str, Any]:
    features = sorted({f for layer in layers for f in seen.trace.massive[layer - 1][token]})
    return {"position": token, "token": seen.names[token], "layers": list(layers), "features": features}


# ---- tables ------------------------------------------------------------------------------------------------------------


def _text(numbers: Mapping[str, Any], example: Seen) -> list[str]:
    inner = numbers["layers"][1:-1]
    largest = max((peak, layer["layer"], group) for layer in numbers["layers"] for group, peak in layer["peak"].items())
    said = ", ".join(f"{key} {numbers[key]}" for key in ("model", "task", "audio_rate", "video_rate", "condition", "utterances", "tau") if key in numbers)
    squares = np.mean([layer["cosine_squared"] for layer in inner]) if inner else float("nan")
    if numbers["sinks"]:
        found = [table(["token", "utterances in which it is a sink", "of"], [[plain(n), c["sink"], c["there"]] for n, c in numbers["sinks"].items()])]
    else:
        found = [f"No token is a sink: the largest activation is {largest[0]:.0f} times its layer's median ({largest[2]}, layer {largest[1]})."]
    groups = list(numbers["layers"][0]["attention"])
    rows = [
        [n["layer"], *(_number(n["attention"][g]) for g in groups), *(f"{n['cosine'][g]:.2f}" for g in groups[1:]), f"{max(n['peak'].values()):.0f}", f"{n['massive']:.1f}"]
        for n in numbers["layers"]
    ]
    head = ["layer", *(f"α {g}" for g in groups), *(f"cos {g}" for g in groups[1:]), "largest / median", "massive tokens"]
    return [
        f"Attention sinks and massive activations over the prefix (arXiv 2510.22603): {plain(said)}.",
        *found,
        f"Over layers 2 to L−1, token 0 receives {numbers['attention_of_token_0']:.1f} times the attention of the median token, and the mean"
        f" cos² of the others to it is {squares:.4f}. By layer, means over utterances:",
        table(head, rows),
        *_origin_text(numbers["origin"]),
        *_rotation_text(numbers["rotations"], example),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _origin_text(origin: Mapping[str, Any]) -> list[str]:
    if "none" in origin:
        return [f"Origin in the MLP: {origin['none']}."]
    rows = [
        [i["feature"], f"{i['weight']:.3g}", *(f"{i[key][who]:.3g}" for key in ("gate", "up", "contribution") for who in ("sinks", "others"))]
        for i in origin["inner"]
    ]
    head = ["inner feature", "weight", *(f"{key}, {who}" for key in ("gate", "up", "contribution") for who in ("sinks", "others"))]
    return [f"Feature {origin['feature']} is made by these inner features of the MLP of layer {origin['layer']}:", table(head, rows)]


def _rotation_text(rotations: Mapping[str, Any], example: Seen) -> list[str]:
    if "none" in rotations:
        return [f"Rotations: {rotations['none']}."]
    rows = []
    for name, r in rotations.items():
        if "none" in r:
            rows.append([name, r["none"], "", "", ""])
            continue
        moved = ", ".join(f"{plain(example.names[i])} onto {plain(example.names[k])}" for i, k in r["onto"].items())
        after = ", ".join(plain(example.names[i]) for i in r["sinks_after"])
        rows.append([name, moved, *(" → ".join(f"{v:.3g}" for v in r[key]) for key in ("peak", "attention")), after or "none"])
    return ["Rotations of the example at the input of the layer of origin:", table(["rotation", "token", "largest / median", "α", "sinks after"], rows)]


# ---- figures -----------------------------------------------------------------------------------------------------------


def _ticks(axes, seen: Seen, which: str, apart: float = 0.0) -> None:
    """Names of BOS and the delimiters, those at least a share ``apart`` of the axis from the one before."""
    at: list[int] = []
    for i, r in enumerate(seen.roles):
        if r in (Role.BOS, Role.DELIMITER) and (not at or i - at[-1] >= apart * len(seen.roles)):
            at.append(i)
    getattr(axes, f"set_{which}ticks")(at, [seen.names[i] for i in at], fontsize=7, **({"rotation": 90} if which == "x" else {}))


def _attention(seen: Seen):
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    maps = seen.trace.maps
    present = np.flatnonzero(~np.isnan(maps[:, 0, 0]))
    layers = np.unique(present[np.linspace(0, len(present) - 1, min(MAPS, len(present))).round().astype(int)])
    figure = Figure(figsize=(2.9 * len(layers) + 0.6, 2.9))
    for axes, layer in zip(figure.subplots(1, len(layers), squeeze=False)[0], layers):
        image = axes.imshow(maps[layer], norm=LogNorm(1e-4, 1), cmap="magma", interpolation="nearest")
        axes.set_title(f"layer {layer + 1}", fontsize=9)
        _ticks(axes, seen, "x", apart=0.06)
        _ticks(axes, seen, "y", apart=0.06)
    figure.colorbar(image, ax=figure.axes, shrink=0.7)
    return figure


def _curves(layers: Sequence[Mapping[str, Any]], tau: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.8))
    panels = figure.subplots(1, 3)
    titles = {"attention": "attention received (α)", "cosine": "cosine to token 0", "peak": "largest activation / median"}
    for axes, (key, title), scale in zip(panels, titles.items(), ("log", "linear", "log")):
        for group in layers[0][key]:
            axes.plot([n["layer"] for n in layers], [np.nan if n[key][group] is None else n[key][group] for n in layers], marker=".", label=group)
        axes.set(xlabel="layer", title=title, yscale=scale)
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[2].axhline(tau, color="k", linestyle=":")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside center right", frameon=False)
    return figure


def _cosine(seen: Seen):
    from matplotlib.figure import Figure

    layers = len(seen.trace.cosine)
    figure = Figure(figsize=(9, 1.6 + 0.14 * layers))
    axes = figure.subplots()
    extent = (-0.5, len(seen.names) - 0.5, layers + 0.5, 0.5)
    image = axes.imshow(seen.trace.cosine, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest", extent=extent)
    _ticks(axes, seen, "x")
    axes.set(ylabel="layer")
    figure.colorbar(image, ax=axes)
    return figure


def _scatter(seen: Seen, tau: float):
    from matplotlib.figure import Figure

    layer = int(np.argmax(seen.trace.peak.max(1)))
    figure = Figure(figsize=(6, 3))
    axes = figure.subplots()
    for group in GROUPS:
        rows = set(seen.rows(group))
        points = [(feature, abs(ratio)) for token, feature, ratio in seen.trace.largest[layer] if token in rows]
        if points:
            axes.scatter(*zip(*points), s=18, label=group)
    axes.axhline(tau, color="k", linestyle=":")
    axes.set(xlabel="feature", ylabel="|activation| / median", yscale="log", title=f"layer {layer + 1}")
    axes.legend(frameon=False)
    return figure
