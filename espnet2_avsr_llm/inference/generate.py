"""Batched generation: greedy, beam search, or the papers' sampling beam.

Shapes: `B` batch, `N` LLM tokens of the prefix, `D` LLM width, `V` vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from espnet2_avsr_llm.frontend.abs_frontend import Lengthed
from espnet2_avsr_llm.model import AVSRLLM
from espnet2_avsr_llm.pass_plan import Pass


@dataclass(frozen=True)
class Search:
    """How to search; the default is greedy.

    Attributes:
        beam_size: beams; 1 is greedy.
        nbest: hypotheses returned, at most ``beam_size``.
        length_penalty: exponent of the length by which beam scores are divided.
        max_tokens_per_second: limit of each row by its own duration; text is about 4 tokens per second with a word-piece
            vocabulary, 20 with characters.
        min_tokens: limit of very short rows.
        sample: sample within the beam at ``temperature`` and ``top_p``, as the released programs do (not repeatable without a seed).
    """

    beam_size: int = 1
    nbest: int = 1
    length_penalty: float = 1.0
    max_tokens_per_second: float = 20.0
    min_tokens: int = 8
    sample: bool = False
    temperature: float = 0.6
    top_p: float = 0.9

    def __post_init__(self):
        if not 1 <= self.nbest <= self.beam_size:
            raise ValueError(f"nbest is from 1 to beam_size ({self.beam_size}), not {self.nbest}")

    def limit(self, seconds: float) -> int:
        """Text tokens that a row of this duration may have."""
        return max(self.min_tokens, round(seconds * self.max_tokens_per_second))


@dataclass(frozen=True)
class Hypothesis:
    """One decoded text.

    Attributes:
        text: decoded, special tokens left out.
        token_ids: without EOS.
        score: sum of the log-probabilities of the tokens, EOS included; n-best lists are sorted by it over length ** length_penalty.
        truncated: it reached the token limit.
        task: task of the pass.
        rates: compression rates of the pass.
        llm_tokens: what the LLM read before it wrote: BOS, delimiters, audio, video, prompt.
        tflops: what reading it costs; None where nobody counted.
        note: what differs from what was asked for: another task for want of a stream, a budget that no trained rates keep.
    """

    text: str
    token_ids: list[int]
    score: float
    truncated: bool
    task: str
    rates: dict[str, int]
    llm_tokens: int
    tflops: float | None = None
    note: str = ""


@torch.no_grad()
def generate(model: AVSRLLM, features: dict[str, Lengthed], pass_: Pass, seconds: list[float], search: Search) -> list[list[Hypothesis]]:
    """Decode a batch in one pass.

    Args:
        model: in eval mode.
        features: of ``model.encode``.
        pass_: the pass.
        seconds: duration of each row.
        search: how.

    Returns:
        For each row its n-best hypotheses, best first.
    """
    from transformers import LogitsProcessorList

    inputs, _ = model.prepare(features, pass_)
    limits = torch.tensor([search.limit(s) for s in seconds], device=model.device)
    with model.use(pass_):
        output = model.llm.model.generate(
            inputs_embeds=inputs.inputs_embeds.to(model.llm.model.dtype),
            attention_mask=inputs.attention_mask,
            generation_config=_generation_config(model, search, int(limits.max())),
            logits_processor=LogitsProcessorList([RowLimit(limits, search.beam_size, model.llm.tokens.eos_id)]),
        )
    scores = _scores(model, output, search)
    hypotheses = [
        _hypothesis(model, ids.tolist(), score, int(limit), pass_, int(read))
        for ids, score, limit, read in zip(output.sequences, scores.tolist(), *(x.repeat_interleave(search.nbest) for x in (limits, inputs.attention_mask.sum(1))))
    ]
    return [hypotheses[i : i + search.nbest] for i in range(0, len(hypotheses), search.nbest)]


class RowLimit:
    """Logits processor that lets a row write only EOS once it has its own limit of tokens."""

    def __init__(self, limits: Tensor, beams: int, eos_id: int):
        self.limits, self.eos_id = limits.repeat_interleave(beams), eos_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Args: ``input_ids`` (B beams, tokens so far), ``scores`` (B beams, V)."""
        ended = input_ids.shape[1] >= self.limits
        if not ended.any():
            return scores
        only_eos = torch.full_like(scores, float("-inf"))
        only_eos[:, self.eos_id] = 0.0
        return torch.where(ended[:, None], only_eos, scores)


def _generation_config(model: AVSRLLM, search: Search, longest: int):
    from transformers import GenerationConfig

    sampling = dict(do_sample=True, temperature=search.temperature, top_p=search.top_p) if search.sample else dict(do_sample=False)
    tokens = model.llm.tokens
    return GenerationConfig(
        num_beams=search.beam_size,
        num_return_sequences=search.nbest,
        length_penalty=search.length_penalty,
        max_new_tokens=longest + 1,
        bos_token_id=tokens.bos_id,
        eos_token_id=tokens.eos_id,
        pad_token_id=tokens.pad_id,
        return_dict_in_generate=True,
        output_scores=True,
        **sampling,
    )


def _scores(model: AVSRLLM, output, search: Search) -> Tensor:
    """Sum of log-probabilities (B nbest,)."""
    beams = getattr(output, "beam_indices", None)
    steps = model.llm.model.compute_transition_scores(output.sequences, output.scores, beams, normalize_logits=search.beam_size == 1)
    is_eos = output.sequences[:, -steps.shape[1] :] == model.llm.tokens.eos_id
    padding = is_eos.cumsum(1) - is_eos.long() > 0  # by place, not by id: EOS itself pads where the LLM has no token for it
    return steps.masked_fill(padding, 0.0).nan_to_num(neginf=0.0).sum(1)


def _hypothesis(model: AVSRLLM, ids: list[int], score: float, limit: int, pass_: Pass, read: int) -> Hypothesis:
    eos = model.llm.tokens.eos_id
    ids = ids[: ids.index(eos)] if eos in ids else ids
    return Hypothesis(model.llm.tokens.decode(ids).strip(), ids, score, len(ids) >= limit, pass_.task, dict(pass_.rates), read)
