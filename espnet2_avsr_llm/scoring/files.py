"""Files of one scored condition, named as in ESPnet's recipes.

`score_wer/` and `score_cer/` each hold `ref.trn`, `hyp.trn` (sclite's input), `result.txt` (per-utterance alignments and the
summary row) and `result.json` (the same totals for programs).
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Mapping, Sequence

from espnet2_avsr_llm.data.atomic import write_text
from espnet2_avsr_llm.scoring.align import Step
from espnet2_avsr_llm.scoring.error_rate import TOKENIZERS, Counts, ErrorRate, align_corpus, error_rate, joined

HEADER = "| SPKR | # Snt # Wrd | Corr Sub Del Ins Err S.Err |"


def score_condition(refs: Mapping[str, str], hyps: Mapping[str, str], out_dir: Path) -> dict[str, ErrorRate]:
    """Score one condition and write its files.

    Args:
        refs: reference text by utterance id.
        hyps: hypothesis text by utterance id.
        out_dir: gets `score_wer/` and `score_cer/`.

    Returns:
        `{"wer": ErrorRate, "cer": ErrorRate}`.
    """
    rates = {}
    for name, tokenize in TOKENIZERS.items():
        alignments = align_corpus(refs, hyps, tokenize)
        rates[name] = error_rate(alignments)
        _write_scores(out_dir / f"score_{name}", alignments, rates[name])
    return rates


def _write_scores(directory: Path, alignments: Mapping[str, Sequence[Step]], rate: ErrorRate) -> None:
    for side in ("ref", "hyp"):
        lines = (f"{joined(steps, side)} ({utt})\n".lstrip() for utt, steps in alignments.items())
        write_text(directory / f"{side}.trn", "".join(lines))
    blocks = [_utterance_block(utt, steps) for utt, steps in alignments.items()]
    write_text(directory / "result.txt", "\n".join([summary_row(rate), "", *blocks]))
    # the json comes last: where it is found, the other files are complete
    totals = {**asdict(rate), "percent": rate.percent, "wrong_sentences_percent": rate.wrong_sentences_percent}
    write_text(directory / "result.json", json.dumps(totals, indent=1) + "\n")


def read_result(path: Path) -> ErrorRate:
    """Read a `result.json` back."""
    totals = json.loads(path.read_text(encoding="utf-8"))
    fields = {name: totals[name] for name in ("sentences", "wrong_sentences", "empty_references", "minimum_errors")}
    return ErrorRate(**fields, counts=Counts(**totals["counts"]), interval=tuple(totals["interval"]))


def table_cells(rate: ErrorRate) -> list[str]:
    """Sentences, tokens, then Corr, Sub, Del, Ins, Err, S.Err in percent, as sclite prints them."""
    counts = rate.counts
    numbers = (counts.correct, counts.substituted, counts.deleted, counts.inserted, counts.errors)
    shares = [rate.share(number) for number in numbers] + [rate.wrong_sentences_percent]
    return [str(rate.sentences), str(counts.tokens), *(f"{share:.1f}" for share in shares)]


def summary_row(rate: ErrorRate) -> str:
    """Sclite's summary of the corpus in two lines, and what sclite does not print in a third."""
    cells = table_cells(rate)
    low, high = rate.interval
    return (
        f"{HEADER}\n| Sum/Avg | {' '.join(cells[:2])} | {' '.join(cells[2:])} |\n"
        f"95% interval of Err: {low:.2f} {high:.2f}; least edit distance: {rate.minimum_errors}; "
        f"empty references: {rate.empty_references}"
    )


def _utterance_block(utt: str, steps: Sequence[Step]) -> str:
    """Alignment of one utterance; wrong tokens in capitals, stars where a token has no partner (sclite's `pra` form)."""
    rows: list[list[str]] = [["REF: "], ["HYP: "], ["Eval:"]]
    for op, ref, hyp in steps:
        width = max(len(ref or ""), len(hyp or ""))
        for row, token in zip(rows, (ref, hyp)):
            cell = "*" * width if token is None else token if op == "C" else token.upper()
            row.append(cell.ljust(width))
        rows[2].append(("" if op == "C" else op).ljust(width))
    counts = Counts.of(steps)
    scores = f"{counts.correct} {counts.substituted} {counts.deleted} {counts.inserted}"
    lines = [" ".join(row).rstrip() for row in rows]
    return "\n".join([f"id: ({utt})", f"Scores: (#C #S #D #I) {scores}", *lines, ""])
