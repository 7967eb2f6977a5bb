"""Sentences of the GRID grammar: command, colour, preposition, letter, digit, adverb.

Cooke et al., "An audio-visual corpus for speech perception and automatic speech recognition", JASA 120(5), 2006.
"""

import zlib

import numpy as np

SLOTS: tuple[tuple[str, ...], ...] = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("abcdefghijklmnopqrstuvxyz"),  # GRID leaves out w, whose name has three syllables
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)
# What the synthesiser is given where it would not say the letter's name: "a" is an article to it, "z" depends on the accent.
SPOKEN = {"a": "[['eI]]", "z": "zed"}
TEST_SHARE = 10  # one sentence in ten is kept for the test split


def is_test_sentence(words: list[str]) -> bool:
    """Whether a sentence belongs to the test split alone (a hash, so that no grammar rule gives it away)."""
    return zlib.crc32(" ".join(words).encode()) % TEST_SHARE == 0


def draw_sentence(generator: np.random.Generator, test: bool) -> list[str]:
    """Draw six words, uniform over the sentences of the test split or of the others.

    Args:
        generator: source of the draw.
        test: draw among the sentences kept for testing.

    Returns:
        Six lower-case words.
    """
    while True:
        words = [slot[generator.integers(len(slot))] for slot in SLOTS]
        if is_test_sentence(words) == test:
            return words


def spoken(word: str) -> str:
    """The word as the synthesiser must read it."""
    return SPOKEN.get(word, word)
