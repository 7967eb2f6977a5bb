"""Random numbers by name: what is drawn depends on the key only, never on process, order or corpus size."""

import hashlib

import numpy as np


def rng(*key: object) -> np.random.Generator:
    """Generator of a named draw.

    Args:
        key: parts of the name, for example ``(seed, split, speaker, index)``.

    Returns:
        A fresh generator; equal keys give equal streams on every machine.
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
