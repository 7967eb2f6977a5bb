"""Which experts the routers of a Llama-SMoP or MoME model choose, by modality, layer and scale (stage 16)."""

from __future__ import annotations

import argparse
import logging

from espnet2_avsr_llm.analysis import program


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = program.get_parser(__doc__)
    parser.add_argument("--condition", default="clean", help="clean, or the name of a noise list in --noise_dir")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Route the utterances at every trained scale of the task and rates asked for; write numbers, tables and figures."""
    args = program.start(get_parser(), argv)
    import torch

    from espnet2_avsr_llm.analysis.expert_figures import write_experts
    from espnet2_avsr_llm.analysis.experts import Tally, observe
    from espnet2_avsr_llm.analysis.utterances import read
    from espnet2_avsr_llm.data.tables import read_table

    speech2text = program.load_speech2text(args)
    model, (utts, load) = speech2text.model, program.utterances(args, args.condition)
    texts = read_table(args.data_dir / "text")
    request, tally = speech2text.request, Tally()
    passes = request.candidates(speech2text.trained, request.wanted(speech2text.trained))
    found = 0
    for utt, encoded in read(speech2text, load, utts):
        ids = torch.tensor([model.llm.tokens.encode(texts[utt])], device=model.device)
        text = ids, torch.tensor([ids.shape[1]], device=model.device)
        tally.add(passes, [observe(model, encoded.features, p, text) for p in passes])
        found += 1
    about = {**program.describe(args, speech2text), "condition": args.condition, "utterances": found}
    write_experts(args.output_dir, about, tally.numbers())
    logging.info(f"{args.output_dir}: {found} utterances")


if __name__ == "__main__":
    main()
