"""Alignment of two token sequences with the weights of NIST sclite (substitution 4, deletion 3, insertion 3).

The weights differ from those of the Levenshtein distance, so the number of errors can exceed its minimum: five substitutions
cost 20, three deletions and three insertions that save them cost 18, and sclite reports the six (see `error_rate.cross_check`).
"""

from typing import NamedTuple, Optional, Sequence

import numpy as np

SUBSTITUTION, DELETION, INSERTION = 4, 3, 3


class Step(NamedTuple):
    """One column of an alignment: operation `C`, `S`, `D` or `I`, and the tokens it joins (None where there is none)."""

    op: str
    ref: Optional[str]
    hyp: Optional[str]


def align(ref: Sequence[str], hyp: Sequence[str]) -> list[Step]:
    """Align a hypothesis with its reference at the least cost.

    Args:
        ref: reference tokens.
        hyp: hypothesis tokens.

    Returns:
        The steps from left to right. Among alignments of equal cost the one chosen is that which, read from the right,
        prefers a correct or substituted token to a deletion, and a deletion to an insertion.
    """
    cost = _costs(ref, hyp)
    i, j = len(ref), len(hyp)
    steps = []
    while i or j:
        same = i and j and ref[i - 1] == hyp[j - 1]
        if i and j and cost[i, j] == cost[i - 1, j - 1] + (0 if same else SUBSTITUTION):
            i, j = i - 1, j - 1
            steps.append(Step("C" if same else "S", ref[i], hyp[j]))
        elif i and cost[i, j] == cost[i - 1, j] + DELETION:
            i -= 1
            steps.append(Step("D", ref[i], None))
        else:
            j -= 1
            steps.append(Step("I", None, hyp[j]))
    return steps[::-1]


def _costs(ref: Sequence[str], hyp: Sequence[str]) -> np.ndarray:
    """Costs of aligning every prefix of `ref` with every prefix of `hyp`: (len(ref) + 1, len(hyp) + 1)."""
    ids: dict[str, int] = {}
    ref_ids, hyp_ids = (np.array([ids.setdefault(t, len(ids)) for t in x], dtype=np.int64) for x in (ref, hyp))
    insertions = INSERTION * np.arange(len(hyp) + 1)
    cost = np.empty((len(ref) + 1, len(hyp) + 1), dtype=np.int64)
    cost[0] = insertions
    for i, token in enumerate(ref_ids):
        row = cost[i] + DELETION
        row[1:] = np.minimum(row[1:], cost[i, :-1] + SUBSTITUTION * (hyp_ids != token))
        # c[j] = min over k <= j of row[k] + 3 (j - k): the insertions of a whole row in one running minimum
        cost[i + 1] = np.minimum.accumulate(row - insertions) + insertions
    return cost
