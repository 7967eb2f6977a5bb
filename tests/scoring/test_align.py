"""The alignment is the cheapest one under sclite's weights, with sclite's choice among equals."""

from functools import lru_cache

from hypothesis import given
from hypothesis import strategies as st

from espnet2_avsr_llm.scoring.align import align
from espnet2_avsr_llm.scoring.error_rate import Counts

TOKENS = st.lists(st.sampled_from("abcd"), max_size=7).map(tuple)


@lru_cache(maxsize=None)
def cheapest(ref, hyp):
    """Least cost by trying every last step."""
    if not ref or not hyp:
        return 3 * (len(ref) + len(hyp))
    last = 0 if ref[-1] == hyp[-1] else 4
    return min(cheapest(ref[:-1], hyp[:-1]) + last, cheapest(ref[:-1], hyp) + 3, cheapest(ref, hyp[:-1]) + 3)


def ops(ref, hyp):
    return "".join(step.op for step in align(ref.split(), hyp.split()))


@given(TOKENS, TOKENS)
def test_cost_is_the_brute_force_minimum(ref, hyp):
    counts = Counts.of(align(ref, hyp))
    assert 4 * counts.substituted + 3 * (counts.deleted + counts.inserted) == cheapest(ref, hyp)


@given(TOKENS, TOKENS)
def test_steps_spell_both_sequences(ref, hyp):
    steps = align(ref, hyp)
    assert tuple(step.ref for step in steps if step.ref is not None) == ref
    assert tuple(step.hyp for step in steps if step.hyp is not None) == hyp
    assert all((step.op == "C") == (step.ref == step.hyp) for step in steps)


def test_ties_prefer_diagonal_then_deletion():
    assert ops("a b c", "c x y") == "SSS"  # deleting two and inserting two costs 12 as well
    assert ops("a", "b c") == "IS"  # the substitution is taken from the right
    assert ops("a b", "b a") == "ICD"  # read from the right, a deletion comes before an insertion


def test_weights_can_give_more_errors_than_levenshtein():
    assert ops("a b c d e", "d e x y z") == "DDDCCIII"  # five substitutions would cost 20, this costs 18


def test_empty_sides():
    assert ops("", "") == ""
    assert ops("a b", "") == "DD"
    assert ops("", "a b") == "II"
