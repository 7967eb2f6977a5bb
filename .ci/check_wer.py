"""Fail when the word error rates of the mini recipe miss their bounds: `check_wer.py EXPDIR [--max_asr 3 ...]`."""

import argparse
import json
import sys
from pathlib import Path


def read_rates(exp: Path, task: str) -> tuple[dict[str, float], int]:
    """WER in percent of a task by condition, and the number of test utterances."""
    rates, sentences = {}, 0
    for path in sorted(exp.glob(f"*/*/{task}_*/*/score_wer/result.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        rates[path.parts[-3]] = result["percent"]
        sentences = result["sentences"]
    if "clean" not in rates:
        sys.exit(f"{exp}: no */*/{task}_*/clean/score_wer/result.json: the recipe did not reach stage 13 for it")
    return rates, sentences


def missed(asr: dict[str, float], vsr: dict[str, float], avsr: dict[str, float], bounds: argparse.Namespace) -> list[str]:
    """The bounds that do not hold, in words."""
    found = []

    def check(what: str, value: float, bound: float) -> None:
        if not value <= bound:
            found.append(f"{what} is {value:.2f} %, bound {bound:.2f} %")

    check("ASR clean", asr["clean"], bounds.max_asr)
    check("VSR clean", vsr["clean"], bounds.max_vsr)
    check("AVSR clean", avsr["clean"], asr["clean"] + bounds.avsr_margin)
    noisy = [condition for condition in asr if condition != "clean" and asr[condition] > bounds.noisy_from]
    for condition in noisy:
        check(f"AVSR {condition}", avsr[condition], bounds.noise_ratio * asr[condition])
    if not noisy:
        found.append(f"no noise condition brings ASR above {bounds.noisy_from:g} %: {asr}")
    return found


def main() -> None:
    """Read, compare, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("expdir", type=Path, help="holds llama_avsr_asr*, llama_avsr_vsr*, llama_avsr_avsr*")
    parser.add_argument("--max_asr", type=float, default=3.0, help="percent, clean")
    parser.add_argument("--max_vsr", type=float, default=20.0, help="percent")
    parser.add_argument("--avsr_margin", type=float, default=0.5, help="AVSR may exceed ASR by this, percent, clean")
    parser.add_argument("--noise_ratio", type=float, default=0.7, help="AVSR / ASR at most, at each noise level where")
    parser.add_argument("--noisy_from", type=float, default=5.0, help="ASR exceeds this percentage; one level must")
    parser.add_argument("--min_utterances", type=int, default=150, help="in the test set")
    args = parser.parse_args()
    tables = []
    for task in ("asr", "vsr", "avsr"):
        exps = sorted(args.expdir.glob(f"llama_avsr_{task}*"))
        if len(exps) != 1:
            sys.exit(f"{args.expdir}: expected one folder llama_avsr_{task}*, found {[e.name for e in exps]}")
        rates, sentences = read_rates(exps[0], task)
        tables.append(rates)
        if sentences < args.min_utterances:
            sys.exit(f"{exps[0]}: {sentences} test utterances, expected at least {args.min_utterances}")
    if found := missed(*tables, args):
        sys.exit("WER bounds missed:\n" + "\n".join(found))
    sys.stdout.write("all WER bounds hold\n")


if __name__ == "__main__":
    main()
