"""Which experts the routers of Llama-SMoP (arXiv 2505.14336) and MoME (2510.04136) choose.

A pool is a set of experts: that of each LLM layer in MoME; that of all streams, or of each, in Llama-SMoP. Utterances are read
together with their transcripts, one after the other, at every scale of a task. Of each pool, scale and modality:

    first, second   share of the tokens whose first and second choice each expert is
    entropy         of the router's probabilities, mean over tokens, divided by log E
    usage           share of all choices that fall on each expert, over scales and modalities; dead: below 1/4 of the uniform 1/E
    agreement       |A ∩ B| / K of the experts of tokens of two scales at the same time of one utterance; beside it that of tokens half
                    an utterance apart, which is what equal shares alone would give, and K / E, which is chance

Shapes: `T` tokens, `E` experts, `K` chosen experts.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from espnet2_avsr_llm.adapter.mome import MoME
from espnet2_avsr_llm.frontend.abs_frontend import Lengthed
from espnet2_avsr_llm.model import AVSRLLM, ROLES
from espnet2_avsr_llm.pass_plan import Pass
from espnet2_avsr_llm.projector.smop import SHARED, SMoPProjector
from espnet2_avsr_llm.routing import Router
from espnet2_avsr_llm.sequence import Role

MODALITIES = {stream: {role} for stream, role in ROLES.items()} | {"text": {Role.TEXT}, "prompt": {Role.BOS, Role.DELIMITER, Role.PROMPT}}
DEAD = 0.25  # of the uniform share


@dataclass
class Routed:
    """How tokens of one utterance were routed in one pool.

    Attributes:
        roles: (T,), a :class:`Role` for each token.
        choice: (T, K), most probable expert first.
        probs: (T, E).
    """

    roles: np.ndarray
    choice: np.ndarray
    probs: np.ndarray

    def of(self, modality: str) -> "Routed":
        """The tokens of one modality."""
        rows = np.isin(self.roles, list(MODALITIES[modality]))
        return Routed(self.roles[rows], self.choice[rows], self.probs[rows])


@torch.no_grad()
def observe(model: AVSRLLM, features: dict[str, Lengthed], pass_: Pass, text: Lengthed) -> dict[str, Routed]:
    """Run one pass over one utterance and see how its tokens are routed.

    Args:
        model: in eval mode.
        features: of ``model.encode``, a batch of one.
        pass_: the pass.
        text: ids (1, L) of the transcript, and its length.

    Returns:
        What was routed in each pool.

    Raises:
        ValueError: the model has no experts.
    """
    seen: list[tuple[str, set[Role], Tensor, Tensor]] = []
    with ExitStack() as hooks:
        for router, pool, roles in _routers(model):
            record = lambda _, args, out, pool=pool, roles=roles: seen.append((pool, roles, out.choice, out.probs))
            hooks.callback(router.register_forward_hook(record).remove)
        inputs, _ = model.prepare(features, pass_, text)
        with model.use(pass_):
            model.llm(inputs.inputs_embeds, inputs.attention_mask, inputs.position_ids, 1)
    present, parts = inputs.roles[0].cpu().numpy(), defaultdict(list)
    for pool, roles, choice, probs in seen:
        rows = present[np.isin(present, list(roles))]
        parts[pool].append((rows, *(x.reshape(-1, x.shape[-1]).cpu().numpy() for x in (choice, probs))))
    return {pool: Routed(*(np.concatenate(of) for of in zip(*columns))) for pool, columns in parts.items()}


def _routers(model: AVSRLLM) -> Iterable[tuple[Router, str, set[Role]]]:
    """Every router, the name of its pool, and the roles of the tokens that it sees."""
    projector, adapter = model.projector, model.adapter
    if not isinstance(projector, SMoPProjector) and not isinstance(adapter, MoME):
        raise ValueError(f"There are no experts in this model: its projector is {type(projector).__name__}, its adapter {type(adapter).__name__}")
    if isinstance(projector, SMoPProjector):
        for name, router in projector.routers.items():
            streams = [s for s, of in projector.router_of.items() if of == name]
            pool = projector.pool_of[streams[0]]
            yield router, "projector" if pool == SHARED else f"projector {pool}", {ROLES[s] for s in streams}
    if isinstance(adapter, MoME):
        for i, layer in enumerate(adapter.layers):
            for router in layer.routers.values():
                yield router, f"layer {i + 1}", set(Role)


class Tally:
    """Sums over utterances."""

    def __init__(self) -> None:
        self._by: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._agreement: dict[tuple[str, str, str, str], list[tuple[float, ...]]] = defaultdict(list)

    def add(self, passes: Sequence[Pass], routed: Sequence[Mapping[str, Routed]]) -> None:
        """One utterance.

        Args:
            passes: the passes that it went through.
            routed: of :func:`observe`, for each pass.
        """
        for pass_, pools in zip(passes, routed):
            for (pool, of), modality in itertools.product(pools.items(), MODALITIES):
                self._count((pool, pass_.name, modality), of.of(modality))
        for (p, a), (q, b) in itertools.combinations(zip(passes, routed), 2):
            for pool, modality in itertools.product(a.keys() & b.keys(), MODALITIES):
                rates = p.rates.get(modality, 1), q.rates.get(modality, 1)
                one, other = a[pool].of(modality), b[pool].of(modality)
                found = agreement(one.choice, other.choice, *rates)
                if found is not None:
                    chance = one.choice.shape[1] / one.probs.shape[1]
                    self._agreement[pool, p.name, q.name, modality].append((*found, chance))

    def _count(self, key: tuple[str, str, str], of: Routed) -> None:
        tokens, experts = of.probs.shape
        if not tokens:
            return
        sums = self._by.setdefault(key, {"tokens": 0, "entropy": 0.0, "chosen": np.zeros((of.choice.shape[1], experts))})
        sums["tokens"] += tokens
        sums["entropy"] += float(-np.sum(of.probs * np.log(np.maximum(of.probs, 1e-30))) / np.log(max(experts, 2)))
        for k, choice in enumerate(of.choice.T):
            sums["chosen"][k] += np.bincount(choice, minlength=experts)

    def numbers(self) -> dict[str, Any]:
        """All figures: ``shares``, ``pools`` and ``agreement``."""
        shares, chosen = [], {}
        for (pool, scale, modality), sums in self._by.items():
            ranked = (sums["chosen"] / sums["tokens"]).tolist()
            row = {"pool": pool, "pass": scale, "modality": modality, "tokens": sums["tokens"], "entropy": sums["entropy"] / sums["tokens"]}
            shares.append(row | {"first": ranked[0], "second": ranked[1] if len(ranked) > 1 else [0.0] * len(ranked[0])})
            chosen[pool] = chosen.get(pool, 0) + sums["chosen"].sum(0)
        pools = {pool: _usage(counts) for pool, counts in chosen.items()}
        pairs = [
            {"pool": pool, "passes": [a, b], "modality": modality, "agreement": mean[0], "elsewhere": mean[1], "chance": mean[2]}
            for (pool, a, b, modality), found in self._agreement.items()
            for mean in [np.mean(found, 0).tolist()]
        ]
        return {"shares": shares, "pools": pools, "agreement": pairs}


def _usage(counts: np.ndarray) -> dict[str, Any]:
    usage = counts / counts.sum()
    relative = usage * len(usage)
    return {"usage": usage.tolist(), "least": float(relative.min()), "dead": np.flatnonzero(relative < DEAD).tolist()}


def agreement(a: np.ndarray, b: np.ndarray, rate_a: int, rate_b: int) -> tuple[float, float] | None:
    """Share of experts that tokens of two scales have in common.

    Args:
        a: (T, K), choices of one modality of an utterance at one scale.
        b: the same at another scale.
        rate_a: frames of a token of ``a``.
        rate_b: frames of a token of ``b``.

    Returns:
        Of tokens at the same time (the finer one at the middle of the coarser one), and of tokens half an utterance apart; None where
        a scale has no token.
    """
    if not len(a) or not len(b):
        return None
    if rate_a < rate_b:
        a, b, rate_a, rate_b = b, a, rate_b, rate_a
    finer = ((np.arange(len(a)) + 0.5) * rate_a / rate_b).astype(int).clip(max=len(b) - 1)
    common = lambda rows: float((a[:, :, None] == b[rows][:, None, :]).any(-1).mean())
    return common(finer), common(np.roll(finer, len(finer) // 2))
