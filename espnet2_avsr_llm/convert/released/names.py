"""Names of the released checkpoints and ours: where each tensor of a released state dict lies here (system specification 0.10).

An experiment keeps tensors in several files: the source folder of each pretrained part (named as the part), the checkpoint
(``model``), and ``unused`` for what the model does not need but the way back does.
"""

from __future__ import annotations

import re

from espnet2_avsr_llm.convert.released.facts import LORA, Facts
from espnet2_avsr_llm.hub.resolve import SourceError

MODEL, UNUSED = "model", "unused"
PARTS = {"audio_encoder": "audio_frontend", "video_encoder": "video_frontend", "audiovisual_encoder": "video_frontend", "llm": "llm"}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ADDED_ROWS = {EMBEDDING: "llm.added_input_rows", HEAD: "llm.added_output_rows"}
# AV-HuBERT's pre-training heads, and buffers that are computed
UNUSED_NAMES = re.compile(r"prompt_\w+|\w+_encoder\.(mask_emb|label_embs_concat|final_proj\.\w+)|llm\..*\binv_freq")
SETS = {"": "shared", "_shared": "shared", ".audio": "task_asr", ".video": "task_vsr", ".audiovisual": "task_avsr"}

Piece = tuple[str, str]  # file, name


def pieces(name: str, facts: Facts, tied: bool) -> list[Piece]:
    """Where a released tensor lies: the tensors here whose rows, one after another, are its rows.

    Args:
        name: in the released state dict.
        facts: of the checkpoint.
        tied: the LLM's head is its embedding.

    Raises:
        SourceError: no such tensor belongs to these systems.
    """
    if UNUSED_NAMES.fullmatch(name):
        return [(UNUSED, name)]
    prefix, _, rest = name.partition(".")
    if prefix == "llm" and rest in ADDED_ROWS:
        rest = EMBEDDING if tied else rest
        return [("llm", rest), (MODEL, ADDED_ROWS[rest])]
    if prefix in PARTS:
        return [_lora(prefix, rest) or (PARTS[prefix], rest)]
    for stream, projector in facts.projectors.items():
        for i, released in enumerate(projector.prefixes):
            if name.startswith(f"{released}."):
                rate = f".{facts.rates[stream][i]}" if projector.indexed else ""
                ours = f"experts.shared.{i}" if projector.experts else f"streams.{stream}{rate}"
                return [(MODEL, f"projector.{ours}{name[len(released) :]}")]
    if name == "audiovisual_proj.gate.weight":
        return [(MODEL, "projector.routers.shared.weight")]
    raise SourceError(f"The checkpoint has a tensor {name!r}, which no released system has")


def _lora(prefix: str, name: str) -> Piece | None:
    """PEFT's name of a LoRA matrix: ``down`` is A, ``up`` is B."""
    match = LORA.fullmatch(name)
    if match is None:
        return None
    module, matrix, letter, suffix = match.groups(default="")
    owner, lora_set = ("llm.model", SETS[suffix]) if prefix == "llm" else (f"frontends.{PARTS[prefix]}.encoder", "default")
    return MODEL, f"{owner}.{module}.{letter.lower()}_proj.lora_{'A' if matrix == 'down' else 'B'}.{lora_set}.weight"
