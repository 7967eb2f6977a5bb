"""Vocabulary of a released checkpoint: the LLM's own rows, those of the added tokens, the head, and the prompts that Omni-AVSR keeps embedded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from espnet2_avsr_llm.convert.released.names import EMBEDDING, HEAD
from espnet2_avsr_llm.convert.released.sources import Source, given_configuration, public_llm
from espnet2_avsr_llm.hub.resolve import SourceError
from espnet2_avsr_llm.llm.tokens import ADDED_TOKENS, Tokens, load_tokenizer

PROMPT_TASKS = {"prompt_audio": "asr", "prompt_video": "vsr", "prompt_audiovisual": "avsr"}


@dataclass(frozen=True)
class Vocabulary:
    """What is known of a checkpoint's vocabulary.

    Attributes:
        tokenizer: the LLM's, as a source folder holds it.
        own: rows of the LLM itself; the added tokens' rows follow.
        tied: the head is the embedding.
    """

    tokenizer: Any
    own: int
    tied: bool


def read_vocabulary(tensors: dict[str, Tensor], llm: Source, tokenizer: str | None) -> Vocabulary:
    """Find the tokenizer and compare it with the rows of the LLM.

    The released programs add five tokens to the tokenizer, but four to Qwen's, which has a padding token. Those four are put
    into the tokenizer of the source, so that no fifth is added to it.

    Args:
        tensors: of the LLM, without prefix.
        llm: the user's source.
        tokenizer: the user's tokenizer, where ``llm`` is no folder.

    Raises:
        SourceError: there is no tokenizer, it is of another size, or the LLM's configuration contradicts its head.
    """
    if EMBEDDING not in tensors:
        raise SourceError(f"The checkpoint lacks llm.{EMBEDDING}: expected the whole model, LLM included")
    given = given_configuration(llm)
    folder = None if llm is None or isinstance(llm, Mapping) else str(llm)
    source = tokenizer or folder or given.get("_name_or_path") or public_llm(tensors).get("_name_or_path")
    if not source:
        raise SourceError("Nothing tells which tokenizer the LLM has: give tokenizer, its folder or hub id, or llm as a folder that has one")
    found = load_tokenizer(source)
    own, rows = len(found), tensors[EMBEDDING].shape[0]
    if rows - own not in (len(ADDED_TOKENS), len(ADDED_TOKENS) - 1):
        raise SourceError(
            f"The tokenizer of {source} has {own} tokens, but the checkpoint's LLM has {rows} rows: expected a tokenizer of {rows - 5}, which the "
            f"five added tokens complete, or of {rows - 4} (Qwen). Give the LLM that was fine-tuned"
        )
    if rows - own == len(ADDED_TOKENS) - 1:
        found.add_special_tokens({"additional_special_tokens": list(ADDED_TOKENS[1:])})
    return Vocabulary(found, own, _is_tied(tensors, given.get("tie_word_embeddings")))


def _is_tied(tensors: dict[str, Tensor], configured: bool | None) -> bool:
    if HEAD not in tensors:
        return True
    same = torch.equal(tensors[HEAD], tensors[EMBEDDING])
    if configured and not same:
        raise SourceError(f"The LLM's configuration ties its head to its embedding, but the checkpoint's llm.{HEAD} differs from llm.{EMBEDDING}")
    return same and configured is not False


def check_prompts(tensors: Mapping[str, Tensor], tokens: Tokens) -> None:
    """Refuse a checkpoint that was trained with other prompts.

    Args:
        tensors: the released state dict.
        tokens: of this model.

    Raises:
        SourceError: an embedded prompt is not that of this program's prompt.
    """
    for name, task in PROMPT_TASKS.items():
        ids = tokens.prompt_ids(task)
        if name in tensors and not torch.equal(tensors[name][0], tensors[f"llm.{EMBEDDING}"][ids]):
            raise SourceError(f"{name} ({tensors[name].shape[1]} tokens) is not the embedding of the prompt of {task} here ({len(ids)} tokens)")
