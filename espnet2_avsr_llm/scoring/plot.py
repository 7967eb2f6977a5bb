"""Error rates against LLM tokens: the trade that elastic models offer (Llama-MTSK, arXiv 2503.06362, figures 3 to 5)."""

from pathlib import Path
from statistics import mean
from typing import Sequence

from espnet2_avsr_llm.data.atomic import atomic_path
from espnet2_avsr_llm.scoring.compare import SUFFIX
from espnet2_avsr_llm.scoring.report import collect

Point = tuple[float, float]  # LLM tokens per second, WER
Lines = dict[str, dict[str, list[Point]]]  # by name and pass


def scored_experiments(folder: Path) -> list[Path]:
    """The experiments in a folder that have results."""
    return sorted({path.parents[5] for path in folder.glob("*/*/*/*/*/score_wer/result.json")})


def plot_wer_by_tokens(exps: Sequence[Path], path: Path) -> None:
    """Draw WER against LLM tokens per second of speech: a line for each system, a panel for each task and test set.

    Args:
        exps: experiment folders; their clean conditions that have a cost are drawn, of several seeds of a system the mean.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    if not (panels := _panels(exps)):
        return
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    for axes, ((task, test_set, decoding), lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], sorted(panels.items())):
        for name, points in lines.items():
            axes.plot(*zip(*sorted(tuple(map(mean, zip(*of))) for of in points.values())), marker="o", label=name)
        axes.set(xlabel="LLM tokens per second of speech", ylabel="WER (%)")
        axes.set_title(f"{task}, {test_set}, {decoding}", fontsize="small")
        axes.legend(fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _panels(exps: Sequence[Path]) -> dict[tuple[str, str, str], Lines]:
    """Lines by task, test set and decoding; those decoded to a budget are lines of their own."""
    panels: dict[tuple[str, str, str], Lines] = {}
    for exp in exps:
        for r in collect(exp, "wer"):
            if r.condition == "clean" and r.cost:
                task, *scale = r.pass_.split("_")
                budget = any(part.startswith(("tokens", "tflops")) for part in scale)
                name = SUFFIX.sub("", exp.name) + (" (budget)" if budget else "")
                points = panels.setdefault((task, r.test_set, r.decoding), {}).setdefault(name, {})
                points.setdefault(r.pass_, []).append((r.cost.tokens_per_second, r.rate.percent))
    return panels
