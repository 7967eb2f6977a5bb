"""Check, repair, filter and combine data directories (Kaldi form)."""

import argparse
import heapq
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from espnet2_avsr_llm.data import INPUTS_PER_SECOND, MISSING
from espnet2_avsr_llm.data.atomic import atomic_path
from espnet2_avsr_llm.data.tables import LENGTH_TABLES, PATH_TABLES, Row, count, read_dir, rows, segment_of
from espnet2_avsr_llm.data.tables import split_line, table_names, write_dir, writing

_SHOWN = 1000  # problems of one kind


def problems(directory: Path) -> list[str]:
    """Everything that is wrong with a data directory, with line and id: order, ids, missing values and files."""
    names = table_names(directory)
    found = [f"{directory / name} is missing" for name in ("text", "utt2spk") if not (directory / name).is_file()]
    ids: dict[str, int] | None = None
    for name in names:
        lines: dict[str, int] = {}
        found += list(_problems_of(directory / name, lines))[:_SHOWN]
        if ids is not None and lines.keys() != ids.keys():
            absent = {names[0]: sorted(lines.keys() - ids), name: sorted(ids.keys() - lines)}
            found += [f"{directory / n} lacks {len(utts)} ids: {', '.join(utts[:10])}" for n, utts in absent.items() if utts]
        ids = ids or lines
    if not found:
        found = [f"{directory}: {utt} has neither sound nor video" for utt, row in rows(directory) if not media_of(row)]
    return found


def media_of(row: Row) -> dict[str, str]:
    """Those of wav.scp and video.scp that name a file (and not ``-``), with the file."""
    return {name: row[name] for name in PATH_TABLES if row.get(name, MISSING) != MISSING}


def _problems_of(path: Path, lines: dict[str, int]) -> Iterator[str]:
    """What is wrong with one table; ``lines`` gets the line of each id."""
    previous, is_sorted = "", True
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            utt, value = split_line(line)
            where = f"{path}:{number}: {utt or 'an empty line'}"
            if not utt:
                yield where
                continue
            if utt in lines:
                yield f"{where} is there already in line {lines[utt]}"
            elif "/" in utt or utt[0] in "-.":  # ids become file names
                yield f"{where}: the id holds a slash or starts with a dash or dot"
            elif not value and path.name != "text":
                yield f"{where} has no value"
            elif path.name in PATH_TABLES and value != MISSING and not os.path.isfile(value):
                yield f"{where}: no file {value!r}"
            elif path.name == "utt2segment":
                try:
                    segment_of(utt, {path.name: value})
                except ValueError as error:
                    yield f"{path}:{number}: {error}"
            lines.setdefault(utt, number)
            is_sorted &= utt >= previous
            previous = utt
    if not is_sorted:
        yield f"{path} is not sorted in the C locale (LC_ALL=C sort)"


def overlaps(directories: Sequence[Path]) -> Iterator[tuple[Path, Path, list[str]]]:
    """Pairs of directories that share utterances, files, or recordings (utt2video), and what they share."""
    first: dict[tuple[str, str], Path] = {}
    shared: dict[tuple[Path, Path], list[str]] = {}
    ordered = sorted(directories, key=count)
    for directory in ordered:
        new = {}
        for utt, row in rows(directory):
            keys = [("utterance", utt), *media_of(row).items(), ("utt2video", row.get("utt2video", f"{directory} {utt}"))]
            for key in keys:
                if key in first:
                    shared.setdefault((first[key], directory), []).append(f"{utt} ({key[0]} {key[1]})")
                elif directory != ordered[-1]:  # the largest is only read, not kept
                    new[key] = directory
        first |= new
    return ((*pair, utts) for pair, utts in shared.items())


def drop_reason(row: Row, shortest: float, longest: float) -> str | None:
    """Why an utterance cannot be trained on, or None.

    Args:
        row: of a dumped directory, with utt2num_samples (16 kHz) or utt2num_frames (25 fps).
        shortest: least duration in seconds.
        longest: greatest duration in seconds.
    """
    if not row["text"].strip():
        return "empty text"
    if not media_of(row):
        return "neither sound nor video"
    for scp, name, rate in zip(PATH_TABLES, LENGTH_TABLES, INPUTS_PER_SECOND.values()):
        seconds = int(row.get(name, 0)) / rate
        if scp in media_of(row) and name in row and not shortest <= seconds <= longest:
            return f"{seconds:.2f} s by {name} is outside {shortest:g} to {longest:g} s"
    return None


