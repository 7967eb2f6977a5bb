"""Print parameters, LLM tokens and FLOPs of a training configuration, without weights or network."""

from __future__ import annotations

import argparse
import json
import sys


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    from espnet2_avsr_llm.config import add_part_options

    parser = argparse.ArgumentParser(description=__doc__)
    add_part_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rates", nargs="+", metavar="A,V", help="rates of each stream, one group per pass; default: the plan's")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the utterance")
    parser.add_argument("--prompt_tokens", type=int, default=7, help="tokens of the prompt; the papers count 7")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Build the model on ``meta`` and print its counts."""
    args = get_parser().parse_args(argv)
    from espnet2_avsr_llm.config import from_options
    from espnet2_avsr_llm.summary import on_meta, summarise

    rates = [[int(r) for r in group.split(",")] for group in args.rates] if args.rates else None
    summary = summarise(on_meta(from_options(args)), rates, args.seconds, args.prompt_tokens)
    sys.stdout.write(json.dumps(summary, indent=2) + "\n" if args.json else _table(summary))


def _table(summary: dict) -> str:
    lines = [f"{'part':<16}{'total':>16}{'trainable':>14}{'active':>16}"]
    for part, c in [*summary["parameters"]["by_part"].items(), ("all", summary["parameters"])]:
        lines.append(f"{part:<16}{c['total']:>16,}{c['trainable']:>14,}{c['active']:>16,}")
    lines.append(f"\n{'pass':<30}{'audio':>7}{'video':>7}{'prompt':>7}{'llm TFLOPs':>12}{'paper TFLOPs':>14}   ({summary['seconds']} s)")
    for p in summary["passes"]:
        name = f"{p['task']} {p['rates']}"
        tokens = f"{p['audio_tokens']:>7}{p['video_tokens']:>7}{p['prompt_tokens']:>7}"
        lines.append(f"{name:<30}{tokens}{p['llm_tflops']:>12.3f}{p['paper_tflops']:>14.3f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
