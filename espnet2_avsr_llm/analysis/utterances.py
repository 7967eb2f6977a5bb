"""The utterances that an analysis looks at: inputs from a dumped data directory, through the encoders, and names for the tokens."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np
import torch

from espnet2_avsr_llm.data.collate import collate
from espnet2_avsr_llm.data.preprocess import eval_inputs
from espnet2_avsr_llm.frontend.abs_frontend import Lengthed
from espnet2_avsr_llm.inference.speech2text import INPUTS_PER_SECOND, ROI_SIZE
from espnet2_avsr_llm.model import AVSRLLM
from espnet2_avsr_llm.pass_plan import TASKS
from espnet2_avsr_llm.sequence import Role

NOTHING = {"speech": np.zeros(0, np.float32), "video": np.zeros((0, ROI_SIZE, ROI_SIZE), np.uint8)}


@dataclass
class Utterance:
    """One utterance behind the encoders.

    Attributes:
        utt: its id.
        features: of ``model.encode``, a batch of one.
        seconds: its duration.
    """

    utt: str
    features: dict[str, Lengthed]
    seconds: float


def encode(model: AVSRLLM, utt: str, inputs: dict[str, np.ndarray | None]) -> Utterance:
    """Run the encoders on the arrays of one utterance (``speech`` (T,), ``video`` (T, 96, 96) uint8; None where there is none)."""
    given = {name: NOTHING[name] if x is None else x for name, x in inputs.items()}
    batch = collate([(utt, eval_inputs(given.get("speech"), given.get("video")))])[1]
    with torch.no_grad():
        features = model.encode(model.inputs({name: x.to(model.device) for name, x in batch.items()}))
    return Utterance(utt, features, max(len(x) / INPUTS_PER_SECOND[name] for name, x in given.items()))


def read(model: AVSRLLM, data_dir: Path, noise_dir: Path | None, condition: str, utts: Sequence[str]) -> Iterator[Utterance]:
    """Encode utterances of a data directory one after the other; what is too long for an encoder is left out with a warning.

    Args:
        model: the model.
        data_dir: dumped: ``wav.scp``, ``video.scp``.
        noise_dir: folder of noise lists.
        condition: ``clean``, or the name of a noise list.
        utts: ids.
    """
    from espnet2_avsr_llm.bin.avsr_llm_inference import Loader, read_data_dir

    names = sorted({name for f in model.frontends.values() for name in f.inputs})
    load = Loader(read_data_dir(data_dir), names, None if condition == "clean" else Path(noise_dir) / f"{condition}.txt")
    limits = [f.max_inputs / INPUTS_PER_SECOND[f.inputs[0]] for f in model.frontends.values() if f.max_inputs]
    for utt in utts:
        inputs = {name: load(utt, name) for name in names}
        seconds = max(len(x) / INPUTS_PER_SECOND[name] for name, x in inputs.items() if x is not None)
        if seconds > min(limits, default=seconds):
            logging.warning(f"{utt} ({seconds:.1f} s) is left out: an encoder takes {min(limits):g} s")
            continue
        yield encode(model, utt, inputs)


def spread(utts: Sequence[str], number: int) -> list[str]:
    """``number`` ids evenly spaced over the list; all of them where there are no more."""
    return [utts[i] for i in np.linspace(0, len(utts) - 1, min(number, len(utts))).round().astype(int)]


def token_names(model: AVSRLLM, roles: Sequence[int], text_ids: Sequence[int] = ()) -> list[str]:
    """A name for each token: vocabulary entries, and ``audio 3`` or ``video 0`` for those of the streams.

    Args:
        model: gives the vocabulary and the prompts.
        roles: a :class:`Role` for each position of one row without padding.
        text_ids: ids of the positions of role TEXT.
    """
    roles = [Role(r) for r in roles]
    tokens = model.llm.tokens
    streams = [s for s in ("audio", "video") if Role[s.upper()] in roles]
    task = next((t for t, needed in TASKS.items() if needed == set(streams)), None)
    ids = {
        Role.BOS: [tokens.bos_id],
        Role.DELIMITER: [i for s in streams for i in tokens.delimiter_ids(s)],
        Role.PROMPT: tokens.prompt_ids(task) if task else [],
        Role.TEXT: list(text_ids),
    }
    left = {role: iter(tokens.pieces(found)) for role, found in ids.items()}
    left |= {Role[s.upper()]: iter(f"{s} {n}" for n in range(len(roles))) for s in streams}
    return [next(left[role]) for role in roles]
