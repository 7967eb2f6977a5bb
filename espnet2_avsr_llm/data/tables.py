"""Data directories in Kaldi's form: tables with a line `utterance value` for each utterance, sorted in the C locale.

Tables of a million lines are read together, row by row, so that memory does not grow with them.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path

from espnet2_avsr_llm.data.atomic import atomic_path

PATH_TABLES = ("wav.scp", "video.scp")
# utt2segment: `start end` in seconds of the files in wav.scp and video.scp, end -1 for their end;
# utt2video: the recording that an utterance was cut out of, by which train and test must not overlap.
SOURCE_TABLES = ("text", "utt2spk", "utt2video", "utt2segment")
LENGTH_TABLES = ("utt2num_samples", "utt2num_frames")
TABLES = (*PATH_TABLES, *SOURCE_TABLES, *LENGTH_TABLES)
Tables = dict[str, dict[str, str]]
Row = dict[str, str]


def read_table(path: Path) -> dict[str, str]:
    """Read a file of `utt value` lines.

    Raises:
        ValueError: when an id occurs twice; all such ids are named.
    """
    table: dict[str, str] = {}
    twice = []
    with open(path, encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            key, value = split_line(line)
            if key in table:
                twice.append(f"{key} (line {number})")
            if key:
                table[key] = value
    if twice:
        raise ValueError(f"{path}: {len(twice)} ids occur more than once: {', '.join(twice[:10])}. Keep one line for each.")
    return table


def split_line(line: str) -> tuple[str, str]:
    """Id and value of a line; both may be empty."""
    key, *rest = line.split(maxsplit=1) or [""]
    return key, rest[0].strip() if rest else ""


def segment_of(utt: str, row: Row) -> tuple[float, float | None]:
    """Start and end of an utterance in its files by utt2segment, in seconds; end None is their end. Without that table it is all of them.

    Raises:
        ValueError: there is something else in the table.
    """
    value = row.get("utt2segment", "0 -1")
    try:
        start, end = map(float, value.split())
    except ValueError:
        start = end = math.nan
    if end == -1:
        end = math.inf
    if not 0 <= start < end:
        raise ValueError(f"utt2segment of {utt} is {value!r}; expected `start end` in seconds, 0 <= start < end, or end -1 for the end of the file")
    return start, None if end == math.inf else end


def table_names(directory: Path) -> list[str]:
    """The tables that a data directory has.

    Raises:
        FileNotFoundError: when there is neither wav.scp nor video.scp.
    """
    names = [name for name in TABLES if (directory / name).is_file()]
    if not set(names) & set(PATH_TABLES):
        raise FileNotFoundError(f"{directory} holds neither wav.scp nor video.scp: prepare it first (stages 1 and 3).")
    return names


def read_dir(directory: Path) -> Tables:
    """Read the tables that a data directory has, whole."""
    return {name: read_table(directory / name) for name in table_names(directory)}


def rows(directory: Path) -> Iterator[tuple[str, Row]]:
    """Read all tables of a data directory together: each utterance with its values by table.

    Raises:
        FileNotFoundError: there are no tables.
        ValueError: the tables are not sorted, or not of the same ids; the line is named.
    """
    names, previous = table_names(directory), ""
    with ExitStack() as stack:
        files = [stack.enter_context(open(directory / name, encoding="utf-8", newline="\n")) for name in names]
        for number, lines in enumerate(zip_longest(*files, fillvalue=""), 1):
            keys, values = zip(*map(split_line, lines))
            utt, advice = keys[0], f"run `avsr-llm datadir fix {directory}`"
            if any(key != utt for key in keys):
                raise ValueError(f"{directory}: the tables have different ids in line {number}, {dict(zip(names, keys))}: {advice}")
            if utt <= previous:
                raise ValueError(f"{directory}: not sorted in the C locale, line {number} has {utt!r} after {previous!r}: {advice}")
            yield utt, dict(zip(names, values))
            previous = utt


def count(directory: Path) -> int:
    """Number of utterances."""
    with open(directory / table_names(directory)[0], "rb") as lines:
        return sum(1 for _ in lines)


@contextmanager
def writing(directory: Path, names: Iterable[str]) -> Iterator[Callable[[str, Row], None]]:
    """Give a function that writes one row, of rising ids; all tables, and spk2utt, appear when the block ends well."""
    speakers: defaultdict[str, bytearray] = defaultdict(bytearray)  # a third of the memory of lists
    with ExitStack() as stack:
        temporary = {name: stack.enter_context(atomic_path(directory / name)) for name in names}
        files = {name: stack.enter_context(open(path, "w", encoding="utf-8", newline="\n")) for name, path in temporary.items()}

        def write(utt: str, row: Row) -> None:
            for name, file in files.items():
                file.write(f"{utt} {row[name]}".rstrip() + "\n")
            if "utt2spk" in files:
                speakers[row["utt2spk"]] += f" {utt}".encode()

        yield write
    if speakers:
        with atomic_path(directory / "spk2utt") as path, open(path, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{speaker}{utts.decode()}\n" for speaker, utts in sorted(speakers.items()))


def write_dir(directory: Path, tables: Tables, keys: Iterable[str] | None = None) -> None:
    """Write tables sorted in the C locale, and spk2utt beside utt2spk.

    Args:
        directory: where to.
        tables: table by file name, all of the same ids.
        keys: utterances to keep; all if None.
    """
    first = next(iter(tables.values()))
    with writing(directory, tables) as write:
        for utt in sorted(first if keys is None else keys):
            write(utt, {name: table[utt] for name, table in tables.items()})
