"""Time of a training step and of its parts, and of passes that share one LLM call.

Run by hand, with the options of `avsr-llm summary`, for example:
  python tests/benchmarks/training_step.py --config conf/train/llama_mtsk_ms.yaml --batch_size 4 --seconds 3 --random

Seconds on a shared machine, one thread, a call for each pass / one call for all: 0.30 / 0.34 and 0.32 / 0.46 (Llama-MTSK MS of the
mini recipe, ten utterances); 1.57 / 1.80 and 2.08 / 2.60 (Omni-AVSR S, likewise, the machine busier); 36.0 / 46.6 (the command
above with three layers of Llama-3.2-1B, a vocabulary of 4,096 and tiny encoders). Sharing pads all rows to the longest pass.

Seen with --config conf/train/mini/llama_mtsk_ms.yaml --repeats 9 --batch_size 5: a whole step takes 1.008 times as long as the encoders
and the four passes measured beside it (Omni-AVSR ST of the mini recipe: 1.071); a call for each pass 0.193 s, one call for all 0.207 s.
"""

import argparse
import statistics
import sys
import time

import torch
from torch.nn import functional as F

from espnet2_avsr_llm.build import PRETRAINED, build
from espnet2_avsr_llm.config import add_part_options, from_options
from espnet2_avsr_llm.espnet_model import ESPnetAVSRLLMModel
from espnet2_avsr_llm.sequence import IGNORE


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_part_options(parser)
    parser.add_argument("--random", action="store_true", help="random weights instead of the configured sources")
    parser.add_argument("--dtype", default="float32", help="of the pretrained parts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch_size", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.4, help="of the longest utterance; the shortest has half")
    parser.add_argument("--text_tokens", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    return parser


def main():
    args = get_parser().parse_args()
    torch.manual_seed(0)
    model = build(configured(args), ESPnetAVSRLLMModel).to(args.device).train()
    batch = random_batch(args, len(model.llm.tokens))
    features = detached(model.encode(model.inputs(batch)))
    passes = model.plan.passes((0, 0))
    text = batch["text"], batch["text_lengths"]

    def separate():
        for p in passes:
            (p.weight * model.run_pass(features, p, text).total).backward()

    runs = {"encoders": lambda: model.encode(model.inputs(batch))}
    for p in passes:
        runs[f"pass {p.task} {dict(p.rates)}"] = lambda p=p: (p.weight * model.run_pass(features, p, text).total).backward()
    runs["whole step"] = lambda: model(**batch, step=(0, 0))[0].backward()
    if len({tuple(model.adapter.names(p)) for p in passes}) == 1:
        runs["all passes, a call each"] = separate
        runs["all passes, one call"] = lambda: shared(model, features, passes, text).backward()
        agree(model, separate, runs["all passes, one call"])
    seconds = timed(runs, args)
    parts = seconds["encoders"] + sum(s for name, s in seconds.items() if name.startswith("pass "))
    report(seconds | {"whole step / (encoders + passes)": seconds["whole step"] / parts})


def configured(args):
    config = from_options(args)
    for part in PRETRAINED:
        if config.get(part):
            conf = config[f"{part}_conf"] | {"dtype": args.dtype}
            config[f"{part}_conf"] = {k: v for k, v in conf.items() if k != "source"} | {"init": "random"} if args.random else conf
    return config


def random_batch(args, vocabulary):
    frames = torch.linspace(args.seconds * 12.5, args.seconds * 25, args.batch_size).round().long()
    generator = torch.Generator().manual_seed(0)
    batch = {
        "speech": torch.randn(args.batch_size, int(frames[-1]) * 640, generator=generator),
        "speech_lengths": frames * 640,
        "video": torch.randint(0, 256, (args.batch_size, int(frames[-1]), 88, 88), generator=generator, dtype=torch.uint8),
        "video_lengths": frames,
        "text": torch.randint(5, vocabulary - 5, (args.batch_size, args.text_tokens), generator=generator),
        "text_lengths": torch.full((args.batch_size,), args.text_tokens),
    }
    return {name: x.to(args.device) for name, x in batch.items()}


def detached(features):
    return {stream: (x.detach(), lengths) for stream, (x, lengths) in features.items()}


def shared(model, features, passes, text):
    """Weighted loss of passes with one adapter set whose rows are one batch of the LLM, padded to the longest pass."""
    inputs = [model.prepare(features, p, text)[0] for p in passes]
    longest = max(i.attention_mask.shape[1] for i in inputs)
    embeds = torch.cat([F.pad(i.inputs_embeds, (0, 0, longest - i.inputs_embeds.shape[1], 0)) for i in inputs])
    mask, positions = (torch.cat([F.pad(getattr(i, n), (longest - getattr(i, n).shape[1], 0)) for i in inputs]) for n in ("attention_mask", "position_ids"))
    keep = inputs[0].num_labels + 1
    with model.llm.within(lambda: model.use(passes[0], mask)):
        logits = model.llm(embeds, mask, positions, keep).logits[:, :-1].float()
    labels = inputs[0].labels[:, 1 - keep :].flatten()
    losses = [F.cross_entropy(x.flatten(0, 1), labels, ignore_index=IGNORE) for x in logits.chunk(len(passes))]
    return sum(p.weight * loss for p, loss in zip(passes, losses))


def agree(model, one, other):
    """Both ways give the same gradients, or the comparison would say nothing."""
    found = []
    for run in (one, other):
        model.zero_grad()
        run()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-4, rtol=1e-2)


def timed(runs, args):
    """Median seconds of each run; the runs take turns, so that a busy machine slows all alike."""
    times = {name: [] for name in runs}
    for _ in range(args.repeats + 1):
        for name, run in runs.items():
            synchronise(args.device)
            start = time.perf_counter()
            run()
            synchronise(args.device)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t[1:]) for name, t in times.items()}


def synchronise(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def report(seconds):
    for name, value in seconds.items():
        sys.stdout.write(f"{name:<40}{value:10.4f}\n")


if __name__ == "__main__":
    main()
