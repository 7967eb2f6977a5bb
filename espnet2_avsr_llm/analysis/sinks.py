"""Attention sinks and massive activations over a prefix (arXiv 2510.22603, sections 3.1 and 3.2), for any Hugging Face LLM.

With H^l the output of decoder layer l = 1 … L and A_h^l the attention of its head h, over tokens i = 0 … N−1:

    attention received   α_i^l = 1 / (H (N − i)) · Σ_h Σ_k A_h^l[k, i]     the mean over the N − i positions that can see token i
    massive features     Θ_i^l = {j : |H^l[i, j]| ≥ τ · median |H^l|}      τ = 1000; median over the layer's tokens and features
    sink                 a token with Θ_i^l ≠ ∅ for some l in 2 … L−1      (no threshold on α was published)
    rotation             H[i] ← ‖H[i]‖ · H[k] / ‖H[k]‖                     of a sink onto the nearest other token: removes it;
                                                                           of another token onto token 0: makes one

The paper does not say where it rotates. Here it is at the input of the layer in which massive features first appear: behind that
layer a rotated sink would keep its massive norm, and another token would still have a small one.

Hooks reduce each layer while the LLM runs, so the attention (H, N, N) of one layer is held at a time. Derived for Llama-3.1-8B
(bfloat16, 32 layers, 32 heads) and N = 650 tokens, 25 s at rates (4, 2): 16.1 GB of weights; 0.11 GB for one layer's attention
(8 bytes for each of H N² = 13.5 million entries at the softmax), where all layers would be 0.87 GB; 0.06 GB in the MLP. With Whisper
medium and AV-HuBERT Large (1.3 GB) the peak is below 18 GB.

Shapes: `N` LLM tokens, `D` LLM width, `H` heads, `L` layers, `I` inner width of the MLP.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from espnet2_avsr_llm.llm.causal_lm import CausalLM
from espnet2_avsr_llm.model import AVSRLLM
from espnet2_avsr_llm.pass_plan import Pass
from espnet2_avsr_llm.sequence import LLMInput

TAU = 1e3
LARGEST = 50  # activations of a layer that a trace keeps
FEATURES = 5  # inner features of the MLP that are reported
GATED_MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass
class Trace:
    """What was seen over one prefix. Row ``l - 1`` of an array is layer l.

    Attributes:
        attention: (L, N) α; NaN in layers without attention.
        cosine: (L, N) of each token's state to that of token 0.
        peak: (L, N) largest |activation| of the token over the layer's median.
        massive: for each layer the features Θ of the tokens that have any.
        largest: for each layer its largest activations as (token, feature, ratio to the median), signed.
        maps: (L, N, N) attention, mean over heads, NaN in layers without; None unless asked for.
    """

    attention: np.ndarray
    cosine: np.ndarray
    peak: np.ndarray
    massive: list[dict[int, list[int]]]
    largest: list[list[tuple[int, int, float]]]
    maps: np.ndarray | None

    @property
    def sinks(self) -> dict[int, list[int]]:
        """The sinks, and for each the layers (2 … L−1) in which it has massive features."""
        inner = range(2, len(self.massive))
        tokens = sorted({i for layer in inner for i in self.massive[layer - 1]})
        return {i: [layer for layer in inner if i in self.massive[layer - 1]] for i in tokens}

    @property
    def origin(self) -> int | None:
        """First layer with massive features; None where there are none."""
        return next((layer for layer, found in enumerate(self.massive, 1) if found), None)


@torch.no_grad()
def trace(model: AVSRLLM, inputs: LLMInput, pass_: Pass, tau: float = TAU, keep_maps: bool = False) -> Trace:
    """Run the LLM over one prefix and reduce each layer as it passes.

    Args:
        model: in eval mode.
        inputs: of ``model.prepare`` for one utterance (no padding), without text.
        pass_: the pass, which chooses the adapter.
        tau: threshold τ of massive features.
        keep_maps: also keep the attention of every layer, averaged over heads.

    Returns:
        The trace.

    Raises:
        ValueError: several rows, or an LLM of less than three layers or that gives no attention weights.
    """
    if len(model.llm.layers) < 3:
        raise ValueError(f"Sinks are looked for in layers 2 to L-1, but {type(model.llm.model).__name__} has L = {len(model.llm.layers)}")
    if len(inputs.inputs_embeds) != 1:
        raise ValueError(f"trace reads one utterance at a time, found a batch of {len(inputs.inputs_embeds)}")
    attention: dict[int, Tensor] = {}
    states: list[tuple] = []
    with ExitStack() as stack:
        for number, layer in enumerate(model.llm.layers):
            # registered on the parts first: a layer's parts run before the layer ends
            stack.enter_context(hooked(layer.children(), lambda m, args, out, n=number: _take_weights(attention, n, out)))
            stack.enter_context(hooked([layer], lambda m, args, out: states.append(_reduce_states(_states(out)[0].float(), tau))))
        run(model, inputs, pass_)
    if not attention:
        raise ValueError(
            f"{type(model.llm.model).__name__} gives no attention weights, even with its eager attention: no part of its layers returns them. "
            "Sinks can be looked at in LLMs whose attention does (Llama, Qwen, Mistral, Gemma, Phi, ...)"
        )
    received = [_received(attention[n]) if n in attention else np.full(states[n][0].shape, np.nan) for n in range(len(states))]
    blank = torch.full_like(next(iter(attention.values())), torch.nan)
    maps = np.stack([attention.get(n, blank).cpu().numpy() for n in range(len(states))]) if keep_maps else None
    cosine, peak, massive, largest = zip(*states)
    return Trace(np.stack(received), np.stack(cosine), np.stack(peak), list(massive), list(largest), maps)


def run(model: AVSRLLM, inputs: LLMInput, pass_: Pass) -> None:
    """One pass over the prefix with eager attention, which is the kind that has weights to look at."""
    llm = model.llm.model
    before = llm.config._attn_implementation
    llm.set_attn_implementation("eager")
    try:
        with model.use(pass_):
            model.llm(inputs.inputs_embeds, inputs.attention_mask, inputs.position_ids, 1)
    finally:
        llm.set_attn_implementation(before)


@contextmanager
def hooked(modules: Iterable[nn.Module], hook: Callable, before: bool = False):
    """A forward hook (``before``: a pre-hook) on some modules, for as long as the block runs."""
    handles = [m.register_forward_pre_hook(hook) if before else m.register_forward_hook(hook) for m in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _states(output: Tensor | tuple) -> Tensor:
    """(B, N, D) of a decoder layer's output, which some models wrap in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def _take_weights(attention: dict[int, Tensor], number: int, output) -> None:
    """Keep the head mean (N, N) of attention weights (1, H, N, N), the second output of whichever part computes them."""
    if isinstance(output, tuple) and len(output) > 1 and torch.is_tensor(output[1]) and output[1].dim() == 4:
        attention[number] = output[1][0].mean(0, dtype=torch.float32)


