"""Transcripts in one written form: Unicode NFKC, lower case, words of letters, digits and apostrophes.

References of all sets go through it once, in data preparation; nothing changes them later.
"""

import re
import unicodedata

_TAG = re.compile(r"\{[A-Z]{1,3}\}")  # noises of LRS: {LG} laughter, {NS} noise; auto_avsr keeps their letters as words
_APOSTROPHES = dict.fromkeys(map(ord, "’‘ʼ`´＇"), "'")
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}\b)")  # 1,000


def normalise(text: str) -> str:
    """Bring a transcript into the form that models are trained on and scored by.

    Noise tags go; curly apostrophes become straight ones; accents and the marks of other scripts stay; a decimal point
    stays; other punctuation, symbols and emoji become spaces; invisible characters go.

    Args:
        text: as the corpus has it, tabs and line ends included.

    Returns:
        lower-case words with one space between, empty if there is none. Another pass changes nothing.
    """
    text = unicodedata.normalize("NFKC", _TAG.sub(" ", text).translate(_APOSTROPHES)).translate(_APOSTROPHES)
    text = unicodedata.normalize("NFKC", _GROUPED.sub("", text).lower())
    kept = "".join(_kept(text, i) for i in range(len(text)))
    words = (word for word in kept.split() if any(c.isalnum() for c in word))
    return unicodedata.normalize("NFC", " ".join(words))


def _kept(text: str, i: int) -> str:
    """What becomes of the character ``text[i]``."""
    c, kind = text[i], unicodedata.category(text[i])
    if c.isalnum() or c == "'" or (kind in ("Mn", "Mc") and not 0xFE00 <= ord(c) <= 0xFE0F):
        return c
    if c == "." and text[i - 1 : i].isdigit() and text[i + 1 : i + 2].isdigit():
        return c
    return "" if kind in ("Cf", "Mn") else " "
