"""From an experiment folder that was converted from a released checkpoint back to its authors' layout."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from espnet2_avsr_llm import checkpoint
from espnet2_avsr_llm.config import load_config
from espnet2_avsr_llm.convert.released.experiment import CHECKPOINT, CONFIG, RECORD, REST
from espnet2_avsr_llm.convert.released.names import MODEL, UNUSED
from espnet2_avsr_llm.convert.released.sources import KINDS
from espnet2_avsr_llm.hub.build import torch_dtype
from espnet2_avsr_llm.hub.resolve import SourceError, resolve
from espnet2_avsr_llm.inference.load import locate


def describe(folder: Path | str) -> str:
    """What the conversion inferred, and where the tensors went, for a person."""
    folder = Path(folder)
    places = Counter(file for file, _ in {tuple(piece) for entry in _record(folder).values() for piece in entry["pieces"]})
    counts = ", ".join(f"{file} {n}" for file, n in sorted(places.items()))
    return f"{folder}: tensors by place: {counts}\n{(folder / CONFIG).read_text(encoding='utf-8')}"


def to_released(folder: Path | str, model_file: Path | str | None = None) -> dict[str, Tensor]:
    """The state dict in its authors' layout: of an untouched folder, bit by bit what was converted.

    Args:
        folder: the experiment.
        model_file: a checkpoint trained further from it, instead of its own.

    Raises:
        SourceError: the folder was not converted from a released checkpoint.
    """
    folder = Path(folder)
    record, config = _record(folder), load_config(folder / CONFIG)
    formats = {file: entry["dtype"] for entry in record.values() for file, _ in entry["pieces"] if entry["dtype"] != "int64"}
    files = {MODEL: checkpoint.load(model_file or folder / CHECKPOINT), UNUSED: load_file(folder / REST)}
    files |= {part: _source_tensors(folder, part, config, number) for part, number in formats.items() if part not in files}
    return {name: _joined([files[file][n] for file, n in entry["pieces"]], entry["dtype"]) for name, entry in record.items()}


def _record(folder: Path) -> dict[str, dict[str, Any]]:
    if not (folder / RECORD).is_file():
        raise SourceError(f"{folder} has no {RECORD}: expected a folder that avsr-llm convert made from a released checkpoint")
    return json.loads((folder / RECORD).read_text(encoding="utf-8"))


def _source_tensors(folder: Path, part: str, config: dict[str, Any], number: str) -> dict[str, Tensor]:
    """Tensors of a pretrained part: those written beside the experiment, or the user's source."""
    if (folder / "sources" / part).is_dir():
        return load_file(folder / "sources" / part / "model.safetensors")
    kind = KINDS["llm" if part == "llm" else config[part]]
    return kind.load(str(resolve(locate(config[f"{part}_conf"]["source"], folder / CONFIG))), torch_dtype(number)).state_dict()


def _joined(pieces: list[Tensor], number: str) -> Tensor:
    dtype = getattr(torch, number)
    return torch.cat([piece.to(dtype) for piece in pieces]) if len(pieces) > 1 else pieces[0].to(dtype)
