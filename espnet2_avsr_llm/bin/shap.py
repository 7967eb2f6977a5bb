"""Shapley values of the audio and video tokens for each hypothesis token, with shares, windows and alignment (stage 16)."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--conditions", nargs="+", default=["clean"], help="clean, or others of data/conditions.py")
    parser.add_argument("--estimator", choices=["permutation", "sampling", "exact"], default="permutation")
    parser.add_argument("--max_evals", type=int, default=2000, help="coalitions of an utterance; a walk of permutation takes 2 players + 1")
    parser.add_argument("--removal", choices=["zero", "mean", "remove"], default="zero", help="what becomes of a token that is not in the coalition")
    parser.add_argument("--score", choices=["log_prob", "logit", "released"], default="log_prob", help="of each hypothesis token")
    parser.add_argument("--batch_size", type=int, default=32, help="coalitions that go through the LLM together")
    parser.add_argument("--beam_size", type=int, default=1, help="of the hypothesis")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The model, its data and its device, as for decoding."""
    parser.add_argument("--asr_train_config", required=True, type=Path, help="config.yaml of the experiment")
    parser.add_argument("--asr_model_file", type=Path, help="checkpoint; none: the model before training")
    parser.add_argument("--data_dir", required=True, type=Path, help="dumped test set: wav.scp and video.scp")
    parser.add_argument("--noise_dir", type=Path, help="folder of noise lists (stage 5)")
    parser.add_argument("--output_dir", required=True, type=Path, help="an experiment's analysis/NAME, where its page looks")
    parser.add_argument("--num_utts", type=int, default=20, help="utterances, evenly spaced over the set")
    parser.add_argument("--task", choices=["asr", "vsr", "avsr"], help="one of the trained; none: the one that reads the most")
    parser.add_argument("--audio_rate", type=int, help="compression rate, one of the trained; none: the finest")
    parser.add_argument("--video_rate", type=int)
    parser.add_argument("--ngpu", type=int, choices=[0, 1], default=0, help="1: on the GPU")


def main(argv: list[str] | None = None) -> None:
    """Explain every utterance that is not explained yet, then write numbers, tables and figures."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level="INFO", format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    from espnet2_avsr_llm.analysis.modality_figures import write_modalities
    from espnet2_avsr_llm.analysis.shap import Settings

    speech2text = load_speech2text(args, beam_size=args.beam_size)
    conditions = args.conditions if "speech" in speech2text.names else ["clean"]  # noise means nothing to a model that does not hear
    settings = Settings(args.estimator, args.max_evals, args.removal, args.score, args.batch_size, args.seed)
    about = {**describe(args, speech2text), "beam_size": args.beam_size, **vars(settings)}
    found = {condition: explain_condition(speech2text, condition, settings, about, args) for condition in conditions}
    write_modalities(args.output_dir, about, found, speech2text.model.llm.tokens.tokenizer)
    logging.info(f"{args.output_dir}: {', '.join(f'{len(of)} utterances in {condition}' for condition, of in found.items())}")


def load_speech2text(args: argparse.Namespace, **search):
    """The model, with the task and rates asked for."""
    from espnet2_avsr_llm.inference.speech2text import Speech2Text

    asked = dict(task=args.task, audio_rate=args.audio_rate, video_rate=args.video_rate)
    return Speech2Text(args.asr_train_config, args.asr_model_file, "cuda" if args.ngpu else "cpu", **asked, **search)


def describe(args: argparse.Namespace, speech2text) -> dict:
    """What is looked at, for the results; rates that were not asked for are left out."""
    about = {"model": str(args.asr_model_file or "before training"), "task": speech2text.request.wanted(speech2text.trained)}
    return about | {name: rate for name in ("audio_rate", "video_rate") if (rate := getattr(args, name)) is not None}


def utterances(args: argparse.Namespace, speech2text, condition: str):
    """The ids to look at, and what loads their inputs in a condition."""
    from espnet2_avsr_llm.analysis.utterances import spread
    from espnet2_avsr_llm.bin.avsr_llm_inference import Loader, read_data_dir
    from espnet2_avsr_llm.data.conditions import Condition

    files = read_data_dir(args.data_dir)
    return spread(list(files), args.num_utts), Loader(files, Condition(condition, args.noise_dir))


def explain_condition(speech2text, condition: str, settings, about: dict, args: argparse.Namespace) -> dict:
    """The explanation of each utterance of a condition; those of an earlier run with the same settings are read back."""
    from tqdm import tqdm

    from espnet2_avsr_llm.analysis.shap import explain_utterance, read_explanation, write_explanation
    from espnet2_avsr_llm.analysis.utterances import read

    utts, load = utterances(args, speech2text, condition)
    files = {utt: args.output_dir / condition / f"{utt}.npz" for utt in utts}
    newest = args.asr_model_file.stat().st_mtime if args.asr_model_file else 0
    done = {utt: found for utt, file in files.items() if (found := read_explanation(file, about, newest)) is not None}
    todo = [utt for utt in utts if utt not in done]
    for utt, encoded in tqdm(read(speech2text, load, todo), desc=condition, total=len(todo), unit="utt"):
        done[utt] = explain_utterance(speech2text, utt, encoded, settings)
        write_explanation(files[utt], done[utt], about)
    return {utt: done[utt] for utt in utts if utt in done}


if __name__ == "__main__":
    main()
