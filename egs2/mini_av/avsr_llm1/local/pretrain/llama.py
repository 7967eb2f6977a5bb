"""Llama-mini: tokenizer, sizes, and how it learns to read phone symbols as text.

Shapes: `B` batch, `n` symbols, `P` phones, `D` LLM width.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from corpus.grammar import SLOTS
from corpus.phones import LABELS
from espnet2_avsr_llm.llm.tokens import PROMPTS
from espnet2_avsr_llm.sequence import IGNORE, LLMInput, Role, Segment, lay_out
from pretrain.fit import fit
from pretrain.symbols import Splicer

SIZES = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
TASKS = {"asr": {"audio": 50}, "vsr": {"video": 25}, "avsr": {"audio": 50, "video": 25}}
NOISE = 0.1  # standard deviation of what is added to symbols, as a share of theirs: a projector will not hit them exactly


def symbol(stream: str, phone: str) -> str:
    """Token of a phone in a stream."""
    return f"<{stream}:{phone}>"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every word of the corpus and the prompts is one token, and phone symbols are special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<s>", "</s>", *(symbol(stream, phone) for stream in ("audio", "video") for phone in LABELS)]
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    words = [word for slot in SLOTS for word in slot]
    tokenizer.train_from_iterator([*words, *(f" {word}" for word in words), *PROMPTS.values()], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


class Reader(nn.Module):
    """The language model and the layout of its input, which is the recipe's."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.tokenizer = tokenizer
        ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        self.model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **ids, **SIZES))
        self.symbols = {s: tokenizer.convert_tokens_to_ids([symbol(s, p) for p in LABELS]) for s in ("audio", "video")}

    def embed(self, ids: list[int]) -> Tensor:
        return self.model.get_input_embeddings()(torch.tensor(ids))

    def prefix(self, task: str, streams: dict[str, Tensor]) -> list[Segment]:
        """BOS, the streams between delimiters, the prompt.

        The recipe's delimiters are rows that no training ever sees, so here they are drawn anew each time.
        """
        segments: list[Segment] = [(Role.BOS, self.embed([self.tokenizer.bos_token_id]), None)]
        for stream, tokens in streams.items():
            start, end = torch.randn(2, 1, tokens.size(1)) * self.model.config.initializer_range
            segments += [(Role.DELIMITER, start, None), (Role[stream.upper()], tokens, None), (Role.DELIMITER, end, None)]
        prompt = self.tokenizer(PROMPTS[task], add_special_tokens=False)["input_ids"]
        return [*segments, (Role.PROMPT, self.embed(prompt), None)]

    def symbol_tokens(self, stream: str, symbols: np.ndarray) -> Tensor:
        """Embeddings ``(n, D)``: the mean of the phones' by their probabilities ``(n, P)``."""
        return torch.from_numpy(symbols).float() @ self.embed(self.symbols[stream])

    def batch(self, splicer: Splicer, size: int, rng: np.random.Generator) -> LLMInput:
        """A random batch of all three tasks."""
        rows = []
        for i in range(size):
            task = list(TASKS)[i % len(TASKS)]
            text, symbols = splicer.draw(TASKS[task], rng)
            streams = {stream: self._disturbed(self.symbol_tokens(stream, x)) for stream, x in symbols.items()}
            ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
            rows.append([*self.prefix(task, streams), (Role.TEXT, self.embed(ids), torch.tensor(ids))])
        return lay_out(rows)

    def _disturbed(self, tokens: Tensor) -> Tensor:
        return tokens + NOISE * tokens.detach().std() * torch.randn_like(tokens)

    def loss(self, batch: LLMInput) -> Tensor:
        """Mean cross-entropy of the text and its end."""
        keep = batch.num_labels + 1
        logits = self.model(
            inputs_embeds=batch.inputs_embeds,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            logits_to_keep=keep,
            use_cache=False,
        ).logits
        return F.cross_entropy(logits[:, :-1].transpose(1, 2), batch.labels[:, 1 - keep :], ignore_index=IGNORE)

    def train_on(self, splicer: Splicer, steps: int, batch: int, peak_lr: float, seed: int) -> None:
        """Train the whole language model."""
        rng = np.random.default_rng(seed)
        fit(self.model.parameters(), lambda: self.loss(self.batch(splicer, batch, rng)), steps, peak_lr)

    @torch.no_grad()
    def losses(self, splicer: Splicer, seed: int) -> float:
        """Mean loss over random batches, for the figures of the README."""
        rng = np.random.default_rng(seed)
        return float(np.mean([self.loss(self.batch(splicer, 48, rng)).item() for _ in range(4)]))

    def save(self, folder: Path) -> None:
        """Write model (half precision) and tokenizer in Hugging Face's format."""
        self.tokenizer.save_pretrained(folder)
        self.model.half().save_pretrained(folder)
        self.model.float()
