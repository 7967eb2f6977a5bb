"""Resolve the pretrained parts of a training configuration and show its prompts and added tokens (stage 5)."""

from __future__ import annotations

import argparse
import sys


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    from espnet2_avsr_llm.config import add_part_options

    parser = argparse.ArgumentParser(description=__doc__)
    add_part_options(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Resolve every source; a missing or gated one ends with what to do about it. Options of training that do not matter here are ignored."""
    args, _ = get_parser().parse_known_args(argv)
    from espnet2_avsr_llm.config import from_options
    from espnet2_avsr_llm.hub.resolve import SourceError

    try:
        sys.stdout.write(f"{args.config}\n{report(from_options(args))}")
    except SourceError as e:
        sys.exit(f"{args.config}: {e}")


def report(config: dict) -> str:
    """Where each pretrained part of a configuration is, the ids of the added tokens and of the prompts.

    Raises:
        SourceError: a part is missing.
    """
    from espnet2_avsr_llm.build import PRETRAINED
    from espnet2_avsr_llm.hub.resolve import SourceError, arch, resolve
    from espnet2_avsr_llm.llm.tokens import ADDED_TOKENS, PROMPTS, load_tokens

    lines = []
    for part in PRETRAINED:
        conf = config.get(f"{part}_conf") or {}
        if config.get(part) is None or conf.get("init") == "random":
            continue
        source = conf.get("source") or (arch(conf["arch"]).get("_name_or_path") if conf.get("arch") else None)
        if not source:
            raise SourceError(f"{part}_conf needs a source: a folder, or the hub id of the weights")
        lines.append(f"{part}: {source} -> {resolve(source, conf.get('revision'))}")
    llm = config["llm_conf"]
    tokens = load_tokens(llm.get("source"), llm.get("revision"), llm.get("init", "pretrained"), llm.get("arch"))
    lines.append(f"added tokens: {dict(zip(ADDED_TOKENS, tokens.added_ids))}")
    lines += [f"prompt {task}: {prompt!r} = {tokens.prompt_ids(task)}" for task, prompt in PROMPTS.items()]
    return "".join(f"  {line}\n" for line in lines)


if __name__ == "__main__":
    main()
