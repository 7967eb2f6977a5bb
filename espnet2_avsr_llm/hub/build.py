"""How a pretrained module comes to be: read from its source, or built at random from the facts of an architecture."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from espnet2_avsr_llm.hub.resolve import SourceError, arch as read_arch, commit_of, resolve, source_of

_SHOWN = 3  # names that an error lists


def torch_dtype(name: str) -> torch.dtype:
    """The floating-point dtype called ``name``.

    Raises:
        ValueError: not float32 or bfloat16 (float16 rounds differently from bfloat16, so a source could not be recognised).
    """
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"dtype {name!r}: expected float32 or bfloat16")
    return getattr(torch, name)


def build(
    source: str | None,
    init: str,
    arch: str | None,
    revision: str | None,
    dtype: torch.dtype,
    load: Callable[[str, torch.dtype], nn.Module],
    random: Callable[[dict], nn.Module],
) -> tuple[nn.Module, str, str]:
    """Build a module.

    Random weights are drawn from a seed of their own, so that they too can be rebuilt from their recorded source. On ``meta``
    a source gives its configuration only.

    Args:
        load: reads a folder in a dtype.
        random: builds the module of an architecture's configuration.

    Returns:
        The module, the source to record (``source``, or ``random:ARCH``), and the commit of a hub id.

    Raises:
        SourceError: what ``init`` needs is not given, or the source is missing or damaged.
    """
    if init == "random":
        if arch is None:
            raise SourceError("init: random needs arch, the name of a file of espnet2_avsr_llm/arch")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return random(read_arch(arch)).to(dtype), f"random:{arch}", ""
    if init != "pretrained":
        raise SourceError(f"init {init!r}: expected pretrained or random")
    source = source_of(source, arch)
    folder = resolve(source, revision)
    with reading(folder):
        if torch.get_default_device().type == "meta":
            return random(read_config(folder)).to(dtype), source, commit_of(folder)
        return load(str(folder), dtype), source, commit_of(folder)


@contextmanager
def reading(folder: Path | str):
    """Turn what libraries raise over missing, truncated, contradictory or malicious files of a folder into a :class:`SourceError`."""
    from safetensors import SafetensorError

    try:
        yield
    except (SourceError, torch.OutOfMemoryError):
        raise
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, ImportError, EOFError, pickle.UnpicklingError, SafetensorError) as e:
        raise SourceError(f"{folder} cannot be loaded ({type(e).__name__}: {e}). If its files are damaged, fetch them again") from e


def read_config(folder: Path | str) -> dict:
    """``config.json`` of a folder."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise SourceError(f"{folder} has no config.json: expected the folder of a pretrained model")
    config = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise SourceError(f"{path} holds {type(config).__name__}, expected a JSON object")
    return config


def from_folder(model_class, folder: str, **options) -> nn.Module:
    """``model_class.from_pretrained`` of transformers, which alone would draw missing tensors at random and go on.

    Raises:
        SourceError: tensors are missing or of another shape.
    """
    with _quiet():  # a report of every tensor that is not used, such as Whisper's whole decoder
        model, info = model_class.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    wrong = [f"{name} {list(found)}, expected {list(expected)}" for name, found, expected in sorted(info["mismatched_keys"])]
    if wrong:
        raise SourceError(f"{folder} contradicts its config.json: size mismatch of {len(wrong)} tensors, such as {'; '.join(wrong[:_SHOWN])}")
    missing = sorted(info["missing_keys"])
    if missing:
        raise SourceError(f"{folder} lacks {len(missing)} tensors of its {type(model).__name__}, such as {', '.join(missing[:_SHOWN])}")
    return model


@contextmanager
def _quiet():
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
