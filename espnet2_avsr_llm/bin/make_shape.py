"""Write the length file of a data directory: LLM tokens and encoder frames of each utterance (stage 10)."""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

from espnet2_avsr_llm.data import SAMPLES_PER_FRAME

LENGTHS = {"speech": "utt2num_samples", "video": "utt2num_frames"}
SHOWN = 5  # names in a warning


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    from espnet2_avsr_llm.config import add_part_options

    parser = argparse.ArgumentParser(description=__doc__)
    add_part_options(parser)
    parser.add_argument("--data_dirs", required=True, nargs="+", help="dumped data directories with text, utt2num_samples and utt2num_frames")
    parser.add_argument("--outs", required=True, nargs="+", help="file to write for each: 'utterance tokens,frames' per line")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Count the tokens of every utterance over the passes of the plan's longest step. Options of training that do not matter here are ignored."""
    args, _ = get_parser().parse_known_args(argv)
    logging.basicConfig(level="INFO", format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    from espnet2_avsr_llm.config import from_options
    from espnet2_avsr_llm.data.atomic import write_text

    config = from_options(args)
    for data_dir, out in zip(args.data_dirs, args.outs, strict=True):
        lengths = token_lengths(config, Path(data_dir))
        write_text(out, "".join(f"{utt} {tokens},{frames}\n" for utt, (tokens, frames) in lengths.items()))


def token_lengths(config: dict, data_dir: Path) -> dict[str, tuple[int, int]]:
    """LLM tokens over the passes of the longest step, and 25-fps frames, of each utterance.

    One without any audio or video token in some pass, at which training would stop, is left out with a warning.

    Raises:
        ValueError: none is left.
    """
    from espnet2_avsr_llm.build import outline, part, stream_widths
    from espnet2_avsr_llm.data.tables import read_table
    from espnet2_avsr_llm.lengths import count_features, count_tokens, empty_pass, shortest
    from espnet2_avsr_llm.llm.tokens import tokens_of

    tokens = tokens_of(config["llm_conf"])
    plan, frontends = part(config, "plan"), outline(config)
    stream_widths(plan, frontends)
    prompts = {task: len(tokens.prompt_ids(task)) for task in {p.task for p in plan.all_passes()}}
    bos = int(tokens.bos_id is not None)
    tables = {name: read_table(data_dir / LENGTHS[name]) for name in {name for f in frontends for name in f.inputs}}
    lengths, left_out = {}, []
    for utt, text in read_table(data_dir / "text").items():
        counts = {name: int(of[utt]) for name, of in tables.items()}
        frames = count_features(frontends, counts)
        if empty := empty_pass(plan.all_passes(), frames):
            left_out.append(f"{utt} ({empty.name})")
            continue
        length = len(tokens.encode(text))
        total = sum(count_tokens(p, frames, prompts[p.task], bos).total(length) for p in plan.longest())
        lengths[utt] = total, counts.get("video") or math.ceil(counts["speech"] / SAMPLES_PER_FRAME)
    if left_out:
        logging.warning(
            f"{data_dir}: left out {len(left_out)} of {len(left_out) + len(lengths)} utterances without an audio or video token in a pass, "
            f"such as {', '.join(left_out[:SHOWN])}: {shortest(plan.all_passes(), frontends):g} s of sound and video would do"
        )
    if not lengths:
        raise ValueError(f"{data_dir} has no utterance to train on: see the warning above, or check its text")
    return lengths


if __name__ == "__main__":
    main()