def run_filter(args: argparse.Namespace) -> None:
    """Copy a directory without the utterances that cannot be trained on; what was dropped and why is in dropped.jsonl."""
    names = table_names(args.in_dir)
    if not set(LENGTH_TABLES) & set(names):
        raise SystemExit(f"{args.in_dir} has neither utt2num_samples nor utt2num_frames: dump it first (stage 3).")
    kept, example = 0, None
    with atomic_path(args.out_dir / "dropped.jsonl") as path, open(path, "w", encoding="utf-8") as dropped, writing(args.out_dir, names) as write:
        for utt, row in rows(args.in_dir):
            reason = drop_reason(row, args.min_wav_duration, args.max_wav_duration)
            if reason is None:
                kept += 1
                write(utt, row)
            else:
                example = {"utt": utt, "reason": reason}
                dropped.write(json.dumps(example) + "\n")
        if not kept:
            raise SystemExit(f"{args.in_dir}: all utterances would be dropped, one because: {example}")
    total = count(args.in_dir)
    logging.info("%s: kept %d of %d utterances (%s)", args.out_dir, kept, total, args.out_dir / "dropped.jsonl")


def run_fix(args: argparse.Namespace) -> None:
    """Sort the tables, keep the ids that all of them have, rebuild spk2utt."""
    for directory in args.dirs:
        tables = read_dir(directory)
        keys = set.intersection(*map(set, tables.values()))
        logging.info("%s: %d of %d ids are in every table", directory, len(keys), len(set().union(*tables.values())))
        write_dir(directory, tables, keys)


def run_combine(args: argparse.Namespace) -> None:
    """Write the utterances of several directories to one, without those of recordings in --apart_from; it has the tables that all of them have."""
    found = [set(table_names(directory)) for directory in args.dirs]
    names = set.intersection(*found)
    if "utt2segment" in set.union(*found) - names:
        raise SystemExit(f"{' '.join(map(str, args.dirs))}: some have utt2segment, others not; give these one too, with lines `utterance 0 -1`")
    taken = {row["utt2video"] for directory in args.apart_from for _, row in rows(directory)}
    previous, left_out = None, []
    with writing(args.out_dir, sorted(names)) as write:
        for utt, row in heapq.merge(*map(rows, args.dirs), key=lambda item: item[0]):
            if utt == previous:
                raise SystemExit(f"{utt} is in more than one of {' '.join(map(str, args.dirs))}: expected different ids")
            if row.get("utt2video") in taken:
                left_out.append(utt)
            else:
                write(utt, row)
            previous = utt
    if left_out:
        logging.warning("%s: left out %d utterances of recordings in --apart_from, such as %s", args.out_dir, len(left_out), left_out[:5])
    logging.info("%s: %d utterances", args.out_dir, count(args.out_dir))


def run_validate(args: argparse.Namespace) -> None:
    """List every problem of the directories, and what they share; fail if there is one, or if a test set shares anything.

    One directory may be named as both: whoever decodes the validation set knows it.
    """
    directories = list(dict.fromkeys([*args.dirs, *args.test]))
    found = [problem for directory in directories for problem in problems(directory)]
    if not found:
        for one, other, utts in overlaps(directories):
            text = f"{one} and {other} share {len(utts)} utterances or recordings: {', '.join(utts[:5])}"
            if {one, other} & set(args.test):
                found.append(text)
            else:
                logging.warning(text)
    for problem in found:
        logging.error(problem)
    if found:
        raise SystemExit(f"{len(found)} problems; `avsr-llm datadir fix DIR` sorts and intersects, the rest is for you to correct.")
    logging.info("valid: %s", " ".join(map(str, directories)))


def get_parser() -> argparse.ArgumentParser:
    """Options of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        return command

    add("fix", run_fix).add_argument("dirs", type=Path, nargs="+")
    command = add("validate", run_validate)
    command.add_argument("dirs", type=Path, nargs="+")
    command.add_argument("--test", type=Path, nargs="+", default=[], help="test sets: none of the others may share a recording with them")
    command = add("combine", run_combine)
    command.add_argument("dirs", type=Path, nargs="+")
    command.add_argument("--out_dir", type=Path, required=True)
    command.add_argument("--apart_from", type=Path, nargs="+", default=[], help="directories with utt2video, such as the test sets")
    command = add("filter", run_filter)
    command.add_argument("--in_dir", type=Path, required=True)
    command.add_argument("--out_dir", type=Path, required=True)
    command.add_argument("--min_wav_duration", type=float, default=0.1, help="seconds")
    command.add_argument("--max_wav_duration", type=float, default=20.0, help="seconds")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    args.run(args)


if __name__ == "__main__":
    main()
