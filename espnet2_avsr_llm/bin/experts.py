"""Which experts the routers of a Llama-SMoP or MoME model choose, by modality, layer and scale (stage 16)."""

from __future__ import annotations

import argparse
import logging

from espnet2_avsr_llm.bin.shap import add_model_options, describe, load_speech2text, utterances


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--condition", default="clean", help="clean, or the name of a noise list in --noise_dir")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Route the utterances at every scale of the plan; write numbers, tables and figures."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level="INFO", format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    import torch
    from tqdm import tqdm

    from espnet2_avsr_llm.analysis.expert_figures import write_experts
    from espnet2_avsr_llm.analysis.experts import Tally, observe
    from espnet2_avsr_llm.analysis.utterances import read

    speech2text = load_speech2text(args)
    model, (utts, load) = speech2text.model, utterances(args, speech2text, args.condition)
    texts = dict(line.split(maxsplit=1) for line in (args.data_dir / "text").read_text(encoding="utf-8").splitlines())
    passes, tally = model.plan.all_passes(), Tally()
    found = 0
    for utt, encoded in tqdm(read(speech2text, load, utts), total=len(utts), unit="utt"):
        ids = torch.tensor([model.llm.tokens.encode(texts[utt])], device=model.device)
        text = ids, torch.tensor([ids.shape[1]], device=model.device)
        tally.add(passes, [observe(model, encoded.features, p, text) for p in passes])
        found += 1
    about = {**describe(args, speech2text), "condition": args.condition, "utterances": found}
    write_experts(args.output_dir, about, tally.numbers())
    logging.info(f"{args.output_dir}: {found} utterances")


if __name__ == "__main__":
    main()