def _received(weights: Tensor) -> np.ndarray:
    seen_by = torch.arange(len(weights), 0, -1, device=weights.device)
    return (weights.sum(0) / seen_by).cpu().numpy()


def _reduce_states(h: Tensor, tau: float) -> tuple[np.ndarray, np.ndarray, dict[int, list[int]], list[tuple[int, int, float]]]:
    """Cosine to token 0, peak, Θ and the largest activations of states (N, D)."""
    ratio = h / h.abs().median()
    found: dict[int, list[int]] = {}
    for token, feature in (ratio.abs() >= tau).nonzero().tolist():
        found.setdefault(token, []).append(feature)
    top = ratio.flatten().abs().topk(min(LARGEST, ratio.numel())).indices.tolist()
    largest = [(*divmod(i, h.shape[1]), ratio.flatten()[i].item()) for i in top]
    cosine = nn.functional.cosine_similarity(h, h[:1], dim=-1)
    return cosine.cpu().numpy(), ratio.abs().amax(1).cpu().numpy(), found, largest


# ---- where massive activations come from -------------------------------------------------------------------------------


@torch.no_grad()
def mlp_origin(model: AVSRLLM, inputs: LLMInput, pass_: Pass, seen: Trace) -> dict:
    """How the MLP of the layer of origin makes the largest massive feature j: which inner features m, by which gate.

    MLP(h)[j] = Σ_m W_down[j, m] · act(h W_gate)[m] · (h W_up)[m].

    Args:
        seen: the trace of the same inputs.

    Returns:
        ``layer``, ``feature`` (j), and ``inner``: for the inner features with the largest share in j at the sinks their ``weight``
        W_down[j, m] and the mean ``gate`` (before the activation), ``up`` and ``contribution`` over ``sinks`` and over ``others``. Or
        ``none`` with the reason.
    """
    if seen.origin is None:
        return {"none": f"no massive activation: the largest is {seen.peak.max():.0f} times its layer's median"}
    layer, massive = model.llm.layers[seen.origin - 1], seen.massive[seen.origin - 1]
    parts = _gated_mlp(layer)
    if parts is None:
        return {"none": f"the layers of {type(model.llm.model).__name__} have no single MLP of {', '.join(GATED_MLP)}"}
    taken: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name in ("gate_proj", "up_proj"):
            stack.enter_context(hooked([parts[name]], lambda m, args, out, n=name: taken.__setitem__(n, out[0].float())))
        stack.enter_context(hooked([parts["down_proj"]], lambda m, args: taken.__setitem__("product", args[0][0].float()), before=True))
        run(model, inputs, pass_)
    features = [f for found in massive.values() for f in found]
    j = max(set(features), key=features.count)
    weight = getattr(parts["down_proj"], "base_layer", parts["down_proj"]).weight[j].float()
    at_sinks = torch.zeros(len(taken["product"]), dtype=torch.bool, device=weight.device)
    at_sinks[list(massive)] = True
    contribution = taken["product"] * weight
    chosen = contribution[at_sinks].abs().mean(0).topk(min(FEATURES, len(weight))).indices.tolist()
    columns = {"gate": taken["gate_proj"], "up": taken["up_proj"], "contribution": contribution}
    inner = [
        {"feature": m, "weight": weight[m].item()}
        | {name: {who: x[rows, m].mean().item() for who, rows in (("sinks", at_sinks), ("others", ~at_sinks))} for name, x in columns.items()}
        for m in chosen
    ]
    return {"layer": seen.origin, "feature": j, "inner": inner}


