"""Batches as a budget of LLM tokens and a cap on frames (contract 11)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet2_avsr_llm.data.batching import read_lengths, token_batches

CORPUS = st.dictionaries(st.text("abc", min_size=1, max_size=4), st.tuples(st.integers(1, 100), st.integers(0, 50)), min_size=1, max_size=40)


def size(batch, lengths, which):
    """Tokens (0) or frames (1) of a padded batch."""
    return len(batch) * max(lengths[u][which] for u in batch)


@given(CORPUS, st.integers(100, 400), st.one_of(st.none(), st.integers(50, 200)))
def test_no_batch_exceeds_the_budget_and_nobody_is_lost(lengths, tokens, frames):
    batches = token_batches(lengths, tokens, frames)
    assert sorted(u for b in batches for u in b) == sorted(lengths)
    for batch in batches:
        assert size(batch, lengths, 0) <= tokens
        assert frames is None or size(batch, lengths, 1) <= frames


@given(CORPUS, st.integers(100, 400), st.integers(2, 4))
def test_every_rank_gets_an_utterance(lengths, tokens, world):
    if len(lengths) < world:
        with pytest.raises(ValueError, match=f"{len(lengths)} utterances for {world} processes"):
            token_batches(lengths, tokens, None, world)
        return
    batches = token_batches(lengths, tokens, None, world)
    assert sorted(u for b in batches for u in b) == sorted(lengths)
    assert all(len(b) >= world for b in batches)
    # only what min_size forces may exceed the budget
    assert all(size(b, lengths, 0) <= tokens or len(b) < 2 * world for b in batches)


def test_batches_by_hand():
    lengths = {"a": (10, 4), "b": (9, 9), "c": (5, 1), "d": (5, 2), "e": (1, 1)}
    assert token_batches(lengths, 20, None) == [["a", "b"], ["d", "c", "e"]]
    assert token_batches(lengths, 20, 9) == [["a"], ["b"], ["d", "c", "e"]]
    assert token_batches(lengths, 20, None, min_size=3) == [["a", "b", "d", "c", "e"]]


def test_order_does_not_matter():
    lengths = {u: (n % 3 + 1, 1) for n, u in enumerate("abcdefgh")}
    assert token_batches(lengths, 6, None) == token_batches(dict(sorted(lengths.items(), reverse=True)), 6, None)


@pytest.mark.parametrize("lengths,message", [({"u1": (101, 5)}, "u1 has 101 LLM tokens"), ({"u2": (9, 51)}, "u2 has 9 LLM tokens and 51 frames")])
def test_what_cannot_fit_is_named(lengths, message):
    with pytest.raises(ValueError, match=f"{message}.*batch_bins"):
        token_batches(lengths, 100, 50)


@pytest.mark.parametrize("line", ["utt 5", "utt 5,x", "utt 5,6,7", "5,6", ""])
def test_bad_length_files_name_the_line(tmp_path, line):
    (tmp_path / "shape").write_text(f"good 1,2\n{line}\n")
    with pytest.raises(ValueError, match=r"shape:2: expected 'utterance tokens,frames'"):
        read_lengths(tmp_path / "shape")
