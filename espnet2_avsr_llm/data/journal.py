"""What became of each utterance of a long job: one JSON object per line, appended when its files are whole.

A killed job continues behind the last whole line. Each part of a job array keeps a journal of its own, in the output
folder's `journal/`, its ids rising; together with `done.jsonl`, which a finished job leaves, all of them are read as one
sorted stream, so that memory does not grow with what was done before.
"""

import heapq
import json
import shutil
import zlib
from collections.abc import Iterable, Iterator
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from espnet2_avsr_llm.data.atomic import remove_leftovers, write_text

Entry = dict[str, Any]
T = TypeVar("T")
DONE = "done.jsonl"


def keep_settings(out_dir: Path, settings: dict[str, Any]) -> None:
    """Note the settings of a job, so that no later run mixes others in.

    Raises:
        SystemExit: it was begun with others.
    """
    path = out_dir / "settings.json"
    if not path.exists():
        write_text(path, json.dumps(settings) + "\n")
    elif (old := json.loads(path.read_text(encoding="utf-8"))) != settings:
        raise SystemExit(f"{out_dir} was made with {old}, asked for is {settings}: take these, or another --out_dir, or remove that one")


def mark(*source: Any) -> int:
    """What an entry keeps of its source, so that it is made again when that is another."""
    return zlib.crc32(repr(source).encode())


class Journal:
    """The journal of one part of a job, to append to; a torn last line, from a killed job, is cut off first."""

    def __init__(self, out_dir: Path, part: int, parts: int) -> None:
        self._folder, self._name = out_dir / "journal", f"{part:04d}of{parts:04d}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._open(len(list(self._folder.glob(f"{self._name}.*"))) or 1)

    def _open(self, number: int) -> None:
        path = self._folder / f"{self._name}.{number:03d}.jsonl"
        with open(path, "ab+") as file:
            length, self._last = _end(file)
            file.truncate(length)
        self._number, self._file = number, open(path, "a", encoding="utf-8")

    def append(self, entry: Entry) -> None:
        """Write an entry through to the system, so that it outlives this process."""
        if entry["utt"] <= self._last:  # done again, its source has changed: in a file of its own, as ids rise in each
            self.close()
            self._open(self._number + 1)
        self._last = entry["utt"]
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _end(file: BinaryIO) -> tuple[int, str]:
    """Length of a journal up to its last line end, and the utterance of its last whole line."""
    size, block = file.seek(0, 2), 4096
    while True:
        file.seek(max(0, size - block))
        *lines, torn = file.read().split(b"\n")
        if len(lines) > 1 or block >= size:
            return size - len(torn), json.loads(lines[-1])["utt"] if lines else ""
        block *= 4


def read(path: Path) -> Iterator[Entry]:
    """Entries of a journal; a torn last line, of a killed job or one that another part is writing, is left out."""
    with open(path, "rb") as lines:  # a torn line may end within a character
        yield from map(json.loads, takewhile(lambda line: line.endswith(b"\n"), lines))


def read_all(paths: Iterable[Path]) -> Iterator[Entry]:
    """Entries of several journals, sorted by ``utt``; of those of one utterance, the one of the last path."""
    merged = heapq.merge(*map(read, paths), key=lambda entry: entry["utt"])
    for _, entries in groupby(merged, key=lambda entry: entry["utt"]):
        *_, last = entries
        yield last


def with_entries(items: Iterable[tuple[str, T]], out_dir: Path) -> Iterator[tuple[str, T, Entry | None]]:
    """Each item, of rising ids, with what the journals of a folder say of it: the newest where they differ."""
    paths = [out_dir / DONE, *sorted((out_dir / "journal").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)]
    entries = read_all(path for path in paths if path.exists())
    entry = next(entries, None)
    for utt, item in items:
        while entry is not None and entry["utt"] < utt:
            entry = next(entries, None)
        yield utt, item, entry if entry is not None and entry["utt"] == utt else None


def close_all(out_dir: Path) -> None:
    """Remove the parts' journals of a job that is finished, and what killed runs of it left."""
    remove_leftovers(out_dir)
    shutil.rmtree(out_dir / "journal", ignore_errors=True)
