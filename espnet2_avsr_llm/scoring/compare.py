"""Mean and deviation of the error rates of systems over seeds, from experiments named `SYSTEM.NUMBER_seedN`."""

import re
import statistics
from pathlib import Path
from typing import Sequence

from espnet2_avsr_llm.scoring.report import collect, markdown, pass_order

SUFFIX = re.compile(r"\.\d+_seed(\d+)$")  # number of the model within its system, and seed
Rates = dict[str, dict[str, dict[int, float]]]  # WER in percent by system, pass and seed


def system_and_seed(exp: Path) -> tuple[str, int]:
    """`llama_avsr`, 2 of a folder `llama_avsr.5_seed2`: model 5 of a system of several.

    Raises:
        ValueError: another form.
    """
    found = SUFFIX.search(exp.name)
    if not found:
        raise ValueError(f"{exp}: expected a folder SYSTEM.NUMBER_seedN, as compare.sh makes them")
    return SUFFIX.sub("", exp.name), int(found[1])


def comparison(exps: Sequence[Path]) -> str:
    """Tables of WER in Markdown: for each decoding, test set and condition a row for each system.

    Args:
        exps: experiment folders; the models of a system share its row.

    Returns:
        Mean and, after ±, standard deviation over seeds, for each pass and for the mean over the passes of each task (where the
        system has them all).
    """
    tables: dict[str, Rates] = {}
    for exp in exps:
        system, seed = system_and_seed(exp)
        for r in collect(exp, "wer"):
            rates = tables.setdefault(f"{r.test_set}, {r.condition}, {r.decoding}", {})
            rates.setdefault(system, {}).setdefault(r.pass_, {})[seed] = r.rate.percent
    return "\n\n".join(f"### WER (%): {title}\n\n{_table(rates)}" for title, rates in tables.items())


def _table(rates: Rates) -> str:
    passes = sorted({p for of in rates.values() for p in of}, key=pass_order)
    tasks: dict[str, list[str]] = {}
    for p in passes:
        tasks.setdefault(p.split("_")[0], []).append(p)
    header = ["system", "seeds", *(c for task, of in tasks.items() for c in (*of, f"mean {task}"))]
    rows = [header, ["---"] * len(header)]
    for system, by_pass in rates.items():
        seeds = sorted(set.intersection(*(set(by_seed) for by_seed in by_pass.values())))
        cells = []
        for of in tasks.values():
            columns = [[by_pass[p][s] for s in seeds] if p in by_pass else None for p in of]
            means = None if None in columns else [statistics.mean(values) for values in zip(*columns)]
            cells += [_cell(values) for values in (*columns, means)]
        rows.append([system, str(len(seeds)), *cells])
    return markdown(rows)


def _cell(values: Sequence[float] | None) -> str:
    if not values:
        return "-"
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
