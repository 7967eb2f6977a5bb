"""Time of Shapley coalitions through the LLM in batches and one by one, in turns within one run, at equal values.

Run by hand, for example:
  python tests/benchmarks/coalitions.py --source egs2/mini_av/avsr_llm1/pretrained/llama --players 66 --text_tokens 7
  python tests/benchmarks/coalitions.py --arch llama-3.2-1b --dtype bfloat16 --device cuda --players 150 --text_tokens 32
"""

import argparse
import statistics
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import torch

from espnet2_avsr_llm.analysis.shap import REMOVALS, TokenScores
from espnet2_avsr_llm.llm.causal_lm import CausalLM
from espnet2_avsr_llm.sequence import Role, lay_out

FIXED = 20  # tokens of BOS, delimiters and prompt


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", help="folder of the LLM")
    parser.add_argument("--arch", help="or an architecture, with random weights")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--players", type=int, default=150)
    parser.add_argument("--text_tokens", type=int, default=32)
    parser.add_argument("--removal", choices=REMOVALS, default="zero")
    parser.add_argument("--coalitions", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    return parser


def main():
    args = get_parser().parse_args()
    start = dict(source=args.source) if args.source else dict(arch=args.arch, init="random")
    llm = CausalLM(**start, dtype=args.dtype).to(args.device).eval()
    model = SimpleNamespace(llm=llm, use=lambda pass_: nullcontext())
    inputs = utterance(llm, args)
    kept = np.random.default_rng(0).integers(0, 2, (args.coalitions, args.players))
    values, seconds = {}, {"batches": [], "one by one": []}
    for _ in range(args.repeats + 1):  # the first is for warming up
        for name, size in (("batches", args.batch_size), ("one by one", 1)):
            scores = TokenScores(model, inputs, None, args.removal, batch_size=size)
            begun = time.perf_counter()
            values[name] = scores(kept)  # ends on the CPU, so it is over when it returns
            seconds[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    lines = [f"{name:<12}{1000 * s / args.coalitions:9.2f} ms per coalition" for name, s in medians.items()]
    lines += [f"ratio       {medians['one by one'] / medians['batches']:9.2f}", f"difference  {np.abs(values['batches'] - values['one by one']).max():9.1e}"]
    if args.device != "cpu":
        lines.append(f"peak memory {torch.cuda.max_memory_allocated() / 1e9:9.2f} GB")
    sys.stdout.write("\n".join(lines) + "\n")


def utterance(llm, args):
    generator = torch.Generator().manual_seed(0)
    fixed, players, text = (torch.randn(n, llm.width, generator=generator) * 0.02 for n in (FIXED, args.players, args.text_tokens))
    labels = torch.randint(5, 200, (args.text_tokens,), generator=generator)
    rows = [(Role.BOS, fixed, None), (Role.AUDIO, players, None), (Role.TEXT, text, labels)]
    return lay_out([[(role, x.to(args.device), y if y is None else y.to(args.device)) for role, x, y in rows]])


if __name__ == "__main__":
    main()
