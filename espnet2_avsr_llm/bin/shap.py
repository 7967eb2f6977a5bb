"""Shapley values of the audio and video tokens for each hypothesis token, with shares, windows and alignment (stage 16).

The settings of Dr. SHAP-AV (arXiv 2603.12046), as options: --num_utts 1321 --longest 20 --beam_size 15 --score released, in the
conditions of --noise_snrs dr_shap_av; its sampling estimator is --estimator sampling --max_evals 4000.
"""

from __future__ import annotations

import argparse
import logging

from espnet2_avsr_llm.analysis import program


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = program.get_parser(__doc__)
    parser.add_argument("--conditions", nargs="+", default=["clean"], help="clean, or others of data/conditions.py")
    parser.add_argument("--estimator", choices=["permutation", "sampling", "exact"], default="permutation")
    parser.add_argument("--max_evals", type=int, default=2000, help="coalitions of an utterance; a walk of permutation takes 2 players + 1")
    parser.add_argument("--removal", choices=["zero", "mean", "remove"], default="zero", help="what becomes of a token that is not in the coalition")
    parser.add_argument("--score", choices=["log_prob", "logit", "released"], default="log_prob", help="of each hypothesis token")
    parser.add_argument("--batch_size", type=int, default=32, help="coalitions that go through the LLM together")
    parser.add_argument("--longest", type=int, help="utterances, those with the most players, of windows and alignment; none: all")
    parser.add_argument("--beam_size", type=int, default=1, help="of the hypothesis")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Explain every utterance that is not explained yet, then write numbers, tables and figures."""
    args = program.start(get_parser(), argv)
    if args.longest is not None and args.longest < 1:
        raise SystemExit(f"--longest {args.longest}: expected at least 1")
    from espnet2_avsr_llm.analysis.modality_figures import write_modalities
    from espnet2_avsr_llm.analysis.shap import Settings

    speech2text = program.load_speech2text(args, beam_size=args.beam_size)
    conditions = concerning(args.conditions, speech2text)
    settings = Settings(args.estimator, args.max_evals, args.removal, args.score, args.batch_size, args.seed)
    about = {**program.describe(args, speech2text), "beam_size": args.beam_size, **vars(settings)}
    found = {condition: explain_condition(speech2text, condition, settings, about, args) for condition in conditions}
    write_modalities(args.output_dir, about, found, speech2text.model.llm.tokens.tokenizer, args.longest)
    logging.info(f"{args.output_dir}: {', '.join(f'{len(of) - list(of.values()).count(None)} utterances in {c}' for c, of in found.items())}")


def concerning(conditions: list[str], speech2text) -> list[str]:
    """Those of the conditions that mean something to the task asked for; the others are told.

    Raises:
        ValueError: none does.
    """
    from espnet2_avsr_llm.data.conditions import concerns

    task = speech2text.request.wanted(speech2text.trained)
    streams = set(speech2text.request.candidates(speech2text.trained, task)[0].rates)
    found = [c for c in conditions if concerns(c, streams)]
    if not found:
        raise ValueError(f"--conditions {' '.join(conditions)}: none concerns {task}, which reads {', '.join(sorted(streams))}; clean always does")
    if left := sorted(set(conditions) - set(found)):
        logging.info(f"Left out, as {task} does not read what they change: {', '.join(left)}")
    return found


def explain_condition(speech2text, condition: str, settings, about: dict, args: argparse.Namespace) -> dict:
    """The explanation of each utterance of a condition; those of an earlier run with the same settings are read back.

    None where an utterance cannot be looked at, or has more players than the estimator can do; a warning says why.

    Raises:
        ValueError: so it is with all of them.
    """
    from espnet2_avsr_llm.analysis.shap import explain_utterance, read_explanation, write_explanation
    from espnet2_avsr_llm.analysis.utterances import read

    utts, load = program.utterances(args, condition)
    files = {utt: args.output_dir / condition / f"{utt}.npz" for utt in utts}
    newest = args.asr_model_file.stat().st_mtime if args.asr_model_file else 0
    done = {utt: found for utt, file in files.items() if (found := read_explanation(file, about, newest)) is not None}
    for utt, encoded in read(speech2text, load, utts, done):
        try:
            done[utt] = explain_utterance(speech2text, utt, encoded, settings)
        except ValueError as e:
            logging.warning(f"{utt} is left out: {e}")
            continue
        write_explanation(files[utt], done[utt], about)
    if not done:
        raise ValueError(f"None of the {len(utts)} utterances can be explained; the warnings above say why")
    return {utt: done.get(utt) for utt in utts}


if __name__ == "__main__":
    main()
