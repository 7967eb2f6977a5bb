"""Sparse mixture of projectors (Llama-SMoP, arXiv 2505.14336).

z = sum over the K experts that the router chooses of R_i E_i(x), with E_i a two-layer MLP (section 2). Three configurations:

| routing | experts | routers |
|---|---|---|
| `jejr` | one pool for all streams | one |
| `jedr` | one pool for all streams | one per stream |
| `dedr` | a pool per stream | one per stream |

Where paper and released evaluation code (JEJR only) differ, the code is the default: gates are renormalised over the chosen
experts (the paper keeps p_i). Its checkpoint has `layer_norm` inside each expert. Neither says

- how the losses of two routers are combined: here they are added;
- where the layer stands that gives the streams of a shared pool one width: here a linear layer widens each narrower stream to the
  widest, after compression, where the widths meet whatever the rates (under average pooling this equals a layer before it).

Shapes: `B` batch, `N` LLM tokens, `F` feature width, `D` LLM width, `T` valid tokens, `E` experts, `K` chosen experts.
"""

from __future__ import annotations

from typing import Mapping

import torch
from torch import Tensor, nn

from espnet2_avsr_llm.frontend.abs_frontend import Lengthed, valid_mask
from espnet2_avsr_llm.pass_plan import Pass
from espnet2_avsr_llm.projector.mlp import mlp, only_width
from espnet2_avsr_llm.routing import Router, Routing, balance_loss, z_loss

SHARED = "shared"  # name of the router and of the pool that all streams use
ROUTINGS = {"jejr": (True, True), "jedr": (True, False), "dedr": (False, False)}  # joint experts, joint router


class SMoPProjector(nn.Module):
    """Routed two-layer MLPs.

    Args:
        input_sizes: for each stream the width ``F`` at each rate in use.
        output_size: LLM width ``D``.
        routing: ``jejr``, ``jedr`` or ``dedr``; the same for a single stream.
        experts: E of each pool; for ``dedr`` also a number per stream.
        top_k: K of each router; for ``jedr`` and ``dedr`` also a number per stream.
        hidden_size: inner width of an expert.
        layer_norm: LayerNorm over ``D`` at the end of each expert.
        renormalise: divide the chosen gates by their sum.
        balance: weight of the load-balancing loss.
        z: weight of the router z-loss.

    Attributes:
        pool_of: name of each stream's pool of experts.
        router_of: name of each stream's router.
    """

    def __init__(
        self,
        input_sizes: dict[str, dict[int, int]],
        output_size: int,
        routing: str = "jejr",
        experts: int | Mapping[str, int] = 4,
        top_k: int | Mapping[str, int] = 2,
        hidden_size: int = 2048,
        layer_norm: bool = False,
        renormalise: bool = True,
        balance: float = 0.01,
        z: float = 0.001,
    ):
        super().__init__()
        if routing not in ROUTINGS:
            raise ValueError(f"smop: unknown routing {routing!r}; choose from {', '.join(ROUTINGS)}")
        joint_experts, joint_router = ROUTINGS[routing]
        self.pool_of = {s: SHARED if joint_experts else s for s in input_sizes}
        self.router_of = {s: SHARED if joint_router else s for s in input_sizes}
        self._weights = {"smop_balance": balance, "smop_z": z}
        widths = {s: only_width(s, sizes) for s, sizes in input_sizes.items()}
        widest = {pool: max(w for s, w in widths.items() if self.pool_of[s] == pool) for pool in self.pool_of.values()}
        self.widen = nn.ModuleDict({s: nn.Linear(w, widest[self.pool_of[s]]) for s, w in widths.items() if w < widest[self.pool_of[s]]})
        sizes = {pool: _per_name("experts", experts, set(self.pool_of.values()), pool) for pool in widest}
        self.experts = nn.ModuleDict(
            {pool: nn.ModuleList(mlp(w, hidden_size, output_size, layer_norm) for _ in range(sizes[pool])) for pool, w in widest.items()}
        )
        names = set(self.router_of.values())
        self.routers = nn.ModuleDict(
            {
                router: Router(widest[self.pool_of[s]], sizes[self.pool_of[s]], _per_name("top_k", top_k, names, router), renormalise)
                for s, router in self.router_of.items()
            }
        )

    def forward(self, features: dict[str, Lengthed], rates: dict[str, int]) -> tuple[dict[str, Lengthed], dict[str, Tensor]]:
        """Route and project the valid tokens; padding is neither routed nor counted.

        Args:
            features: for each stream (B, N, F) and lengths.
            rates: the compression rate of each stream.

        Returns:
            For each stream (B, N, D), zero in the padding, and lengths; ``smop_balance`` and ``smop_z``, weighted.
        """
        valid = {s: valid_mask(lengths, x.shape[1]) for s, (x, lengths) in features.items()}
        tokens = {s: (self.widen[s](x) if s in self.widen else x)[valid[s]] for s, (x, _) in features.items()}
        projected, losses = {}, []
        for router in dict.fromkeys(self.router_of[s] for s in features):
            streams = [s for s in features if self.router_of[s] == router]
            joined = torch.cat([tokens[s] for s in streams])
            routing = self.routers[router](joined)
            mixed = _mix(joined, routing, self.experts[self.pool_of[streams[0]]])
            projected |= dict(zip(streams, mixed.split([len(tokens[s]) for s in streams])))
            losses.append((balance_loss(routing.probs, routing.choice), z_loss(routing.logits)))
        terms = {name: weight * sum(values) for (name, weight), values in zip(self._weights.items(), zip(*losses))}
        return {s: (_padded(projected[s], valid[s]), lengths) for s, (_, lengths) in features.items()}, terms

    def active(self, pass_: Pass) -> int:
        """Number of parameters of the experts that one token of each stream uses; routers (0.04 % and less) are not counted."""
        chosen = {pool: sum(self.routers[self.router_of[s]].top_k for s in pass_.rates if self.pool_of[s] == pool) for pool in self.experts}
        used = [e for pool, n in chosen.items() for e in self.experts[pool][:n]] + [self.widen[s] for s in pass_.rates if s in self.widen]
        return sum(p.numel() for module in used for p in module.parameters())


def _mix(x: Tensor, routing: Routing, experts: nn.ModuleList) -> Tensor:
    """Gated sum (T, D) of each token's experts."""
    mixed = 0.0
    for e, expert in enumerate(experts):
        token, rank = (routing.choice == e).nonzero(as_tuple=True)
        y = expert(x[token]) * routing.gates[token, rank, None]
        mixed = mixed + y.new_zeros(len(x), y.shape[1]).index_add(0, token, y)
    return mixed


def _padded(x: Tensor, valid: Tensor) -> Tensor:
    out = x.new_zeros(*valid.shape, x.shape[1])
    out[valid] = x
    return out


def _per_name(option: str, value: int | Mapping[str, int], names: set[str], name: str) -> int:
    """One number for all, or that of ``name`` in a mapping of exactly ``names``."""
    if isinstance(value, int):
        return value
    if set(value) != names:
        raise ValueError(f"smop {option}: give one number, or one for each of {', '.join(sorted(names))}, not {dict(value)}")
    return value[name]
