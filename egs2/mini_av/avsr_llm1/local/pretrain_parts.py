"""Pretrain one of the mini recipe's frozen parts: `whisper`, `avhubert`, then `llama`, which reads what the two others hear and see.

    python3 local/pretrain_parts.py whisper --data data/pretrain --dump dump/raw/pretrain --work exp/pretrain --out pretrained
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

STEPS = {"whisper": 2500, "avhubert": 600, "llama": 2300}
BATCH = {"whisper": 24, "avhubert": 16, "llama": 32}
PEAK_LR = {"whisper": 2e-3, "avhubert": 3e-3, "llama": 4e-3}
CONDITIONS = {"whisper": 5, "avhubert": 2}  # readings of each clip: as it is, and augmented


def get_parser() -> argparse.ArgumentParser:
    """Build the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(STEPS))
    parser.add_argument("--data", type=Path, required=True, help="data directory of the pretraining clips, with phone labels beside the media")
    parser.add_argument("--dump", type=Path, required=True, help="the same after the dump")
    parser.add_argument("--work", type=Path, required=True, help="keeps the encoders' phone heads, which are not shipped")
    parser.add_argument("--out", type=Path, required=True, help="the part is written to OUT/PART")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: %s)" % STEPS)
    parser.add_argument("--held_out", type=int, default=4, help="speakers kept for the figures at the end")
    parser.add_argument("--voices", type=int, default=0, help="utterances of random voices, without pictures, that whisper hears besides")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train one part and log how good it is on speakers it has not met."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    import torch

    from pretrain.clips import load, split_speakers

    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    clips, unseen = split_speakers(load(args.data, args.dump), args.held_out)
    logging.info("%d clips to train on, %d of other speakers to measure on", len(clips), len(unseen))
    train = train_llama if args.part == "llama" else train_encoder
    train(args, clips, unseen)


def train_encoder(args: argparse.Namespace, clips: list, unseen: list) -> None:
    """Train an encoder and its head."""
    import numpy as np
    import torch

    from pretrain.voices import speak_clips

    folder = args.out / args.part
    module = _module(args.part)
    torch.manual_seed(args.seed)
    module.initialise(folder, args.seed)
    model = module.Classifier(folder, clips)
    if args.part == "whisper":
        clips = clips + speak_clips(args.voices, module.SECONDS, args.seed, args.threads)
    model.train_on(clips, args.steps or STEPS[args.part], BATCH[args.part], PEAK_LR[args.part], args.seed)
    model.save(folder)
    torch.save(model.head.state_dict(), _head(args, args.part))
    rng = np.random.default_rng(args.seed)
    logging.info("%s: %.3f of the frames right, %.3f of augmented ones", args.part, model.accuracy(unseen), model.accuracy(unseen, rng))


def train_llama(args: argparse.Namespace, clips: list, unseen: list) -> None:
    """Let the trained encoders read the clips, and train the language model on that."""
    from pretrain.llama import Reader, make_tokenizer
    from pretrain.symbols import Splicer, read

    classifiers = {part: _trained(args, part, clips) for part in CONDITIONS}

    def splicer(clips: list) -> Splicer:
        return Splicer([read(clip, [(classifiers[part], count) for part, count in CONDITIONS.items()], args.seed) for clip in clips])

    reader = Reader(make_tokenizer(), args.seed)
    reader.train_on(splicer(clips), args.steps or STEPS["llama"], BATCH["llama"], PEAK_LR["llama"], args.seed)
    reader.save(args.out / "llama")
    logging.info("llama: loss %.4f on other speakers", reader.losses(splicer(unseen), args.seed))


def _trained(args: argparse.Namespace, part: str, clips: list):
    import torch

    classifier = _module(part).Classifier(args.out / part, clips)
    classifier.head.load_state_dict(torch.load(_head(args, part), weights_only=True))
    return classifier


def _module(part: str):
    from pretrain import avhubert, whisper

    return {"whisper": whisper, "avhubert": avhubert}[part]


def _head(args: argparse.Namespace, part: str) -> Path:
    return args.work / f"{part}_head.pt"


if __name__ == "__main__":
    main()
