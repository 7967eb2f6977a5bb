"""Shapley values of the audio and video tokens for each hypothesis token, with shares, windows and alignment (stage 16)."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--conditions", nargs="+", default=["clean"], help="clean, or names of noise lists in --noise_dir")
    parser.add_argument("--num_utts", type=int, default=20, help="utterances of each condition, evenly spaced over the set")
    parser.add_argument("--estimator", choices=["permutation", "sampling", "exact"], default="permutation")
    parser.add_argument("--max_evals", type=int, default=2000, help="coalitions of an utterance; a walk of permutation takes 2 players + 1")
    parser.add_argument("--removal", choices=["zero", "mean", "remove"], default="zero", help="what becomes of a token that is not in the coalition")
    parser.add_argument("--score", choices=["log_prob", "logit", "released"], default="log_prob", help="of each hypothesis token")
    parser.add_argument("--batch_size", type=int, default=64, help="coalitions that go through the LLM together")
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
    parser.add_argument("--ngpu", type=int, choices=[0, 1], default=0, help="1: on the GPU")


def main(argv: list[str] | None = None) -> None:
    """Explain every utterance that is not explained yet, then write numbers, tables and figures."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level="INFO", format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    from espnet2_avsr_llm.analysis.modality_figures import write_modalities
    from espnet2_avsr_llm.analysis.shap import Settings
    from espnet2_avsr_llm.inference.generate import Search

    model, utts = load(args)
    settings = Settings(args.estimator, args.max_evals, args.removal, args.score, args.batch_size, args.seed)
    pass_ = model.plan.all_passes()[0]
    about = {"model": str(args.asr_model_file), "task": pass_.task, "rates": dict(pass_.rates), "beam_size": args.beam_size, **vars(settings)}
    found = {c: explain_condition(model, pass_, utts, c, settings, Search(beam_size=args.beam_size), about, args) for c in args.conditions}
    write_modalities(args.output_dir, about, found, model.llm.tokens.tokenizer)
    logging.info(f"{args.output_dir}: {json.dumps({c: len(of) for c, of in found.items()})} utterances")


def load(args: argparse.Namespace):
    """The model in eval mode, and the utterances to look at."""
    from espnet2_avsr_llm.analysis.utterances import spread
    from espnet2_avsr_llm.bin.avsr_llm_inference import read_data_dir
    from espnet2_avsr_llm.inference.load import load_model

    device = "cuda" if args.ngpu else "cpu"
    model = load_model(args.asr_train_config, args.asr_model_file, device, None if args.ngpu else "float32")
    return model, spread(list(read_data_dir(args.data_dir)), args.num_utts)


def explain_condition(model, pass_, utts, condition, settings, search, about, args) -> dict:
    """The explanation of each utterance of a condition; those of an earlier run with the same settings are read back."""
    from tqdm import tqdm

    from espnet2_avsr_llm.analysis.shap import explain_utterance, read_explanation, write_explanation
    from espnet2_avsr_llm.analysis.utterances import read

    folder = args.output_dir / condition
    files = {utt: folder / f"{utt}.npz" for utt in utts}
    newest = args.asr_model_file.stat().st_mtime if args.asr_model_file else 0
    done = {utt: e for utt, file in files.items() if (e := read_explanation(file, about, newest)) is not None}
    todo = [utt for utt in utts if utt not in done]
    for utterance in tqdm(read(model, args.data_dir, args.noise_dir, condition, todo), desc=condition, total=len(todo), unit="utt"):
        done[utterance.utt] = explain_utterance(model, utterance, pass_, search, settings)
        write_explanation(files[utterance.utt], done[utterance.utt], about)
    return {utt: done[utt] for utt in utts if utt in done}


if __name__ == "__main__":
    main()
