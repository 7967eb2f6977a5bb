"""Mixture of Matryoshka experts inside the frozen LLM (MoME, arXiv 2510.04136).

    MoME(H) = sum of the shared E_n(H) + sum over the K routed experts that the router chooses of s_n E_n(H)          (eq. 1-3)
    s = softmax(H W) over the routed experts, not renormalised after the choice
    E_n(x) = W_up GELU(W_down x + b_down) + b_up, of width `bottleneck`                                         (section 3.2)

One MoME stands beside each layer of a pre-norm LLM; its experts and its router serve all scales, modalities and the text:

| placement | input | added to | equation |
|---|---|---|---|
| `ffn` | LN2 H | output of the FFN | Z' = FFN(LN2 H) + MoME(LN2 H) + H  (eq. 4-5) |
| `mhsa` | LN1 Z | output of the attention | H = MHSA(LN1 Z) + MoME(LN1 Z) + Z |
| `layer` | LN1 Z | output of the layer | Z' = Layer(Z) + MoME(LN1 Z)  (figure 7) |

The LLM is reached by forward hooks alone. There is no released code; where the paper is silent:

- W_up and its bias start at zero, so that training starts from the unchanged LLM; W_down and the router start as `nn.Linear` does.
- LN2 stands before `ffn` (the text omits it), and biases are there (both follow from the published sizes or equation 4).
- The balance loss counts all K choices (`routing.py`); it is averaged over layers, and over scales by the plan's weights, as the
  cross-entropy is. The text says "over the batch": valid positions of all kinds count.

Shapes: `B` batch, `N` LLM tokens, `T` tokens, `D` LLM width, `E` experts, `K` chosen experts, `b` bottleneck.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet2_avsr_llm.adapter.lora import SETS
from espnet2_avsr_llm.llm.causal_lm import CausalLM
from espnet2_avsr_llm.pass_plan import Pass
from espnet2_avsr_llm.routing import Router, Routing, balance_loss

PLACEMENTS = ("ffn", "mhsa", "layer")
ROUTERS = {"shared": SETS["shared"], "scale": SETS["scale"]}  # name of the router that a pass uses
# All experts are computed densely where at most this many inner columns of a token are computed in vain, (routed - K) b; else each is
# computed for its own tokens. Measured by tests/benchmarks/expert_paths.py on a CPU: of 560 tokens, a prefix, 132, 228, 528 and 1672 such
# columns take 0.5, 0.8, 1.4 and 2.8 times as long densely as grouped (even at some 320); of one token, a step of decoding, 228, 1408 and
# 5632 take 0.2, 1.2 and 3.1 times as long (even at some 1170). The limit lies between; the paper's sizes have 12 to 228.
DENSE_LIMIT = 512
# Model types whose layers are those of the equations, parts by name; tests/adapter/test_mome.py checks each.
PRE_NORM = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "phi3", "olmo", "starcoder2", "smollm3", "nemotron", "helium", "arcee")


@dataclass
class _Call:
    """The pass that the LLM is called for: the name of its router, its valid positions (None: nothing is recorded), and what was routed."""

    router: str
    mask: Tensor | None
    routings: list[Routing] = field(default_factory=list)


class MoME(nn.Module):
    """Routed and shared bottleneck experts at every layer.

    Args:
        llm: the LLM.
        passes: every pass the plan can make.
        placement: ``ffn``, ``mhsa`` or ``layer``.
        bottleneck: b; the paper's sizes are 12 (3B) and 8 (1B, 8B).
        routed: number of routed experts.
        top_k: K.
        shared: number of experts that every token uses.
        routers: ``shared``, or ``scale`` for one of each rate pair (the paper's DR ablation).
        balance: weight of the load-balancing loss.

    Raises:
        ValueError: an unknown placement or kind of router, or an LLM whose layers are not known to be pre-norm.
    """

    def __init__(
        self,
        llm: CausalLM,
        passes: Sequence[Pass],
        placement: str = "mhsa",
        bottleneck: int = 12,
        routed: int = 23,
        top_k: int = 4,
        shared: int = 1,
        routers: str = "shared",
        balance: float = 0.01,
    ):
        super().__init__()
        for option, value, known in (("placement", placement, PLACEMENTS), ("routers", routers, ROUTERS)):
            if value not in known:
                raise ValueError(f"mome {option}: {value!r}; choose from {', '.join(known)}")
        self._router, self._balance = ROUTERS[routers], balance
        self._call: _Call | None = None
        names = sorted({self._router(p) for p in passes})
        decoder = _pre_norm_decoder(llm)
        self.layers = nn.ModuleList(Mixture(llm.width, bottleneck, routed, top_k, shared, names) for _ in decoder.layers)
        for layer, mixture in zip(decoder.layers, self.layers):
            self._attach(layer, mixture.to(next(layer.parameters()).device), placement)
        self._pinned = llm.pinned

    def _apply(self, fn, recurse: bool = True):
        return self if self._pinned else super()._apply(fn, recurse)  # beside the LLM's layers, which may be on devices of their own

    def _attach(self, layer: nn.Module, mixture: Mixture, placement: str) -> None:
        host = {"ffn": layer.mlp, "mhsa": layer.self_attn, "layer": layer}[placement]
        norm = layer.input_layernorm if placement == "layer" else nn.Identity()

        def hook(_, args, kwargs, output):
            if self._call is None:
                return output
            x = norm(args[0] if args else kwargs["hidden_states"])
            return (output[0] + self._mix(mixture, x), *output[1:]) if isinstance(output, tuple) else output + self._mix(mixture, x)

        host.register_forward_hook(hook, with_kwargs=True)

    def _mix(self, mixture: Mixture, x: Tensor) -> Tensor:
        mixed, routing = mixture(x, self._call.router)
        if self._call.mask is not None:
            self._call.routings.append(routing)
        return mixed.to(x.dtype)

    @contextmanager
    def use(self, pass_: Pass, attention_mask: Tensor | None = None):
        """Put the experts into the LLM calls inside; outside of it the LLM is unchanged.

        A recompute by gradient checkpointing enters this again: what it routes is recorded apart and forgotten.

        Args:
            pass_: the pass.
            attention_mask: (B, N) valid positions, over which :meth:`losses` is taken; None in generation, where nothing is recorded.
        """
        outer, self._call = self._call, _Call(self._router(pass_), attention_mask)
        try:
            yield
        finally:
            self._call = outer

    def losses(self) -> dict[str, Tensor]:
        """``mome_balance`` of the LLM call that was made inside :meth:`use`: this rank's part, weighted, mean over layers."""
        valid, routings = self._call.mask.bool(), self._call.routings
        probs, choice = (torch.stack([getattr(r, name).to(valid.device)[valid] for r in routings]) for name in ("probs", "choice"))
        return {"mome_balance": self._balance * balance_loss(probs, choice).mean()}

    def active(self, pass_: Pass) -> int:
        """Number of parameters that a token uses."""
        return sum(layer.active(self._router(pass_)) for layer in self.layers)

    def multiplications(self, pass_: Pass) -> int:
        """Multiplications of a token in a pass; where all experts are computed densely, those of all."""
        return sum(layer.multiplications(self._router(pass_)) for layer in self.layers)


class Mixture(nn.Module):
    """The experts beside one layer, stacked in one tensor for each of their four kinds of parameters; shared experts come first.

    Args:
        width: D.
        bottleneck: b.
        routed: number of routed experts.
        top_k: K.
        shared: number of shared experts.
        routers: names of the routers.
    """

    def __init__(self, width: int, bottleneck: int, routed: int, top_k: int, shared: int, routers: Sequence[str]):
        super().__init__()
        self.routers = nn.ModuleDict({name: Router(width, routed, top_k, renormalise=False) for name in routers})
        bound = width**-0.5  # as nn.Linear
        self.down = nn.Parameter(torch.empty(shared + routed, bottleneck, width).uniform_(-bound, bound))
        self.down_bias = nn.Parameter(torch.empty(shared + routed, bottleneck).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(shared + routed, bottleneck, width))
        self.up_bias = nn.Parameter(torch.zeros(shared + routed, width))
        self.shared, self.top_k = shared, top_k

    def forward(self, x: Tensor, router: str) -> tuple[Tensor, Routing]:
        """MoME(x) for (..., D), and how it was routed; in float32, as the parameters."""
        x = x.to(self.down)
        routing = self.routers[router](x)
        return (self.dense if self.is_dense else self.grouped)(x, routing), routing

    @property
    def is_dense(self) -> bool:
        """Whether all experts are computed for every token."""
        return (len(self.down) - self.shared - self.top_k) * self.down.shape[1] <= DENSE_LIMIT

    def dense(self, x: Tensor, routing: Routing) -> Tensor:
        """Every expert computed for every token, in two products; the gates of experts that are not chosen are zero."""
        gates = torch.zeros_like(routing.probs).scatter(-1, routing.choice, routing.gates)
        gates = torch.cat([gates.new_ones(*gates.shape[:-1], self.shared), gates], -1)
        inner = F.gelu(F.linear(x, self.down.flatten(0, 1), self.down_bias.flatten())).unflatten(-1, self.down_bias.shape)
        return (inner * gates[..., None]).flatten(-2) @ self.up.flatten(0, 1) + gates @ self.up_bias

    def grouped(self, x: Tensor, routing: Routing) -> Tensor:
        """Each expert computed for the tokens that chose it."""
        tokens, choice, gates = x.flatten(0, -2), routing.choice.flatten(0, -2), routing.gates.flatten(0, -2)
        experts = list(zip(*(p.unbind() for p in (self.down, self.down_bias, self.up, self.up_bias))))
        out = sum((_expert(tokens, *weights) for weights in experts[: self.shared]), torch.zeros_like(tokens))
        for e, weights in enumerate(experts[self.shared :]):
            token, rank = (choice == e).nonzero(as_tuple=True)
            out = out.index_add(0, token, _expert(tokens[token], *weights) * gates[token, rank, None])
        return out.view_as(x)

    def active(self, router: str) -> int:
        """Parameters that a token uses: (shared + K) (2 D b + b + D) + D routed."""
        stacked = (self.down, self.down_bias, self.up, self.up_bias)
        return (self.shared + self.top_k) * sum(p[0].numel() for p in stacked) + self.routers[router].weight.numel()

    def multiplications(self, router: str) -> int:
        """Multiplications of a token: products with the router and the computed experts, whose outputs a gate each weights."""
        computed = len(self.down) if self.is_dense else self.shared + self.top_k
        return computed * (2 * self.down[0].numel() + self.up_bias[0].numel()) + self.routers[router].weight.numel()


def _expert(x: Tensor, down: Tensor, down_bias: Tensor, up: Tensor, up_bias: Tensor) -> Tensor:
    return F.gelu(F.linear(x, down, down_bias)) @ up + up_bias


def _pre_norm_decoder(llm: CausalLM) -> nn.Module:
    kind, decoder = llm.model.config.model_type, llm.model.get_decoder()
    if kind not in PRE_NORM:
        layer = next((m[0] for m in decoder.children() if isinstance(m, nn.ModuleList) and len(m)), decoder)
        raise ValueError(
            f"mome is checked with the layers of {', '.join(PRE_NORM)}. This LLM is {kind!r}, whose layer has the parts "
            f"{', '.join(n for n, _ in layer.named_children())}: where it normalises after a part, scales the residual, or runs attention "
            "and FFN side by side, the equations do not hold. Take another LLM, or adapter: lora"
        )
    return decoder
