"""Encoder time of Whisper's `utterance` window against the `30s` window: base size, random weights, 3-s clips, CPU, the same run.

    python tests/benchmarks/whisper_window.py [--arch whisper-base] [--seconds 3] [--batch 4] [--repeats 5]

Exit status 1 when the ratio exceeds --bound (0.25).
"""

import argparse
import statistics
import sys
import time

import torch

from espnet2_avsr_llm.frontend.whisper import WINDOWS, WhisperFrontend


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="whisper-base")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bound", type=float, default=0.25)
    args = parser.parse_args()
    torch.manual_seed(0)
    samples = int(args.seconds * 16000)
    speech = torch.randn(args.batch, samples), torch.full((args.batch,), samples)
    frontends = {window: WhisperFrontend(init="random", arch=args.arch, window=window) for window in WINDOWS}
    times = {window: [] for window in WINDOWS}
    for repeat in range(args.repeats + 1):  # the first round warms up; windows take turns, so that both see the same machine
        for window, frontend in frontends.items():
            start = time.perf_counter()
            with torch.no_grad():
                frontend(speech=speech)
            times[window] += [time.perf_counter() - start] * (repeat > 0)
    median = {window: statistics.median(of) for window, of in times.items()}
    ratio = median["utterance"] / median["30s"]
    for window, seconds in median.items():
        sys.stdout.write(f"{args.arch} {window:<10} {seconds:8.4f} s for {args.batch} clips of {args.seconds:g} s (median of {args.repeats})\n")
    sys.stdout.write(f"ratio {ratio:.4f}, bound {args.bound}; {torch.get_num_threads()} threads\n")
    return int(ratio > args.bound)


if __name__ == "__main__":
    sys.exit(main())
