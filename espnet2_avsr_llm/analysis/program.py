"""What the analysis programs have in common: the model, its data, and where the results go."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def get_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options of the model, its data and its device, as for decoding."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--asr_train_config", required=True, type=Path, help="config.yaml of the experiment")
    parser.add_argument("--asr_model_file", type=Path, help="checkpoint; none: the model before training")
    parser.add_argument("--data_dir", required=True, type=Path, help="dumped test set: wav.scp and video.scp")
    parser.add_argument("--noise_dir", type=Path, help="folder of noise lists (stage 5)")
    parser.add_argument("--output_dir", required=True, type=Path, help="an experiment's analysis/NAME, where its page looks")
    parser.add_argument("--num_utts", type=int, default=20, help="utterances, evenly spaced over the set; all where it has no more")
    parser.add_argument("--task", choices=["asr", "vsr", "avsr"], help="one of the trained; none: the one that reads the most")
    parser.add_argument("--audio_rate", type=int, help="compression rate, one of the trained; none: the finest (experts: all)")
    parser.add_argument("--video_rate", type=int)
    parser.add_argument("--ngpu", type=int, choices=[0, 1], default=0, help="1: on the GPU")
    return parser


def start(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Read the options and begin to log."""
    args = parser.parse_args(argv)
    logging.basicConfig(level="INFO", format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    return args


def load_speech2text(args: argparse.Namespace, **search):
    """The model, with the task and rates asked for; what is not trained yet is drawn from the training's seed."""
    import torch
    import yaml

    from espnet2_avsr_llm.inference.speech2text import Speech2Text

    torch.manual_seed(yaml.safe_load(args.asr_train_config.read_text(encoding="utf-8")).get("seed", 0))
    asked = dict(task=args.task, audio_rate=args.audio_rate, video_rate=args.video_rate)
    return Speech2Text(args.asr_train_config, args.asr_model_file, "cuda" if args.ngpu else "cpu", **asked, **search)


def describe(args: argparse.Namespace, speech2text) -> dict:
    """What is looked at, for the results; rates that were not asked for are left out."""
    about = {"model": str(args.asr_model_file or "before training"), "data": str(args.data_dir)}
    about["task"] = speech2text.request.wanted(speech2text.trained)
    return about | {name: rate for name in ("audio_rate", "video_rate") if (rate := getattr(args, name)) is not None}


def utterances(args: argparse.Namespace, condition: str):
    """The ids to look at, and what loads their inputs in a condition."""
    from espnet2_avsr_llm.analysis.utterances import spread
    from espnet2_avsr_llm.bin.avsr_llm_inference import Loader, read_data_dir
    from espnet2_avsr_llm.data.conditions import Condition

    files = read_data_dir(args.data_dir)
    return spread(list(files), args.num_utts), Loader(files, Condition(condition, args.noise_dir))
