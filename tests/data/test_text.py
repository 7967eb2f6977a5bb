"""Transcripts in one form, whatever a corpus holds."""

import unicodedata

import pytest
from hypothesis import given, strategies as st

from espnet2_avsr_llm.data.text import normalise


@pytest.mark.parametrize(
    "text, expected",
    [
        ("  IT'S THAT SIMPLE\t\n", "it's that simple"),
        ("WE {LG} KNOW {NS}", "we know"),
        ("{WE KNOW} {lg}", "we know lg"),  # words in braces are words, as for auto_avsr
        ("don’t ‘cause it`s", "don't 'cause it's"),
        ("A well-known fact: yes, no; \"quoted\"!", "a well known fact yes no quoted"),
        ("in 1,000 of 3.5 cases, 1,2", "in 1000 of 3.5 cases 1 2"),
        ("e\u0301te\u0301 ÉTÉ", "été été"),  # decomposed accents
        ("ﬁne ＡＢ １２", "fine ab 12"),  # ligatures, full width
        ("go 👨\u200d👩\u200d👧 on ❤\ufe0f", "go on"),  # joined emoji
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("مَرْحَبًا بِالعَالَم!", "مَرْحَبًا بِالعَالَم"),
        ("Καλημέρα, κόσμε", "καλημέρα κόσμε"),
        ("ПРИВЕТ — МИР", "привет мир"),
        ("straße ' ' '", "straße"),
        ("", ""),
        (" \t\u00a0 ... {LG}", ""),
    ],
)
def test_written_form(text, expected):
    assert normalise(text) == unicodedata.normalize("NFC", expected)


@given(st.text(max_size=60))
def test_any_text_comes_to_a_form_that_stays(text):
    found = normalise(text)
    assert normalise(found) == found
    assert found == " ".join(found.split()) and "\n" not in found and "\t" not in found
    assert all(any(c.isalnum() for c in word) for word in found.split())
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "So", "Zl", "Zp") for c in found)


@given(st.lists(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ'", min_size=1, max_size=8).filter(lambda w: w.strip("'")), max_size=8))
def test_plain_words_are_only_lowered(words):
    assert normalise("  ".join(words)) == " ".join(words).lower()
