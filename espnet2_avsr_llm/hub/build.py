"""How a pretrained module comes to be: read from its source, or built at random from the facts of an architecture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from espnet2_avsr_llm.hub.resolve import SourceError, arch as read_arch, resolve


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
) -> tuple[nn.Module, str]:
    """Build a module.

    Random weights are drawn from a seed of their own, so that they too can be rebuilt from their recorded source.

    Args:
        load: reads a folder in a dtype.
        random: builds the module of an architecture's configuration.

    Returns:
        The module and the source to record: ``source``, or ``random:ARCH``.

    Raises:
        SourceError: what ``init`` needs is not given, or the source is missing.
    """
    if init == "random":
        if arch is None:
            raise SourceError("init: random needs arch, the name of a file of espnet2_avsr_llm/arch")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return random(read_arch(arch)).to(dtype), f"random:{arch}"
    if init != "pretrained":
        raise SourceError(f"init {init!r}: expected pretrained or random")
    if source is None:
        source = read_arch(arch).get("_name_or_path") if arch else None
    if not source:
        raise SourceError("init: pretrained needs source (a folder or a hub id), or an arch that names its hub id")
    return load(str(resolve(source, revision)), dtype), source
