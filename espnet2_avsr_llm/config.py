"""Read a training configuration outside of ESPnet's parser, with the same ``--PART_conf key=value`` overrides."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Iterable

import yaml

PARTS = ("audio_frontend", "video_frontend", "compression", "projector", "llm", "adapter", "plan")

NONE = ("none", "null", "nil")  # as ESPnet takes them


def add_part_options(parser: argparse.ArgumentParser) -> None:
    """Give a program ``--config``, ``--PART`` and ``--PART_conf`` with the meaning they have in training."""
    parser.add_argument("--config", required=True, help="training configuration")
    for part in PARTS:
        parser.add_argument(f"--{part}", metavar="NAME", help=f"another {part}, or none")
        parser.add_argument(f"--{part}_conf", action="append", default=[], metavar="KEY=VALUE", help=f"option of the {part}")


def from_options(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration that the options of :func:`add_part_options` describe."""
    config = load_config(args.config)
    for part in PARTS:
        name = getattr(args, part)
        if name:
            config[part] = None if name.lower() in NONE else name
        config = override(config, f"{part}_conf", getattr(args, f"{part}_conf"))
    return config


def load_config(path: Path | str) -> dict[str, Any]:
    """The YAML mapping of a file; ``PART_conf`` entries of its parts that are absent or null are empty."""
    with open(path, encoding="utf-8") as f:
        config = yaml.safe_load(f)
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected a YAML mapping of options, found {type(config).__name__}")
    return config | {f"{part}_conf": config.get(f"{part}_conf") or {} for part in PARTS}


def override(config: dict[str, Any], key: str, assignments: Iterable[str]) -> dict[str, Any]:
    """``config`` with ``key`` updated by ``name=value`` or ``a.b=value``; values are YAML.

    Raises:
        ValueError: an assignment without ``=``.
    """
    conf = dict(config.get(key) or {})
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ValueError(f"--{key} {assignment}: expected KEY=VALUE")
        *groups, last = name.split(".")
        level = conf
        for group in groups:
            level[group] = level = dict(level.get(group) or {})
        level[last] = yaml.safe_load(value)
    return {**config, key: conf}
