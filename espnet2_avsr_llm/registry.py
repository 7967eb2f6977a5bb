"""Build a part by name from its family's registry, with its options checked where they enter."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from typing import Any, Callable, Mapping


def nearest(word: str, known) -> str:
    """`` (did you mean 'x'?)``, or nothing when no known word is near."""
    near = get_close_matches(word, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def construct(family: Mapping[str, Callable], name: str, conf: Mapping[str, Any], /, **given: Any):
    """``family[name](**given, **conf)``.

    Args:
        family: one registry, such as ``frontend.FRONTENDS``.
        name: the class asked for.
        conf: the user's options (``--PART_conf``).
        given: arguments that the program itself supplies; they are not options.

    Raises:
        ValueError: unknown name or option; the message names the nearest known one.
    """
    if name not in family:
        raise ValueError(f"Unknown {name!r}{nearest(name, family)}; known: {', '.join(family)}")
    cls = family[name]
    options = [p for p in inspect.signature(cls).parameters if p not in given]
    for key in conf:
        if key not in options:
            raise ValueError(f"{name} has no option {key!r}{nearest(key, options)}; its options: {', '.join(options)}")
    return cls(**given, **conf)
