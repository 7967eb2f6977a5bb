"""The utterances that an analysis looks at, behind the encoders, and names for their tokens."""

from __future__ import annotations

import logging
from typing import Callable, Collection, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from espnet2_avsr_llm.inference.speech2text import Encoded, Speech2Text
from espnet2_avsr_llm.llm.tokens import DELIMITERS
from espnet2_avsr_llm.model import AVSRLLM, ROLES
from espnet2_avsr_llm.pass_plan import task_of
from espnet2_avsr_llm.sequence import Role


def read(
    speech2text: Speech2Text, load: Callable[[str, str], np.ndarray | None], utts: Sequence[str], done: Collection[str] = ()
) -> Iterator[tuple[str, Encoded]]:
    """Encode utterances one after the other, with a progress bar; one that cannot be looked at whole is left out with a warning.

    Args:
        speech2text: the model.
        load: gives the array of an utterance's ``speech`` or ``video``, None where there is none.
        utts: ids.
        done: those that are not needed any more.

    Raises:
        ValueError: all are left out.
    """
    left = [utt for utt in utts if utt not in done]
    found = len(utts) - len(left)
    for utt in tqdm(left, unit="utt"):
        try:
            encoded = speech2text.encode(**{name: load(utt, name) for name in speech2text.names})
        except ValueError as e:
            logging.warning(f"{utt} is left out: {e}")
            continue
        found += 1
        yield utt, encoded
    if not found:
        raise ValueError(f"None of the {len(utts)} utterances can be looked at; the warnings above say why")


def spread(utts: Sequence[str], number: int) -> list[str]:
    """``number`` ids evenly spaced over the list; all of them where there are no more."""
    return [utts[i] for i in np.linspace(0, len(utts) - 1, min(number, len(utts))).round().astype(int)]


def token_names(model: AVSRLLM, roles: Sequence[int]) -> list[str]:
    """A name for each token of a prefix: vocabulary entries, and ``audio 3`` or ``video 0`` for those of the streams.

    Args:
        model: gives the vocabulary and the prompts.
        roles: a :class:`Role` for each position of one row without padding and text.
    """
    tokens = model.llm.tokens
    streams = [s for s in ROLES if ROLES[s] in roles]
    ids = {
        Role.BOS: [tokens.bos_id],
        Role.DELIMITER: [i for s in streams if s in DELIMITERS for i in tokens.delimiter_ids(s)],
        Role.PROMPT: tokens.prompt_ids(task_of(streams)),
    }
    left = {role: iter(tokens.pieces(found)) for role, found in ids.items() if role in roles}
    left |= {ROLES[s]: (f"{s} {n}" for n in range(len(roles))) for s in streams}
    return [next(left[Role(role)]) for role in roles]
