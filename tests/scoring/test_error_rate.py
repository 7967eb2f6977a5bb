"""Totals, the interval, empty references, and the cross-check by jiwer."""

import dataclasses

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet2_avsr_llm.scoring import error_rate as er

WORDS = st.lists(st.sampled_from(["set", "bin", "blue", "at", "f"]), max_size=8).map(" ".join)
CORPUS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6)


def scored(pairs, tokenize=er.words):
    refs = {f"u{i}": ref for i, (ref, _) in enumerate(pairs)}
    hyps = {f"u{i}": hyp for i, (_, hyp) in enumerate(pairs)}
    return er.error_rate(er.align_corpus(refs, hyps, tokenize))


def test_hand_computed_case():
    rate = scored([("bin blue at f two now", "bin red at f now"), ("Set White", "SET white"), ("", "so"), ("a", "a")])
    assert dataclasses.astuple(rate.counts) == (7, 1, 1, 1)
    assert (rate.sentences, rate.wrong_sentences, rate.empty_references) == (4, 2, 1)
    assert rate.percent == pytest.approx(100 * 3 / 9)
    assert rate.wrong_sentences_percent == 50


def test_character_error_rate_counts_the_space():
    rate = scored([("at f", "at  F"), ("at f", "atf")], er.characters)
    assert dataclasses.astuple(rate.counts) == (7, 0, 1, 0)


@given(CORPUS)
def test_agrees_with_jiwer_within_the_proven_bound(pairs):
    spoken = [pair for pair in pairs if pair[0]]
    if not spoken:
        with pytest.raises(ValueError, match="no reference|No reference"):
            scored(pairs)
        return
    rate = scored(pairs)  # raises where the bound does not hold
    out = jiwer.process_words([r for r, _ in spoken], [h for _, h in spoken])
    silent = sum(len(hyp.split()) for ref, hyp in pairs if not ref)
    assert rate.minimum_errors == out.substitutions + out.deletions + out.insertions + silent
    if rate.counts.substituted == out.substitutions:
        assert rate.counts.errors == rate.minimum_errors


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=3))
def test_any_unicode_text_scores_or_is_refused_as_empty(pairs):
    for tokenize in (er.words, er.characters):
        if any(tokenize(ref) for ref, _ in pairs):
            assert scored(pairs, tokenize).counts.tokens == sum(len(tokenize(ref)) for ref, _ in pairs)


def test_errors_above_the_levenshtein_distance_are_reported_not_refused():
    rate = scored([("a b c d e", "d e x y z")])
    assert (rate.counts.errors, rate.minimum_errors) == (6, 5)


@pytest.mark.parametrize("wrong", [er.Counts(2, 1, 0, 0), er.Counts(1, 0, 2, 2), er.Counts(2, 0, 0, 0)])
def test_wrong_totals_are_caught_by_jiwer(wrong):
    alignments = er.align_corpus({"u": "a b c"}, {"u": "a x y"}, er.words)  # two substitutions
    with pytest.raises(RuntimeError, match="jiwer disagree"):
        er.cross_check(alignments, wrong)


def test_differing_utterances_are_named():
    with pytest.raises(ValueError, match=r"1 without a hypothesis \['u2'\], 1 without a reference \['u3'\]"):
        er.align_corpus({"u1": "a", "u2": "b"}, {"u1": "a", "u3": "b"}, er.words)


def test_interval_is_repeatable_and_covers_the_rate():
    errors, tokens = [0, 1, 2, 0, 3] * 20, [6] * 100
    low, high = er.bootstrap_interval(errors, tokens)
    assert (low, high) == er.bootstrap_interval(errors, tokens)
    assert low < 20 < high
    # normal approximation of the same interval
    half = 1.96 * np.std(errors) / 6 * 100 / np.sqrt(100)
    assert (low, high) == pytest.approx((20 - half, 20 + half), abs=1)


def test_interval_of_a_perfect_corpus_is_zero():
    assert er.bootstrap_interval([0, 0], [3, 4]) == (0, 0)
