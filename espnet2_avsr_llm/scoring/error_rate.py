"""Word and character error rates of a corpus, their bootstrap interval, and the cross-check by jiwer.

The interval is the percentile bootstrap over utterances of Bisani and Ney (ICASSP 2004).
"""

from dataclasses import dataclass
from typing import Callable, Mapping, Sequence

import numpy as np

from espnet2_avsr_llm.scoring.align import DELETION, INSERTION, SUBSTITUTION, Step, align


def words(text: str) -> list[str]:
    """Words of a transcript; case is ignored, nothing else is normalised."""
    return text.lower().split()


def characters(text: str) -> list[str]:
    """Characters of a transcript, one `<space>` between words; case is ignored."""
    return ["<space>" if c == " " else c for c in " ".join(words(text))]


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"wer": words, "cer": characters}


@dataclass(frozen=True)
class Counts:
    """Numbers of correct, substituted, deleted and inserted tokens."""

    correct: int
    substituted: int
    deleted: int
    inserted: int

    @classmethod
    def of(cls, steps: Sequence[Step]) -> "Counts":
        """Count the operations of one alignment."""
        ops = [step.op for step in steps]
        return cls(*(ops.count(op) for op in "CSDI"))

    @property
    def tokens(self) -> int:
        """Length of the reference."""
        return self.correct + self.substituted + self.deleted

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substituted + self.deleted + self.inserted


@dataclass(frozen=True)
class ErrorRate:
    """Result of scoring one corpus with one kind of token.

    Attributes:
        sentences: number of utterances.
        wrong_sentences: those with at least one error.
        empty_references: those whose reference holds no token (what was hypothesised for them counts as inserted).
        counts: totals over the corpus.
        minimum_errors: total of the Levenshtein distances (jiwer); sclite's weights can give a little more.
        interval: bounds of the 95 % bootstrap interval of `percent`.
    """

    sentences: int
    wrong_sentences: int
    empty_references: int
    counts: Counts
    minimum_errors: int
    interval: tuple[float, float]

    @property
    def percent(self) -> float:
        """Errors per 100 reference tokens."""
        return self.share(self.counts.errors)

    @property
    def wrong_sentences_percent(self) -> float:
        """Utterances with an error, in percent."""
        return 100.0 * self.wrong_sentences / self.sentences

    def share(self, number: int) -> float:
        """A number of tokens in percent of the reference's length."""
        return 100.0 * number / self.counts.tokens


def align_corpus(
    refs: Mapping[str, str], hyps: Mapping[str, str], tokenize: Callable[[str], list[str]]
) -> dict[str, list[Step]]:
    """Align every utterance.

    Args:
        refs: reference text by utterance id.
        hyps: hypothesis text by utterance id; the same ids.
        tokenize: splits a text into tokens.

    Returns:
        The alignment by utterance id, in the order of `refs`.

    Raises:
        ValueError: when the ids differ, or when no reference holds a token.
    """
    missing, extra = sorted(set(refs) - set(hyps)), sorted(set(hyps) - set(refs))
    if missing or extra:
        raise ValueError(
            f"Hypotheses and references must have the same utterances: {len(missing)} without a hypothesis {missing[:3]}, "
            f"{len(extra)} without a reference {extra[:3]}. Decode the whole set again, or score against its own text file."
        )
    alignments = {utt: align(tokenize(ref), tokenize(hyps[utt])) for utt, ref in refs.items()}
    if not any(step.ref is not None for steps in alignments.values() for step in steps):
        raise ValueError(f"No reference of the {len(refs)} utterances holds a token: an error rate is not defined.")
    return alignments


def error_rate(alignments: Mapping[str, Sequence[Step]], replicates: int = 1000, seed: int = 0) -> ErrorRate:
    """Total the alignments of a corpus.

    Args:
        alignments: alignment by utterance id, from `align_corpus`.
        replicates: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        Counts, rates and the interval, checked against jiwer.
    """
    per_utt = [Counts.of(steps) for steps in alignments.values()]
    total = Counts(*(sum(getattr(c, f) for c in per_utt) for f in ("correct", "substituted", "deleted", "inserted")))
    return ErrorRate(
        sentences=len(per_utt),
        wrong_sentences=sum(c.errors > 0 for c in per_utt),
        empty_references=sum(c.tokens == 0 for c in per_utt),
        counts=total,
        minimum_errors=cross_check(alignments, total),
        interval=bootstrap_interval([c.errors for c in per_utt], [c.tokens for c in per_utt], replicates, seed),
    )


def bootstrap_interval(
    errors: Sequence[int], tokens: Sequence[int], replicates: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap over utterances.

    Args:
        errors: errors of each utterance.
        tokens: reference tokens of each utterance.
        replicates: number of resampled corpora.
        seed: of the resampling.

    Returns:
        2.5 % and 97.5 % quantiles of 100 Σ errors / Σ tokens; samples without a reference token are left out.
    """
    size = len(errors)
    picks = np.random.default_rng(seed).multinomial(size, np.full(size, 1.0 / size), size=replicates)
    drawn_errors, drawn_tokens = picks @ np.asarray(errors), picks @ np.asarray(tokens)
    valid = drawn_tokens > 0
    low, high = np.quantile(100.0 * drawn_errors[valid] / drawn_tokens[valid], [0.025, 0.975])
    return float(low), float(high)


def cross_check(alignments: Mapping[str, Sequence[Step]], total: Counts) -> int:
    """Check the totals against jiwer's Levenshtein alignments.

    Let E, S, C be errors, substitutions and sclite cost of a least-error alignment and E', C' those of the least-cost one. Then
    E <= E' (E is the minimum), C' <= C, and 3 E' <= C' <= C = 3 E + S: so E' is in [E, E + S / 3]. Totals outside these
    bounds are a defect of one of the two programs.

    Args:
        alignments: alignment by utterance id.
        total: their counts.

    Returns:
        Total of the Levenshtein distances.

    Raises:
        RuntimeError: when a bound does not hold.
    """
    import jiwer

    pairs = [(joined(steps, "ref"), joined(steps, "hyp")) for steps in alignments.values()]
    # jiwer refuses or counts empty references by version; they have insertions only, which need no check
    empty = sum(len(steps) for steps, (ref, _) in zip(alignments.values(), pairs) if not ref)
    pairs = [pair for pair in pairs if pair[0]]
    if not pairs:
        return empty
    out = jiwer.process_words([ref for ref, _ in pairs], [hyp for _, hyp in pairs])
    minimum = out.substitutions + out.deletions + out.insertions + empty
    jiwer_cost = SUBSTITUTION * out.substitutions + DELETION * out.deletions + INSERTION * (out.insertions + empty)
    cost = SUBSTITUTION * total.substituted + DELETION * total.deleted + INSERTION * total.inserted
    if not minimum <= total.errors <= minimum + out.substitutions / 3 or cost > jiwer_cost:
        raise RuntimeError(
            f"Scoring and jiwer disagree: {total.errors} errors at cost {cost}, jiwer {minimum} at cost {jiwer_cost} with "
            f"{out.substitutions} substitutions; expected between {minimum} and {minimum + out.substitutions / 3:.0f} errors "
            f"at no more cost. This is a defect: report it with the two text files."
        )
    return minimum


def joined(steps: Sequence[Step], side: str) -> str:
    """Tokens of one side of an alignment separated by single spaces, as sclite and jiwer want them."""
    return " ".join(token for token in (getattr(step, side) for step in steps) if token is not None)
