"""What became of each utterance of a long job: one JSON object per line, appended when its files are whole.

A killed job continues behind the last whole line. Each part of a job array keeps a journal of its own, in the output
folder's `journal/`, its ids rising; together with `done.jsonl`, which a finished job leaves, all of them are read as one
sorted stream, so that memory does not grow with what was done before.
"""

import heapq
import json
import shutil
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO, TypeVar

Entry = dict[str, Any]
T = TypeVar("T")
DONE = "done.jsonl"


class Journal:
    """The journal of one part of a job, to append to; a torn last line, from a killed job, is cut off first."""

    def __init__(self, out_dir: Path, part: int, parts: int) -> None:
        path = out_dir / "journal" / f"{part:04d}of{parts:04d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            file.truncate(_whole_lines(file))
        self._file: TextIO = open(path, "a", encoding="utf-8")

    def append(self, entry: Entry) -> None:
        """Write an entry through to the system, so that it outlives this process."""
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _whole_lines(file) -> int:
    """Length of a file up to its last line end."""
    size = file.seek(0, 2)
    for end in range(size, 0, -4096):
        start = max(0, end - 4096)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
    return 0


def read(path: Path) -> Iterator[Entry]:
    """Entries of a journal; a torn last line is left out."""
    with open(path, encoding="utf-8", newline="\n") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def read_all(paths: Iterable[Path]) -> Iterator[Entry]:
    """Entries of several journals, sorted by ``utt``; of those of one utterance, the one of the last path."""
    merged = heapq.merge(*map(read, paths), key=lambda entry: entry["utt"])
    for _, entries in groupby(merged, key=lambda entry: entry["utt"]):
        *_, last = entries
        yield last


def with_entries(items: Iterable[tuple[str, T]], out_dir: Path) -> Iterator[tuple[str, T, Entry | None]]:
    """Each item, of rising ids, with what the journals of a folder say of it; those of an unfinished job go first."""
    paths = [out_dir / DONE, *sorted((out_dir / "journal").glob("*.jsonl"))]
    entries = read_all(path for path in paths if path.exists())
    entry = next(entries, None)
    for utt, item in items:
        while entry is not None and entry["utt"] < utt:
            entry = next(entries, None)
        yield utt, item, entry if entry is not None and entry["utt"] == utt else None


def close_all(out_dir: Path) -> None:
    """Remove the parts' journals of a job that is finished."""
    shutil.rmtree(out_dir / "journal", ignore_errors=True)
