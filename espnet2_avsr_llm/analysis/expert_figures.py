"""Tables and figures of ``analysis/experts.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import numpy as np

from espnet2_avsr_llm.analysis.experts import DEAD, MODALITIES
from espnet2_avsr_llm.analysis.report import table, write_analysis

Numbers = Mapping[str, Any]
AGREEMENT = ("agreement", "elsewhere", "chance")


def write_experts(folder: Path, about: Numbers, numbers: Numbers) -> None:
    """Write ``results.json``, ``section.md`` and the figures.

    Args:
        folder: where.
        about: model and data.
        numbers: of ``Tally.numbers``.
    """
    figures = {"shares": ("Share of tokens that have an expert as first or second choice.", lambda: shares_figure(numbers))}
    if numbers["agreement"]:
        caption = "Experts in common of two scales of an utterance, at the same time (solid) and half an utterance apart (dotted)."
        figures["agreement"] = (caption, lambda: agreement_figure(numbers))
    write_analysis(folder, "Experts", _text(about, numbers), figures, {"about": about, **numbers})


def _text(about: Numbers, numbers: Numbers) -> list[str]:
    pools, dead = numbers["pools"], {pool: of["dead"] for pool, of in numbers["pools"].items() if of["dead"]}
    least = min(pools, key=lambda pool: pools[pool]["least"])
    listed = "; ".join(f"{pool}: {', '.join(map(str, experts))}" for pool, experts in dead.items())
    lines = [
        f"{about['utterances']} utterances with their transcripts. The least used expert has {pools[least]['least']:.2f} of the uniform share "
        f"({least}). Below {DEAD:g} of it: {listed or 'none'}."
    ]
    rows = [[p, m, *_means(numbers, p, m)] for p in _passes(numbers) for m in MODALITIES if _of(numbers["shares"], p, m)]
    lines.append(table(["pass", "modality", "tokens", "entropy", "most used expert"], rows))
    kinds = [m for m in MODALITIES if any(row["modality"] == m for row in numbers["agreement"])]
    if kinds:
        means = {m: [np.mean([row[key] for row in numbers["agreement"] if row["modality"] == m]) for key in AGREEMENT] for m in kinds}
        rows = [[m, *(f"{mean:.3f}" for mean in means[m])] for m in kinds]
        lines.append(table(["modality", "experts in common at the same time", "half an utterance apart", "by chance"], rows))
    return lines


def _means(numbers: Numbers, pass_: str, modality: str) -> list[str]:
    """Tokens; entropy and first-choice share of the most used expert, both averaged over pools."""
    rows = _of(numbers["shares"], pass_, modality)
    means = (np.mean([row["entropy"] for row in rows]), np.mean([max(row["first"]) for row in rows]))
    return [str(rows[0]["tokens"]), *(f"{m:.3f}" for m in means)]


def _of(rows: list[Numbers], pass_: str, modality: str) -> list[Numbers]:
    return [row for row in rows if row["pass"] == pass_ and row["modality"] == modality]


def _passes(numbers: Numbers) -> list[str]:
    return list(dict.fromkeys(row["pass"] for row in numbers["shares"]))


def shares_figure(numbers: Numbers):
    """A map of pools by experts for each modality and pass."""
    from matplotlib.figure import Figure

    passes, pools = _passes(numbers), list(numbers["pools"])
    kinds = [m for m in MODALITIES if any(row["modality"] == m for row in numbers["shares"])]
    experts = max(len(of["usage"]) for of in numbers["pools"].values())
    maps = np.full((len(kinds), len(passes), len(pools), experts), np.nan)
    for row in numbers["shares"]:
        shares = np.add(row["first"], row["second"])
        maps[kinds.index(row["modality"]), passes.index(row["pass"]), pools.index(row["pool"]), : len(shares)] = shares
    figure = Figure(figsize=(1.5 + 2.6 * len(passes), 1.0 + len(kinds) * max(1.0, 0.18 * len(pools))))
    axes = figure.subplots(len(kinds), len(passes), squeeze=False, sharex=True, sharey=True)
    for (i, j), ax in np.ndenumerate(axes):
        image = ax.imshow(maps[i, j], aspect="auto", vmin=0.0, vmax=np.nanmax(maps), cmap="viridis", interpolation="nearest")
        ax.set_yticks(range(len(pools)), pools, fontsize=6)
        if i == 0:
            ax.set_title(passes[j])
        if i == len(kinds) - 1:
            ax.set_xlabel("expert")
        if j == 0:
            ax.set_ylabel(kinds[i])
    figure.colorbar(image, ax=axes, label="share of tokens")
    return figure


def agreement_figure(numbers: Numbers):
    """Agreement over pools, a line for each modality, mean over pairs of scales."""
    from matplotlib.figure import Figure

    pools = list(numbers["pools"])
    figure = Figure(figsize=(6.0, 3.2))
    ax = figure.subplots()
    for color, modality in enumerate(MODALITIES):
        rows = [row for row in numbers["agreement"] if row["modality"] == modality]
        for key, style in (("agreement", "-"), ("elsewhere", ":")):
            found = {pool: [row[key] for row in rows if row["pool"] == pool] for pool in pools}
            present = [i for i, pool in enumerate(pools) if found[pool]]
            means = [np.mean(found[pools[i]]) for i in present]
            ax.plot(present, means, style, marker="o", markersize=3, color=f"C{color}", label=modality if present and key == "agreement" else None)
    ax.set_xticks(range(len(pools)), pools, rotation=45, ha="right", fontsize=7)
    ax.set_ylim(0, 1)
    ax.set_ylabel("experts in common")
    ax.legend(frameon=False)
    return figure
