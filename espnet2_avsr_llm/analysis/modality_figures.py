"""Numbers, tables and figures of the Shapley values of one model over several conditions (Dr. SHAP-AV, arXiv 2603.12046)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np

from espnet2_avsr_llm.analysis.modalities import BINS, WINDOWS, audio_share, bootstrap, summarise
from espnet2_avsr_llm.analysis.report import plain, table, write_analysis
from espnet2_avsr_llm.analysis.shap import Explanation
from espnet2_avsr_llm.scoring.report import condition_order

SHOWN = 4  # conditions whose maps are drawn, from the first to the last


def write_modalities(
    folder: Path, about: Mapping[str, Any], found: Mapping[str, Mapping[str, Explanation | None]], tokenizer, longest: int | None = None
) -> None:
    """Write the analysis of a model.

    Args:
        folder: where.
        about: settings, model, pass: what the numbers come from.
        found: for each condition the explanation of each utterance, None where it was left out. Conditions are compared with the first
            (clean, if it is there), of which the first utterance is the example.
        tokenizer: gives the hypothesis tokens of the example.
        longest: as of :func:`~espnet2_avsr_llm.analysis.modalities.summarise`.
    """
    asked = {name: len(of) for name, of in found.items()}
    found = {c: {utt: e for utt, e in found[c].items() if e is not None} for c in sorted(found, key=condition_order)}
    conditions = {name: summarise(list(of.values()), longest) for name, of in found.items()}
    first, reference = next(iter(found.items()))
    example = next(iter(reference.values()))
    tokens = [tokenizer.decode([i]) for i in example.token_ids.tolist()]
    for name, of in found.items():
        changes = [audio_share(of[utt]) - audio_share(reference[utt]) for utt in of if utt in reference]
        conditions[name]["left_out"] = asked[name] - len(of)
        conditions[name]["change"] = None if name == first or np.isnan(changes).any() or not changes else bootstrap(np.array(changes))
    two = {"audio", "video"} == conditions[first]["alignment"].keys()
    shares = {
        "share": ("Audio share of the Shapley values with 95 % intervals over utterances; dotted: share of audio among the players.", lambda: _share(conditions)),
        "windows": ("Audio share over fifths of the output.", lambda: _windows(conditions)),
    }
    figures = (shares if two else {}) | {
        "alignment": ("Mean |φ| over feature time (down) and output time (right), summing to 1; title: diagonal over the rest.", lambda: _maps(conditions)),
        "grouped": ("Where in the output early, middle and late features act; each line sums to 1.", lambda: _grouped(conditions)),
        "example": (f"φ of every player for every token of one utterance ({first}).", lambda: _example(example, tokens)),
    }
    about = {**about, "longest": longest} if longest else about
    numbers = {**about, "compared_with": first, "conditions": conditions}
    write_analysis(folder, f"Shapley values ({folder.name})", _text(about, conditions), figures, numbers)


# ---- tables ------------------------------------------------------------------------------------------------------------


def _text(about: Mapping[str, Any], conditions: Mapping[str, dict]) -> list[str]:
    said = ", ".join(f"{key} {value}" for key, value in about.items())
    overall = [
        [plain(name), c["utterances"], c["left_out"], _percent(c["audio_share"]), _points(c["change"])]
        + [_number(c["player_share"], 100), _number(c["noise"], 1)]
        for name, c in conditions.items()
    ]
    windows = [[plain(name), *map(_percent, c["by_window"] or [None] * WINDOWS)] for name, c in conditions.items()]
    streams = list(next(iter(conditions.values()))["alignment"])
    scores = [[plain(name), *(_interval(c["alignment"][s]["score"]) for s in streams)] for name, c in conditions.items()]
    return [
        f"Shapley values of audio and video tokens for each token of the hypothesis (arXiv 2603.12046): {plain(said)}.",
        "Global: audio share in percent of Σ|φ|, its paired change from the first condition, and the share that audio has among the players. "
        "Standard errors of φ add to |φ| on both sides, and so draw the share towards that of the players.",
        table(["condition", "utterances", "left out", "audio share", "change in points", "audio players", "standard error / value"], overall),
        "Generative: audio share in percent over the fifths of the output.",
        table(["condition", *(f"{n + 1}/{WINDOWS}" for n in range(WINDOWS))], windows),
        "Temporal alignment: mean of the diagonal over the mean of the rest; 1 is none.",
        table(["condition", *streams], scores),
    ]


def _percent(interval: dict | None) -> str:
    return "" if interval is None else f"{100 * interval['value']:.1f} ({100 * interval['low']:.1f}–{100 * interval['high']:.1f})"


def _points(interval: dict | None) -> str:
    return "" if interval is None else f"{100 * interval['value']:+.1f} ({100 * interval['low']:+.1f} to {100 * interval['high']:+.1f})"


def _interval(interval: dict) -> str:
    return f"{interval['value']:.2f} ({interval['low']:.2f}–{interval['high']:.2f})"


def _number(value: float | None, factor: float) -> str:
    return "" if value is None else f"{factor * value:.2f}"


# ---- figures -----------------------------------------------------------------------------------------------------------


def _share(conditions: Mapping[str, dict]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2))
    axes = figure.subplots()
    noises = list(dict.fromkeys(name.rpartition("_")[0] or name for name in conditions))
    places = {name: i for i, name in enumerate(conditions)}
    for noise in noises:
        names = [n for n in conditions if (n.rpartition("_")[0] or n) == noise]
        x, rows = [places[n] for n in names], [conditions[n]["audio_share"] for n in names]
        low, high = ([100 * abs(r["value"] - r[side]) for r in rows] for side in ("low", "high"))
        axes.errorbar(x, [100 * r["value"] for r in rows], [low, high], marker="o", capsize=3, label=noise)
    axes.plot(list(places.values()), [100 * c["player_share"] for c in conditions.values()], "k:", label="share of players")
    axes.set(ylabel="audio share (%)", ylim=(0, 100))
    axes.set_xticks(list(places.values()), [n.rpartition("_")[2] for n in places])
    axes.legend(frameon=False)
    return figure


def _windows(conditions: Mapping[str, dict]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2))
    axes = figure.subplots()
    for name, c in conditions.items():
        value, low, high = (np.array([100 * w[key] if w else np.nan for w in c["by_window"]]) for key in ("value", "low", "high"))
        (line,) = axes.plot(range(1, WINDOWS + 1), value, marker="o", label=name)
        axes.fill_between(range(1, WINDOWS + 1), low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(xlabel="fifth of the output", ylabel="audio share (%)", ylim=(0, 100))
    axes.set_xticks(range(1, WINDOWS + 1))
    axes.legend(frameon=False)
    return figure


def _grid(conditions: Mapping[str, dict], height: float):
    """A figure with a row for each stream and a column for some conditions; and the (axes, condition, stream, values) to fill."""
    from matplotlib.figure import Figure

    names = list(conditions)
    shown = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, min(SHOWN, len(names))).round().astype(int))]
    streams = list(conditions[names[0]]["alignment"])
    figure = Figure(figsize=(0.9 + 2.4 * len(shown), height * len(streams) + 0.3))
    axes = figure.subplots(len(streams), len(shown), squeeze=False, sharex=True, sharey=True)
    return figure, [(axes[r, c], name, s, conditions[name]["alignment"][s]) for r, s in enumerate(streams) for c, name in enumerate(shown)]


def _maps(conditions: Mapping[str, dict]):
    figure, cells = _grid(conditions, 2.4)
    top = max(np.max(values["map"]) for *_, values in cells)
    for axes, name, stream, values in cells:
        image = axes.imshow(values["map"], vmin=0, vmax=top, cmap="viridis", extent=(0, 100, 100, 0))
        axes.set_title(f"{stream}, {name}: {values['score']['value']:.2f}", fontsize=9)
    figure.colorbar(image, ax=[axes for axes, *_ in cells], shrink=0.7)
    figure.supxlabel("output time (%)", fontsize=9)
    _label_rows(cells, "feature time (%)")
    return figure


def _label_rows(cells, label: str) -> None:
    for axes, *_ in cells:
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel(label)


def _grouped(conditions: Mapping[str, dict]):
    figure, cells = _grid(conditions, 1.8)
    for axes, name, stream, values in cells:
        for label, row in zip(("early", "middle", "late"), values["grouped"]):
            axes.plot((np.arange(BINS) + 0.5) * 100 / BINS, row, label=label)
        axes.set_title(f"{stream}, {name}", fontsize=9)
    cells[0][0].legend(frameon=False)
    _label_rows(cells, "share of |φ|")
    figure.supxlabel("output time (%)", fontsize=9)
    return figure


def _example(found: Explanation, tokens: Sequence[str]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(11, 2.5 + 0.28 * len(tokens)), 5))
    axes = figure.subplots()
    limit = np.abs(found.phi).max()
    image = axes.imshow(found.phi, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    starts = [i for i in range(1, len(found.streams)) if found.streams[i] != found.streams[i - 1]]
    for start in starts:
        axes.axhline(start - 0.5, color="k", linewidth=0.8)
    axes.set_xticks(range(len(tokens)), tokens, rotation=90)
    axes.set_yticks([0, *starts], found.streams[[0, *starts]])
    figure.colorbar(image, ax=axes, label="φ")
    return figure
