"""Decoding time of one utterance with MoME in each placement, beside unmerged LoRA and the bare LLM, of random weights.

Run by hand; the default is the comparison of MoME's paper (arXiv 2510.04136, table 8: 2.98 s against 2.39 s at rates 4 and 2):
  OMP_NUM_THREADS=2 python tests/benchmarks/adapter_decoding.py --dtype float32

Seen with --beams 1 --repeats 3 on one core, busy with other work, median of CPU seconds: LLM 11.72, LoRA 11.85, MoME FFN 11.86, MHSA
11.99, LAYER 11.89: at most 1.012 times LoRA. There a decoding step waits for the LLM's weights. With --beams 15 --repeats 1: LLM 115.4,
LoRA 110.6, FFN 111.4, MHSA 108.2, LAYER 114.6: at most 1.037 times. No GPU has been tried.
"""

import argparse
import statistics
import sys
import time

import torch

from espnet2_avsr_llm.adapter import LoRA, MoME
from espnet2_avsr_llm.adapter.mome import PLACEMENTS
from espnet2_avsr_llm.compression import AvgPool
from espnet2_avsr_llm.inference.generate import Search, generate
from espnet2_avsr_llm.llm import CausalLM
from espnet2_avsr_llm.model import AVSRLLM
from espnet2_avsr_llm.pass_plan import FixedPlan
from espnet2_avsr_llm.projector import MLPProjector

FRAMES = {"audio": (50, 768), "video": (25, 1024)}  # per second, and width: Whisper small, AV-HuBERT Large


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="llama-3.2-1b")
    parser.add_argument("--dtype", default="float32", help="of the LLM")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rates", type=int, nargs=2, default=[4, 2])
    parser.add_argument("--bottleneck", type=int, default=12)
    parser.add_argument("--routed", type=int, default=15)
    parser.add_argument("--top_k", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of the utterance")
    parser.add_argument("--text_tokens", type=int, default=24)
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 15])
    parser.add_argument("--repeats", type=int, default=5)
    return parser


def main():
    args = get_parser().parse_args()
    torch.manual_seed(0)
    plan = FixedPlan([{"task": "avsr", "rates": dict(zip(("audio", "video"), args.rates))}])
    (pass_,) = plan.passes()
    llm = CausalLM(arch=args.arch, init="random", dtype=args.dtype)
    adapters = {f"MoME-{args.routed}/{args.top_k}-{p.upper()}": MoME(llm, [pass_], p, args.bottleneck, args.routed, args.top_k) for p in PLACEMENTS}
    plain = {(layer.self_attn, n): getattr(layer.self_attn, n) for layer in llm.model.model.layers for n in ("q_proj", "v_proj")}
    adapters = {"LLM": None, "LoRA": LoRA(llm, [pass_], rank=llm.width // 32), **adapters}
    wrapped = {(attention, n): getattr(attention, n) for attention, n in plain}
    projector = MLPProjector({s: {r: FRAMES[s][1]} for s, r in pass_.rates.items()}, llm.width)
    model = AVSRLLM({}, AvgPool(), projector, llm, None, plan, {}).to(args.device).eval()
    features = {s: (torch.randn(1, n, width), torch.tensor([n])) for s, (rate, width) in FRAMES.items() for n in [round(rate * args.seconds)]}
    features = {s: (x.to(args.device), n.to(args.device)) for s, (x, n) in features.items()}
    for adapter in adapters.values():
        randomise(adapter, args.device)
    for beams in args.beams:
        search = Search(beam_size=beams, max_tokens_per_second=args.text_tokens / args.seconds, min_tokens=1)
        seconds = {name: [] for name in adapters}
        for _ in range(args.repeats + 1):  # in turn, so that what else the machine does falls on all; the first round warms up
            for name, adapter in adapters.items():
                for (attention, n), module in (wrapped if name == "LoRA" else plain).items():
                    setattr(attention, n, module)
                model.adapter = adapter
                seconds[name].append(timed(model, features, pass_, search, args))
        report(beams, {name: times[1:] for name, times in seconds.items()})


def randomise(adapter, device):
    """Away from the zeros that adapters start with."""
    if adapter is not None:
        adapter.to(device)
        for name, p in adapter.named_parameters():
            torch.nn.init.normal_(p, std=0.02)


def timed(model, features, pass_, search, args):
    """Seconds on the clock, and of the processor, which other programs on the machine do not lengthen as much."""
    start = time.perf_counter(), time.process_time()
    ((hypothesis,),) = generate(model, features, pass_, [args.seconds], search)
    if args.device != "cpu":
        torch.cuda.synchronize()
    if len(hypothesis.token_ids) < args.text_tokens:
        raise RuntimeError(f"Decoding ended after {len(hypothesis.token_ids)} of {args.text_tokens} tokens: random weights wrote EOS")
    return time.perf_counter() - start[0], time.process_time() - start[1]


def report(beams, seconds):
    kinds = (("least", min, 0), ("median", statistics.median, 0), ("median of CPU", statistics.median, 1))
    sys.stdout.write(f"\nbeam {beams:<18}" + "".join(f"{name + ' s':>17}{'/ LoRA':>8}" for name, _, _ in kinds) + "\n")
    for name in seconds:
        found = [tuple(take([t[clock] for t in seconds[n]]) for n in (name, "LoRA")) for _, take, clock in kinds]
        sys.stdout.write(f"{name:<23}" + "".join(f"{own:>17.3f}{own / lora:>8.3f}" for own, lora in found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
