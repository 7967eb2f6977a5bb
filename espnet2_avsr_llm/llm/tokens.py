"""Tokenizer with the framework's added tokens and prompts (system specification 0.3).

The delimiters of the audio and video blocks and the padding token are added to whatever tokenizer the LLM comes with.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Mapping

from espnet2_avsr_llm.hub.resolve import SourceError, resolve, source_of

PAD, AUDIO, AUDIO_END, VIDEO, VIDEO_END = ADDED_TOKENS = ("<pad>", "<audio>", "</audio>", "<video>", "</video>")
DELIMITERS = {"audio": (AUDIO, AUDIO_END), "video": (VIDEO, VIDEO_END)}
PROMPTS = {"asr": "Transcribe speech to text.", "vsr": "Transcribe video to text.", "avsr": "Transcribe speech and video to text."}


class Tokens:
    """Text to ids and back, for one LLM.

    Args:
        tokenizer: a Hugging Face tokenizer; the five added tokens are put into it, unless the delimiters are there already (the
            released models of Qwen have no padding token of their own: EOS serves).

    Attributes:
        added_ids: ids of the added tokens, in the order of ``ADDED_TOKENS``.
    """

    def __init__(self, tokenizer):
        if tokenizer.eos_token_id is None:
            raise SourceError(f"The tokenizer {tokenizer.name_or_path!r} names no end-of-sequence token: transcripts could not end")
        if set(ADDED_TOKENS[1:]) <= set(tokenizer.get_added_vocab()):
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        else:
            tokenizer.add_special_tokens({"pad_token": PAD, "additional_special_tokens": list(ADDED_TOKENS[1:])})
        self.tokenizer = tokenizer
        self.added_ids = [i for token, i in sorted(tokenizer.get_added_vocab().items(), key=lambda item: item[1]) if token in ADDED_TOKENS]
        self.bos_id, self.eos_id, self.pad_id = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id

    def __len__(self) -> int:
        return len(self.tokenizer)

    def digest(self) -> str:
        """Of the vocabulary: the id of every token."""
        return hashlib.sha256(json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()[:32]

    def encode(self, text: str) -> list[int]:
        """Ids without BOS and EOS. Text is data: the name of a special token in it is spelled out, never obeyed."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def pieces(self, ids: list[int]) -> list[str]:
        """Vocabulary entries of ids; ``<id>`` where the LLM has more rows than the tokenizer has entries."""
        return [piece if piece is not None else f"<{i}>" for i, piece in zip(ids, self.tokenizer.convert_ids_to_tokens(ids))]

    def delimiter_ids(self, stream: str) -> tuple[int, int]:
        """Ids of a stream's opening and closing token."""
        start, end = self.tokenizer.convert_tokens_to_ids(list(DELIMITERS[stream]))
        return start, end

    def prompt_ids(self, task: str) -> list[int]:
        """Ids of a task's prompt."""
        return self.encode(PROMPTS[task])


def tokens_of(llm_conf: Mapping[str, Any]) -> Tokens:
    """Tokenizer of a configuration's LLM, without the LLM."""
    return load_tokens(**{name: llm_conf[name] for name in ("source", "revision", "init", "arch") if name in llm_conf})


def load_tokens(source: str | None = None, revision: str | None = None, init: str = "pretrained", arch: str | None = None) -> Tokens:
    """Tokenizer of an LLM, from the LLM's own options; a byte tokenizer where the LLM has random weights and no source.

    Raises:
        SourceError: no tokenizer there.
    """
    if init == "random" and source is None:
        return Tokens(byte_tokenizer())
    return Tokens(load_tokenizer(source_of(source, arch), revision))


def load_tokenizer(source: str, revision: str | None = None):
    """The Hugging Face tokenizer of a folder or hub id, as it is there.

    Raises:
        SourceError: no tokenizer there.
    """
    from transformers import AutoTokenizer

    folder = resolve(source, revision)
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, TypeError, LookupError, RuntimeError) as e:
        raise SourceError(f"{folder} holds no tokenizer that transformers can read: {e}") from e


def byte_tokenizer():
    """A tokenizer of the 256 bytes, BOS and EOS, that needs no file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(["<s>", "</s>", *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
