"""What Shapley values say about sound and lips: Global, Generative and Temporal alignment (Dr. SHAP-AV, arXiv 2603.12046, section 4).

Everything is of |φ|, of utterances with φ (p, T), and comes with a 95 % bootstrap interval over utterances:

    Global       A = Σ_{k ∈ audio, t} |φ| / Σ_{k, t} |φ|                 beside it N_a / p, the share that noise alone would tend to
    Generative   A_w over the tokens t of window w = 1 … 5                windows ⌊linspace(0, T, 6)⌋; an empty one is left out
    Alignment    mean |φ| in 10 × 10 bins of feature time and output time, divided by the map's sum, averaged over utterances;
                 score = mean of the diagonal / mean of the rest
    Grouped      Σ |φ| of 3 feature bins over 10 output bins, each feature bin normalised

Where p or T is no multiple of the bins, a token counts in two bins by its parts, so that no bin is empty; the released program rounds.

Shapes: `p` players, `T` hypothesis tokens, `U` utterances, `W` windows.
"""

from __future__ import annotations

from typing import Callable, Sequence

import numpy as np

from espnet2_avsr_llm.analysis.shap import Explanation
from espnet2_avsr_llm.model import ROLES

WINDOWS, BINS, GROUPS = 5, 10, 3
REPLICATES = 1000

Interval = dict[str, float]  # value, low, high


def audio_share(found: Explanation) -> float:
    """A of one utterance; NaN where sound and lips are fused into one stream."""
    size = np.abs(found.phi)
    return float("nan") if "audiovisual" in found.streams else float(size[found.streams == "audio"].sum() / size.sum())


def share_by_window(found: Explanation) -> np.ndarray:
    """A_w (W,) of one utterance; NaN where a window is empty."""
    size, tokens = np.abs(found.phi), found.phi.shape[1]
    bounds = np.linspace(0, tokens, WINDOWS + 1).astype(int)
    parts = [size[:, a:b] for a, b in zip(bounds, bounds[1:])]
    return np.array([part[found.streams == "audio"].sum() / part.sum() if part.size else np.nan for part in parts])


def alignment_map(phi: np.ndarray) -> np.ndarray:
    """Map (10, 10), feature time by output time, of one stream's φ (players, T)."""
    binned = _bins(len(phi), BINS, mean=True) @ np.abs(phi) @ _bins(phi.shape[1], BINS, mean=True).T
    return binned / binned.sum()


def grouped_map(phi: np.ndarray) -> np.ndarray:
    """Rows (3, 10) of early, middle and late features over output time, each with sum 1."""
    binned = _bins(len(phi), GROUPS, mean=False) @ np.abs(phi) @ _bins(phi.shape[1], BINS, mean=False).T
    return binned / binned.sum(1, keepdims=True)


def diagonal_score(maps: np.ndarray) -> np.ndarray:
    """Mean of the diagonal over mean of the rest, of maps (..., n, n)."""
    n = maps.shape[-1]
    diagonal = np.trace(maps, axis1=-2, axis2=-1)
    return (diagonal / n) / ((maps.sum((-2, -1)) - diagonal) / (n * n - n))


def _bins(tokens: int, bins: int, mean: bool) -> np.ndarray:
    """(bins, tokens): the part of each token that lies in each of equal bins; ``mean``: rows add up to 1."""
    edges, starts = np.linspace(0, tokens, bins + 1), np.arange(tokens)
    parts = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    parts = parts.clip(min=0)
    return parts / parts.sum(1, keepdims=True) if mean else parts


def bootstrap(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray] = lambda means: means, seed: int = 0) -> list[Interval | None] | Interval | None:
    """A statistic of the mean over utterances, with its 95 % percentile interval.

    Args:
        values: (U, ...); NaN is left out.
        statistic: of means (..., *value shape).

    Returns:
        ``value``, ``low`` and ``high``, or None where no utterance has a value; a list of them where the statistic has one dimension.
    """
    values = np.asarray(values, float)
    picks = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), REPLICATES).astype(float)
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        means = np.tensordot(picks, np.nan_to_num(values), 1) / np.tensordot(picks, present.astype(float), 1)
        mean = np.nan_to_num(values).sum(0) / present.sum(0)
    value, drawn = statistic(mean), statistic(means)
    rows = [_interval(float(v), d) for v, d in zip(np.atleast_1d(value), drawn.reshape(REPLICATES, -1).T)]
    return rows if np.ndim(value) else rows[0]


def _interval(value: float, drawn: np.ndarray) -> Interval | None:
    if np.isnan(value):
        return None
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high)}


def summarise(explanations: Sequence[Explanation], longest: int | None = None) -> dict:
    """The three analyses of the utterances of one condition.

    Args:
        explanations: at least one, of one model.
        longest: Generative and Alignment are of this many with the most players (20 in the paper); None: of all, as Global is.

    Returns:
        ``utterances``, ``audio_share``, ``player_share`` (N_a / p), ``noise`` (standard error over |φ|, both summed; null where unknown),
        ``by_window``, and for each stream ``alignment`` with ``score``, ``map`` and ``grouped``. Where sound and lips are fused into
        one stream there are no shares (null).
    """
    those = sorted(explanations, key=lambda e: -len(e.streams))[:longest]
    shares = np.array([audio_share(e) for e in explanations])
    errors = np.array([e.error.sum() / np.abs(e.phi).sum() for e in explanations])
    streams = [s for s in ROLES if any(s in e.streams for e in those)]
    fused = np.isnan(shares).any()
    return {
        "utterances": len(explanations),
        "audio_share": None if fused else bootstrap(shares),
        "player_share": None if fused else float(np.mean([(e.streams == "audio").mean() for e in explanations])),
        "noise": None if np.isnan(errors).any() else float(errors.mean()),
        "by_window": None if fused else bootstrap(np.stack([share_by_window(e) for e in those])),
        "alignment": {s: _alignment([e.phi[e.streams == s] for e in those if s in e.streams]) for s in streams},
    }


def _alignment(phis: Sequence[np.ndarray]) -> dict:
    maps, groups = np.stack([alignment_map(phi) for phi in phis]), np.stack([grouped_map(phi) for phi in phis])
    return {"score": bootstrap(maps, diagonal_score), "map": maps.mean(0).tolist(), "grouped": groups.mean(0).tolist()}
