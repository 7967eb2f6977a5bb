"""What became of each utterance of a long job: one JSON object per line, appended when its files are whole.

A killed job continues behind the last whole line. Each part of a job array keeps a journal of its own, its ids rising;
all of them are read as one sorted stream, so that neither memory nor start-up time depends on what was done before.
"""

import heapq
import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

Entry = dict[str, Any]


class Journal:
    """A journal to append to; a torn last line, from a killed job, is cut off first."""

    def __init__(self, path: Path) -> None:
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
