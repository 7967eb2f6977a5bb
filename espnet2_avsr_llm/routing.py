"""Token-choice routing to experts, shared by Llama-SMoP (arXiv 2505.14336) and MoME (2510.04136), and its loss terms.

p = softmax(W x) over all experts, in float32; the `K` most probable experts are chosen. Ties go to the expert with the lower
index, so that a token has the same experts in any batch and on any device.

Shapes: `T` valid tokens, `F` feature width, `E` experts, `K` chosen experts; ... leading dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet2_avsr_llm.ranks import sum_over_ranks


class Routing(NamedTuple):
    """What a router decides, in float32.

    Attributes:
        logits: (..., E).
        probs: (..., E), softmax of the logits.
        choice: (..., K), indices of the chosen experts, most probable first.
        gates: (..., K), factors of their outputs.
    """

    logits: Tensor
    probs: Tensor
    choice: Tensor
    gates: Tensor


class Router(nn.Linear):
    """W: F -> E without bias, and the choice of ``top_k`` experts.

    Args:
        input_size: F.
        experts: E.
        top_k: K.
        renormalise: gates p_i / sum of the chosen p, instead of p_i.

    Raises:
        ValueError: ``top_k`` is not from 1 to ``experts``.
    """

    def __init__(self, input_size: int, experts: int, top_k: int, renormalise: bool):
        if not 1 <= top_k <= experts:
            raise ValueError(f"top_k is from 1 to the number of experts ({experts}), not {top_k}")
        super().__init__(input_size, experts, bias=False)
        self.top_k, self.renormalise = top_k, renormalise

    def forward(self, x: Tensor) -> Routing:
        """Route (..., F)."""
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.weight.float())
        probs = logits.softmax(-1)
        gates, choice = (t[..., : self.top_k] for t in probs.sort(dim=-1, descending=True, stable=True))
        return Routing(logits, probs, choice, gates / gates.sum(-1, keepdim=True) if self.renormalise else gates)


def balance_loss(probs: Tensor, choice: Tensor) -> Tensor:
    """This rank's part of the load balance E sum_e f_e P_e (both papers; Switch Transformer, arXiv 2101.03961, eq. 4).

    f_e is the share of tokens that chose expert e, each of its K choices counted, as in the released Llama-SMoP code; P_e is the
    mean probability. Both are over the valid tokens of all ranks. Uniform probabilities give K, collapse onto the same K experts
    E; MoME's paper does not say whether f is divided by K: that reading is this one with the loss weight divided by K.

    Args:
        probs: (..., T, E) of valid tokens.
        choice: (..., T, K).

    Returns:
        (...); parts add up over ranks to the loss.
    """
    chosen = choice.flatten(-2)
    counts = sum_over_ranks(probs.new_zeros(probs.shape[:-2] + probs.shape[-1:]).scatter_add(-1, chosen, torch.ones_like(chosen, dtype=probs.dtype)))
    tokens = counts.sum(-1, keepdim=True).clamp(min=1) / choice.shape[-1]
    return probs.shape[-1] * (counts / tokens * probs.sum(-2) / tokens).sum(-1)


def z_loss(logits: Tensor) -> Tensor:
    """This rank's part of the mean of (log sum_e exp l_e)^2 over the valid tokens of all ranks (ST-MoE, arXiv 2202.08906, eq. 5).

    Args:
        logits: (T, E) of valid tokens.
    """
    tokens = sum_over_ranks(logits.new_tensor(len(logits))).clamp(min=1)
    return logits.logsumexp(-1).square().sum() / tokens
