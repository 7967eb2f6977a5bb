"""Decorrelation from BOS, against attention sinks in the middle of the prefix (arXiv 2510.22603, section 4).

    L = λ · mean over layers l and tokens i ≥ 1 of cos²(H^l[i], H^l[0])

with H^l the output of decoder layer l, H^0 the embeddings, and token 0 the first of the sequence (BOS where the LLM has one). The
paper's layers are 2 … L−1; the released program's are 1 … L−1. Its tokens are those of the prefix (delimiters, audio, video, prompt);
the paper's N may also be read as the whole sequence. Other than the released program: padding is left out, so that an utterance's term
does not depend on its batch, and the cosine is in float32. The gradient goes through both factors, as there.

Shapes: `B` batch, `N` LLM tokens, `D` LLM width, `L` layers.
"""

from __future__ import annotations

from typing import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from espnet2_avsr_llm.ranks import sum_over_ranks
from espnet2_avsr_llm.sequence import Role

FIRST_LAYER = {"paper": 2, "released": 1}
EXCLUDED = {"prefix": [Role.PAD, Role.TEXT], "all": [Role.PAD]}


class Decorrelation:
    """λ · mean cos² of the tokens to the first one.

    Args:
        weight: λ. The paper tries 10, 100 and 10⁴, without saying which is whose; the released program's default is 10⁴.
        layers: ``paper`` (2 … L−1) or ``released`` (1 … L−1).
        tokens: ``prefix``, or ``all`` with the transcript.
    """

    def __init__(self, weight: float = 1e4, layers: str = "paper", tokens: str = "prefix"):
        for name, value, known in (("layers", layers, FIRST_LAYER), ("tokens", tokens, EXCLUDED)):
            if value not in known:
                raise ValueError(f"decorrelation {name}: {value!r}; choose from {', '.join(known)}")
        self.weight, self.first, self.excluded = weight, FIRST_LAYER[layers], EXCLUDED[tokens]

    def __call__(self, hidden_states: Sequence[Tensor], roles: Tensor) -> Tensor:
        """This rank's part of the term: the mean over the utterances of all ranks of equation 10, times λ.

        Args:
            hidden_states: L + 1 tensors (B, N, D): the embeddings and each layer's output (the last one is not read).
            roles: (B, N), a :class:`~espnet2_avsr_llm.sequence.Role` for each position; padding is in front.

        Returns:
            (), float32.

        Raises:
            ValueError: the LLM has no layer in the range.
        """
        states = hidden_states[self.first : -1]
        if not states:
            raise ValueError(f"decorrelation reads layers {self.first} to L-1, but this LLM has L = {len(hidden_states) - 1}")
        valid = roles != Role.PAD
        counted = ~torch.isin(roles, roles.new_tensor(self.excluded))
        rows, first = torch.arange(len(roles), device=roles.device), valid.int().argmax(1)
        counted[rows, first] = False
        squares = []
        for h in states:
            h = torch.where(valid[..., None], h.float(), 1.0)  # what lies in the padding may be anything, even NaN
            squares.append(F.cosine_similarity(h, h[rows, first][:, None], dim=-1) ** 2)
        means = (torch.stack(squares).mean(0) * counted).sum(1) / counted.sum(1)
        return self.weight * means.sum() / sum_over_ranks(means.new_tensor(len(means)))
