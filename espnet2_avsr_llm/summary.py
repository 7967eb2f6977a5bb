"""Parameters, tokens and FLOPs of a configuration, from the sizes alone: nothing is allocated or downloaded.

`paper_tflops` is the formula behind Llama-MTSK's figure 5 (arXiv 2503.06362, specification 2.3): 2 (P - E) n, with P the
active parameters of LLM and adapter, E those of the input embedding (0 where it is also the head), n = audio + video + prompt tokens.
`llm_tflops` is what this program computes to read the same prefix: the layers over every token with BOS and delimiters, the
attention products, and the head at one position.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

import torch
from torch import nn

from espnet2_avsr_llm.build import build, sized
from espnet2_avsr_llm.data import INPUTS_PER_SECOND
from espnet2_avsr_llm.lengths import count_features, count_tokens
from espnet2_avsr_llm.model import AVSRLLM
from espnet2_avsr_llm.pass_plan import Pass


def on_meta(config: Mapping[str, Any]) -> AVSRLLM:
    """The model of a configuration on the ``meta`` device."""
    with torch.device("meta"):
        return build(sized(config))


def summarise(model: AVSRLLM, rates: Sequence[Sequence[int]] | None, seconds: float, prompt_tokens: int) -> dict[str, Any]:
    """Counts of a model.

    Args:
        model: from :func:`on_meta`.
        rates: rates of each pass to count, of the streams of the plan's pass that reads the most; None takes the plan's passes.
        seconds: length of the utterance.
        prompt_tokens: tokens of the prompt.

    Returns:
        ``parameters`` and ``passes``, as ``avsr-llm summary --json`` prints them.
    """
    passes = model.plan.all_passes() if rates is None else _passes(model, rates)
    return {"parameters": parameters(model), "seconds": seconds, "passes": [_cost(model, p, seconds, prompt_tokens) for p in passes]}


def parameters(model: AVSRLLM) -> dict[str, Any]:
    """Total, trainable and active numbers of parameters, of the model and by part; the adapter's weights count as the adapter's.

    Active are those that one pass uses: the plan's first among those that read the most streams.
    """
    by_part: dict[str, dict[str, int]] = {}
    for name, p in model.named_parameters():
        counts = by_part.setdefault(_part(name), {"total": 0, "trainable": 0})
        counts["total"] += p.numel()
        counts["trainable"] += p.numel() * p.requires_grad
    for part, counts in by_part.items():
        counts["active"] = _active(model, part, _widest(model), counts["total"])
    totals = {key: sum(c[key] for c in by_part.values()) for key in ("total", "trainable", "active")}
    return {**totals, "by_part": by_part}


def _widest(model: AVSRLLM) -> Pass:
    """The plan's first pass among those that read the most streams."""
    return max(model.plan.all_passes(), key=lambda p: len(p.rates))


def _active(model: AVSRLLM, part: str, pass_: Pass, total: int) -> int:
    if part in ("projector", "adapter"):
        return getattr(model, part).active(pass_)
    read = part not in model.frontends or set(model.frontends[part].streams) & set(pass_.rates)
    return total if read else 0


def _part(name: str) -> str:
    if name.startswith("frontends."):
        return name.split(".")[1]
    return "adapter" if name.startswith("llm.") and "lora_" in name else name.split(".")[0]


def _passes(model: AVSRLLM, rates: Sequence[Sequence[int]]) -> list[Pass]:
    planned = _widest(model)
    streams = sorted(planned.rates)
    if any(len(r) != len(streams) for r in rates):
        raise ValueError(f"--rates: give one rate for each of {', '.join(streams)}, found {[','.join(map(str, r)) for r in rates]}")
    return [Pass(planned.task, dict(zip(streams, r))) for r in rates]


def _cost(model: AVSRLLM, pass_: Pass, seconds: float, prompt: int) -> dict[str, Any]:
    counts = {name: round(seconds * INPUTS_PER_SECOND[name]) for name in model.input_names()}
    count = count_tokens(pass_, count_features(model.frontends.values(), counts), prompt)
    return {
        "task": pass_.task,
        "rates": dict(pass_.rates),
        **{f"{stream}_tokens": count.streams.get(stream, 0) for stream in ("audio", "video", *({"audiovisual"} & set(count.streams)))},
        "prompt_tokens": prompt,
        "llm_tflops": prefill_flops(model, pass_, count.prefix) / 1e12,
        "paper_tflops": 2 * _paper_parameters(model, pass_) * (sum(count.streams.values()) + prompt) / 1e12,
    }


def _paper_parameters(model: AVSRLLM, pass_: Pass) -> int:
    inputs, outputs = model.llm.model.get_input_embeddings().weight, model.llm.model.get_output_embeddings().weight
    llm = sum(p.numel() for name, p in model.llm.named_parameters() if "lora_" not in name) - (0 if inputs is outputs else inputs.numel())
    return llm + (model.adapter.active(pass_) if model.adapter is not None else 0)


def prefill_flops(model: AVSRLLM, pass_: Pass, n: int) -> int:
    """What reading a prefix of ``n`` tokens costs the LLM with the adapter of a pass: see ``llm_tflops`` above."""
    llm, config = model.llm.model, model.llm.model.config.get_text_config()  # a model that also sees has a tower that is not run
    weights = (_multiplications(m, config) for name, m in llm.get_decoder().named_modules() if "lora_" not in name)
    linear = sum(weights) + (model.adapter.multiplications(pass_) if model.adapter is not None else 0)
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 2 * n * n * config.num_attention_heads * head_width * config.num_hidden_layers  # causal: half of QK' and of AV
    return 2 * n * linear + attention + 2 * llm.get_output_embeddings().weight.numel()


def _multiplications(module: nn.Module, config) -> int:
    """Multiplications of a token with the matrices of a module's own; of experts stacked in one tensor, with those that it chooses."""
    if isinstance(module, nn.Embedding):
        return 0
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features  # quantised weights are packed: fewer numbers than products
    matrices = (p for p in module.parameters(recurse=False) if p.dim() > 1)
    return sum(p[0].numel() * (getattr(config, "num_experts_per_tok", len(p)) if p.dim() == 3 else len(p)) for p in matrices)