def _gated_mlp(layer: nn.Module) -> dict[str, nn.Module] | None:
    named = [(name.rsplit(".", 1)[-1], m) for name, m in layer.named_modules()]
    parts = {name: [m for n, m in named if n == name] for name in GATED_MLP}
    return {name: found[0] for name, found in parts.items()} if all(len(found) == 1 for found in parts.values()) else None


# ---- interventions -----------------------------------------------------------------------------------------------------


def rotate(states: Tensor, onto: Mapping[int, int]) -> Tensor:
    """States (B, N, D) in which each token of ``onto`` keeps its norm and takes the direction of another one's."""
    rotated = states.clone()
    for token, other in onto.items():
        direction = nn.functional.normalize(states[:, other].float(), dim=-1)
        rotated[:, token] = (states[:, token].float().norm(dim=-1, keepdim=True) * direction).to(states.dtype)
    return rotated


def rotating(llm: CausalLM, layer: int, onto: Mapping[int, int]):
    """Context in which the tokens of ``onto`` are rotated at the input of a layer (1 … L)."""
    return hooked([llm.layers[layer - 1]], lambda m, args: (rotate(args[0], onto), *args[1:]), before=True)


def interventions(model: AVSRLLM, inputs: LLMInput, pass_: Pass, seen: Trace, tau: float = TAU) -> dict:
    """Both rotations at the layer of origin.

    Returns:
        ``remove``: the sinks other than token 0, onto the nearest token that is none; ``create``: the middle one of the other tokens,
        onto token 0. For each the rotated tokens, their largest activation and attention (means over layers 2 … L−1) before and
        after, and the sinks after. Or ``none`` with the reason.
    """
    tokens = range(seen.peak.shape[1])
    others = [i for i in tokens if i and i not in seen.sinks]
    if 0 not in seen.sinks or not others:
        return {"none": "token 0 is no sink" if 0 not in seen.sinks else "every token is a sink"}
    plans = {
        "remove": {i: min(others, key=lambda k: abs(k - i)) for i in seen.sinks if i},
        "create": {others[len(others) // 2]: 0},
    }
    results = {}
    for name, onto in plans.items():
        if not onto:
            results[name] = {"none": "no sink besides token 0"}
            continue
        with rotating(model.llm, seen.origin, onto):
            after = trace(model, inputs, pass_, tau)
        means = {key: [_inner_mean(getattr(t, key), onto) for t in (seen, after)] for key in ("peak", "attention")}
        results[name] = {"layer": seen.origin, "onto": onto, **means, "sinks_after": sorted(after.sinks)}
    return results


def _inner_mean(values: np.ndarray, tokens: Iterable[int]) -> float:
    """Mean over layers 2 … L−1 of some tokens' values (L, N)."""
    return float(np.nanmean(values[1:-1, list(tokens)]))
