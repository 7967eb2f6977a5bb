"""Time of MoME's two ways to compute its experts, all of them densely or each for its own tokens, over sizes.

Run by hand, for example on one thread:
  OMP_NUM_THREADS=1 python tests/benchmarks/expert_paths.py --tokens 1 15 560 4480
"""

import argparse
import itertools
import sys
import time

import torch

from espnet2_avsr_llm.adapter.mome import Mixture


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=2048, help="of the LLM")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 15, 560, 4480], help="of a call: decoding 1 and 15 beams, one prefix, a batch")
    parser.add_argument("--routed", type=int, nargs="+", default=[4, 15, 23, 64])
    parser.add_argument("--bottleneck", type=int, nargs="+", default=[1, 12, 48, 128, 512])
    parser.add_argument("--top_k", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    return parser


def main():
    args = get_parser().parse_args()
    torch.manual_seed(0)
    times = "".join(f"   {way + ': dense':>15}{'grouped':>9}{'ratio':>7}" for way in ("forward", "step"))
    sys.stdout.write(f"{'tokens':>7}{'experts':>8}{'b':>5}{'E b':>7}{times}  ms\n")
    for tokens, routed, bottleneck in itertools.product(args.tokens, args.routed, args.bottleneck):
        mixture = Mixture(args.width, bottleneck, routed, args.top_k, 1, ["shared"]).to(args.device)
        torch.nn.init.normal_(mixture.up, std=0.02)
        x = torch.randn(1, tokens, args.width, device=args.device)
        routing = mixture.routers["shared"](x)
        with torch.no_grad():
            torch.testing.assert_close(mixture.dense(x, routing), mixture.grouped(x, routing), atol=1e-4, rtol=1e-4)
            forward = [timed(lambda: path(x, routing), args) for path in (mixture.dense, mixture.grouped)]
        step = [timed(lambda: train(mixture, path, x), args) for path in (mixture.dense, mixture.grouped)]
        row = "".join(f"   {dense * 1e3:>15.3f}{grouped * 1e3:>9.3f}{dense / grouped:>7.2f}" for dense, grouped in (forward, step))
        sys.stdout.write(f"{tokens:>7}{routed:>8}{bottleneck:>5}{(routed + 1) * bottleneck:>7}{row}\n")
        sys.stdout.flush()


def train(mixture, path, x):
    mixture.zero_grad()
    path(x.requires_grad_(), mixture.routers["shared"](x)).sum().backward()


def timed(run, args):
    """Least seconds of a call, after one that warms up."""
    seconds = []
    for _ in range(args.repeats + 1):
        start = time.perf_counter()
        run()
        if args.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


if __name__ == "__main__":
    main()
