"""Check, repair and filter data directories (Kaldi form)."""

import argparse
import json
import logging
import os
from pathlib import Path
from typing import Iterable, Mapping, Optional, Sequence

from espnet2_avsr_llm.data import MISSING
from espnet2_avsr_llm.data.atomic import write_text

PATH_TABLES = ("wav.scp", "video.scp")
TABLES = (*PATH_TABLES, "text", "utt2spk", "utt2num_samples", "utt2num_frames")
SAMPLES_PER_SECOND, FRAMES_PER_SECOND = 16000, 25
Tables = dict[str, dict[str, str]]


def read_table(path: Path) -> dict[str, str]:
    """Read a file of `utt value` lines.

    Raises:
        ValueError: when an id occurs twice; all such ids are named.
    """
    table: dict[str, str] = {}
    twice = []
    with open(path, encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            key, *rest = line.split(maxsplit=1) or [""]
            if key in table:
                twice.append(f"{key} (line {number})")
            if key:
                table[key] = rest[0].strip() if rest else ""
    if twice:
        raise ValueError(f"{path}: {len(twice)} ids occur more than once: {', '.join(twice[:10])}. Keep one line for each.")
    return table


def read_dir(directory: Path) -> Tables:
    """Read the tables that a data directory has.

    Raises:
        FileNotFoundError: when there is none, or neither wav.scp nor video.scp.
    """
    tables = {name: read_table(directory / name) for name in TABLES if (directory / name).is_file()}
    if not any(name in tables for name in PATH_TABLES):
        raise FileNotFoundError(f"{directory} holds neither wav.scp nor video.scp: prepare it first (stages 1 and 3).")
    return tables


def write_dir(directory: Path, tables: Tables, keys: Optional[Iterable[str]] = None) -> None:
    """Write tables sorted in the C locale, and spk2utt beside utt2spk.

    Args:
        directory: where to.
        tables: table by file name.
        keys: utterances to keep; all if None.
    """
    kept = None if keys is None else set(keys)
    for name, table in tables.items():
        rows = sorted(utt for utt in table if kept is None or utt in kept)
        write_text(directory / name, "".join(f"{utt} {table[utt]}".rstrip() + "\n" for utt in rows))
        if name == "utt2spk":
            speakers: dict[str, list[str]] = {}
            for utt in rows:
                speakers.setdefault(table[utt], []).append(utt)
            write_text(directory / "spk2utt", "".join(f"{s} {' '.join(utts)}\n" for s, utts in sorted(speakers.items())))


def problems(directory: Path) -> list[str]:
    """Everything that is wrong with a data directory: order, differing ids, unusable ids, missing media files."""
    tables = read_dir(directory)
    found = [f"{directory / name} is missing" for name in ("text", "utt2spk") if name not in tables]
    every = set().union(*tables.values())
    for name, table in tables.items():
        if list(table) != sorted(table):
            found.append(f"{directory / name} is not sorted in the C locale (LC_ALL=C sort)")
        if absent := sorted(every - set(table)):
            found.append(f"{directory / name} lacks {len(absent)} of {len(every)} ids: {', '.join(absent[:10])}")
    # ids become file names
    found += [f"{directory}: id {utt!r} holds a slash or starts with a dash or dot" for utt in every if "/" in utt or utt[0] in "-."]
    for name in filter(tables.__contains__, PATH_TABLES):
        files = ((utt, path) for utt, path in tables[name].items() if path != MISSING)
        found += [f"{directory / name}: {utt}: no file {path!r}" for utt, path in files if not os.path.isfile(path)]
    found += [f"{directory}: {utt} has neither sound nor video" for utt in sorted(common_keys(tables)) if not media_of(tables, utt)]
    return found


def media_of(tables: Tables, utt: str) -> dict[str, str]:
    """Those of wav.scp and video.scp that name a file for an utterance (and not ``-``), with the file."""
    paths = {name: tables[name].get(utt, MISSING) for name in PATH_TABLES if name in tables}
    return {name: path for name, path in paths.items() if path != MISSING}


def common_keys(tables: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Utterances that every table has."""
    return set.intersection(*(set(table) for table in tables.values()))


def drop_reason(tables: Tables, utt: str, shortest: float, longest: float) -> Optional[str]:
    """Why an utterance cannot be trained on, or None.

    Args:
        tables: of a dumped directory, with utt2num_samples (16 kHz) or utt2num_frames (25 fps).
        utt: its id.
        shortest: least duration in seconds.
        longest: greatest duration in seconds.
    """
    if not tables["text"][utt].strip():
        return "empty text"
    if not media_of(tables, utt):
        return "neither sound nor video"
    for scp, name, rate in (("wav.scp", "utt2num_samples", SAMPLES_PER_SECOND), ("video.scp", "utt2num_frames", FRAMES_PER_SECOND)):
        if name not in tables or tables.get(scp, {}).get(utt) == MISSING:
            continue
        seconds = int(tables[name][utt]) / rate
        if not shortest <= seconds <= longest:
            return f"{seconds:.2f} s by {name} is outside {shortest:g} to {longest:g} s"
    return None


def run_filter(args: argparse.Namespace) -> None:
    """Copy a directory without the utterances that cannot be trained on; what was dropped and why is in dropped.jsonl."""
    tables = read_dir(args.in_dir)
    if not {"utt2num_samples", "utt2num_frames"} & set(tables):
        raise SystemExit(f"{args.in_dir} has neither utt2num_samples nor utt2num_frames: dump it first (stage 3).")
    keys = sorted(common_keys(tables))
    reasons = {utt: drop_reason(tables, utt, args.min_wav_duration, args.max_wav_duration) for utt in keys}
    kept = [utt for utt, reason in reasons.items() if reason is None]
    dropped = [{"utt": utt, "reason": reason} for utt, reason in reasons.items() if reason is not None]
    if not kept:
        raise SystemExit(f"{args.in_dir}: all {len(keys)} utterances would be dropped, the first because: {dropped[:1]}")
    write_dir(args.out_dir, tables, kept)
    write_text(args.out_dir / "dropped.jsonl", "".join(json.dumps(row) + "\n" for row in dropped))
    logging.info("%s: kept %d of %d utterances (%s)", args.out_dir, len(kept), len(keys), args.out_dir / "dropped.jsonl")


def run_fix(args: argparse.Namespace) -> None:
    """Sort the tables, keep the ids that all of them have, rebuild spk2utt."""
    for directory in args.dirs:
        tables = read_dir(directory)
        keys = common_keys(tables)
        logging.info("%s: %d of %d ids are in every table", directory, len(keys), len(set().union(*tables.values())))
        write_dir(directory, tables, keys)


def run_validate(args: argparse.Namespace) -> None:
    """List every problem of the directories; fail if there is one."""
    found = [problem for directory in args.dirs for problem in problems(directory)]
    for problem in found:
        logging.error(problem)
    if found:
        raise SystemExit(f"{len(found)} problems; `avsr-llm datadir fix DIR` sorts and intersects, the rest is for you to correct.")
    logging.info("valid: %s", " ".join(map(str, args.dirs)))


def get_parser() -> argparse.ArgumentParser:
    """Options of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        return command

    for name, run in (("validate", run_validate), ("fix", run_fix)):
        add(name, run).add_argument("dirs", type=Path, nargs="+")
    command = add("filter", run_filter)
    command.add_argument("--in_dir", type=Path, required=True)
    command.add_argument("--out_dir", type=Path, required=True)
    command.add_argument("--min_wav_duration", type=float, default=0.1, help="seconds")
    command.add_argument("--max_wav_duration", type=float, default=20.0, help="seconds")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run one command."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    args.run(args)


if __name__ == "__main__":
    main()
