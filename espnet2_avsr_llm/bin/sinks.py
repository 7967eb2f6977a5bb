"""Attention sinks and massive activations of a model over its prefixes, their origin, and rotations (stage 16)."""

from __future__ import annotations

import argparse
import logging

from espnet2_avsr_llm.bin.shap import add_model_options, describe, load_speech2text, utterances


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--condition", default="clean", help="clean, or the name of a noise list in --noise_dir")
    parser.add_argument("--tau", type=float, default=1000.0, help="a massive feature is this many times the layer's median")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Trace every utterance, then write numbers, tables and figures."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level="INFO", format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    import torch
    from tqdm import tqdm

    from espnet2_avsr_llm.analysis.sink_figures import Seen, write_sinks
    from espnet2_avsr_llm.analysis.sinks import interventions, mlp_origin, trace
    from espnet2_avsr_llm.analysis.utterances import read, token_names

    speech2text = load_speech2text(args)
    model, (utts, load) = speech2text.model, utterances(args, speech2text, args.condition)
    seen, example = [], None
    for utt, encoded in tqdm(read(speech2text, load, utts), total=len(utts), unit="utt"):
        with torch.no_grad():
            inputs, _ = model.prepare(encoded.features, encoded.pass_)
        found = trace(model, inputs, encoded.pass_, args.tau, keep_maps=not seen)
        roles = inputs.roles[0].tolist()
        seen.append(Seen(utt, found, roles, token_names(model, roles)))
        example = example or (model, inputs, encoded.pass_, found)
    origin, rotations = mlp_origin(*example), interventions(*example, args.tau)
    about = {**describe(args, speech2text), "condition": args.condition, "tau": args.tau}
    write_sinks(args.output_dir, about, seen, origin, rotations)
    logging.info(f"{args.output_dir}: {len(seen)} utterances, {sum(len(s.trace.sinks) for s in seen)} sinks")


if __name__ == "__main__":
    main()
