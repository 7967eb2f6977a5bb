"""Resolve the pretrained parts of training configurations and show their prompts and added tokens (stage 5)."""

from __future__ import annotations

import argparse
import sys


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    from espnet2_avsr_llm.config import add_part_options

    parser = argparse.ArgumentParser(description=__doc__, conflict_handler="resolve")
    add_part_options(parser)
    parser.add_argument("--config", nargs="+", required=True, help="training configurations")
    parser.add_argument("--early", action="store_true", help="for stage 1: only look for the parts, and warn where stage 5 would stop")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Resolve every source; a missing or gated one ends with what to do about it. Options of training that do not matter here are ignored."""
    args, _ = get_parser().parse_known_args(argv)
    from espnet2_avsr_llm.config import from_options
    from espnet2_avsr_llm.hub.resolve import SourceError

    configs = {name: from_options(argparse.Namespace(**{**vars(args), "config": name})) for name in args.config}
    if args.early:
        warn(configs)
        return
    for name, config in configs.items():
        try:
            sys.stdout.write(f"{name}\n{report(config)}")
        except SourceError as e:
            sys.exit(f"{name}: {e}")


def warn(configs: dict[str, dict]) -> None:
    """Say, each once, which parts cannot be had now: while data are prepared there is time for a licence or a conversion. Needs no torch."""
    from espnet2_avsr_llm.config import PARTS
    from espnet2_avsr_llm.hub.resolve import SourceError

    sys.stdout.write(f"Looking for the pretrained parts of {' '.join(configs)}; those on the hub are fetched\n")
    sys.stdout.flush()
    named = [(part, config) for config in configs.values() for part in PARTS if {"source", "arch"} & (config.get(f"{part}_conf") or {}).keys()]
    reasons = []
    for part, config in named:
        try:
            find(part, config)
        except SourceError as e:
            reasons.append(str(e))
    for reason in dict.fromkeys(reasons):
        sys.stderr.write(f"Warning: stage 5 will stop at this: {reason}\n")


def find(part: str, config: dict) -> str | None:
    """Where a pretrained part of a configuration is; None where it leaves the part out or draws it.

    Raises:
        SourceError: it is missing.
    """
    from espnet2_avsr_llm.hub.resolve import SourceError, resolve, source_of

    conf = config.get(f"{part}_conf") or {}
    if config.get(part) is None or conf.get("init") == "random":
        return None
    try:
        source = source_of(conf.get("source"), conf.get("arch"))
        return f"{part}: {source} -> {resolve(source, conf.get('revision'))}"
    except SourceError as e:
        hint = ". `avsr-llm convert avhubert` makes the folder; AVHUBERT in db.sh names it" if config[part] == "avhubert" else ""
        raise SourceError(f"{part}: {e}{hint}") from e


def report(config: dict) -> str:
    """Where each pretrained part of a configuration is, the ids of the added tokens and of the prompts.

    Raises:
        SourceError: a part is missing.
    """
    from espnet2_avsr_llm.build import PRETRAINED
    from espnet2_avsr_llm.llm.tokens import ADDED_TOKENS, PROMPTS, tokens_of

    lines = [line for line in (find(part, config) for part in PRETRAINED) if line]
    tokens = tokens_of(config["llm_conf"])
    lines.append(f"added tokens: {dict(zip(ADDED_TOKENS, tokens.added_ids))}")
    lines += [f"prompt {task}: {prompt!r} = {tokens.prompt_ids(task)}" for task, prompt in PROMPTS.items()]
    return "".join(f"  {line}\n" for line in lines)


if __name__ == "__main__":
    main()
