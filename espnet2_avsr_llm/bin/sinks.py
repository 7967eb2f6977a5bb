"""Attention sinks and massive activations of a model over its prefixes, their origin, and rotations (stage 16)."""

from __future__ import annotations

import argparse
import logging

from espnet2_avsr_llm.analysis import program


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = program.get_parser(__doc__)
    parser.add_argument("--condition", default="clean", help="clean, or the name of a noise list in --noise_dir")
    parser.add_argument("--tau", type=float, default=1000.0, help="a massive feature is this many times the layer's median")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Trace every utterance, then write numbers, tables and figures."""
    args = program.start(get_parser(), argv)
    import torch

    from espnet2_avsr_llm.analysis.sink_figures import Seen, write_sinks
    from espnet2_avsr_llm.analysis.sinks import interventions, mlp_origin, trace
    from espnet2_avsr_llm.analysis.utterances import read, token_names

    speech2text = program.load_speech2text(args)
    model, (utts, load) = speech2text.model, program.utterances(args, args.condition)
    seen, example = [], None
    for utt, encoded in read(speech2text, load, utts):
        with torch.no_grad():
            inputs, _ = model.prepare(encoded.features, encoded.pass_)
        found = trace(model, inputs, encoded.pass_, args.tau, keep_maps=not seen)
        roles = inputs.roles[0].tolist()
        seen.append(Seen(utt, found, roles, token_names(model, roles)))
        example = example or (model, inputs, encoded.pass_, found)
    origin, rotations = mlp_origin(*example), interventions(*example, args.tau)
    about = {**program.describe(args, speech2text), "condition": args.condition, "tau": args.tau}
    write_sinks(args.output_dir, about, seen, origin, rotations)
    logging.info(f"{args.output_dir}: {len(seen)} utterances, {sum(len(s.trace.sinks) for s in seen)} sinks")


if __name__ == "__main__":
    main()
