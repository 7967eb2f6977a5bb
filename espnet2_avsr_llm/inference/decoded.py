"""Files of a decoded test set: what they were made with, when they are complete, and those of several parts as one."""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet2_avsr_llm.data import MISSING
from espnet2_avsr_llm.data.atomic import write_text
from espnet2_avsr_llm.data.conditions import Condition
from espnet2_avsr_llm.data.journal import mark

if TYPE_CHECKING:
    from espnet2_avsr_llm.inference.choose import Request


class Cell:
    """One request in one condition.

    Args:
        name: folder of its files, PASS/CONDITION.
        request: what to decode with.
        condition: what is done to the inputs.
        model_file: checkpoint.
        options: of the search.
    """

    def __init__(self, name: str, request: Request, condition: Condition, model_file: Path, options: dict[str, Any]) -> None:
        self.name, self.request, self.condition, self._model_file = name, request, condition, model_file
        # noise by content: stage 5 writes the same files again in every run
        files = sorted({entry.path for entries in condition.noise for entry in entries.values()})
        self.settings = {**options, "noise": mark(condition.noise, [_checksum(file) for file in files])}

    def complete(self, folder: Path, utterances: dict[str, dict[str, str]]) -> bool:
        """Whether ``text`` holds every utterance (it is written last, and at once), made with these settings of this model and media.

        Args:
            folder: of the test set's decoding.
            utterances: files of each.
        """
        text, log = folder / self.name / "text", folder / self.name / "log.json"
        if not text.is_file():
            return False
        sources = {self._model_file, *(Path(path) for row in utterances.values() for path in row.values() if path != MISSING)}
        if text.stat().st_mtime < max(source.stat().st_mtime for source in sources):
            return False
        if json.loads(log.read_text(encoding="utf-8")).get("settings", self.settings) != self.settings:  # older logs have none
            return False
        return {line.split(maxsplit=1)[0] for line in text.read_text(encoding="utf-8").splitlines()} == set(utterances)


@cache
def _checksum(path: str) -> int:
    return zlib.crc32(Path(path).read_bytes())


def write(folder: Path, results: dict[str, list], log: dict) -> None:
    """``1best_recog`` style files of the best hypothesis; those of all n best beside them when n > 1."""
    nbest = max(len(r) for r in results.values())
    for n in range(nbest):
        rows = {utt: r[n] for utt, r in results.items() if len(r) > n}
        columns = {
            "token": {u: " ".join(r[1]) for u, r in rows.items()},
            "token_int": {u: " ".join(map(str, r[2])) for u, r in rows.items()},
            "score": {u: f"{r[3].score:.4f}" for u, r in rows.items()},
            "text": {u: r[0] for u, r in rows.items()},
        }
        for name, values in columns.items():
            target = folder / f"{n + 1}best_recog" / name
            write_text(target, "".join(f"{utt} {value}".rstrip() + "\n" for utt, value in values.items()))
    best = {utt: r[0][3] for utt, r in results.items()}
    log |= {"llm_tokens": sum(h.llm_tokens for h in best.values()), "tflops": sum(h.tflops for h in best.values())}
    log["picked"] = {utt: {"task": h.task, **h.rates, "llm_tokens": h.llm_tokens} for utt, h in best.items()}
    log["notes"] = {utt: h.note for utt, h in best.items() if h.note}
    log["truncated"] = [utt for utt, h in best.items() if h.truncated]
    write_text(folder / "log.json", json.dumps(log, indent=2) + "\n")
    write_text(folder / "text", (folder / "1best_recog" / "text").read_text(encoding="utf-8"))


def merge(parts: list[Path], folder: Path) -> None:
    """Write the files of a condition, those of its parts taken together.

    Args:
        parts: the condition's folder in each part.
        folder: where to.
    """
    for name in sorted({str(file.relative_to(part)) for part in parts for file in part.glob("*best_recog/*")}):
        write_text(folder / name, _lines(parts, name))
    log, *others = (json.loads((part / "log.json").read_text(encoding="utf-8")) for part in parts)
    for other in others:
        log = {key: value | other[key] if isinstance(value, dict) else value + other[key] for key, value in log.items()}
    write_text(folder / "log.json", json.dumps(log, indent=2) + "\n")
    write_text(folder / "text", _lines(parts, "text"))


def _lines(parts: list[Path], name: str) -> str:
    """A table's lines of all parts, by rising ids."""
    tables = [part / name for part in parts if (part / name).is_file()]  # no utterance of a part may have an nth best
    lines = [line for table in tables for line in table.read_text(encoding="utf-8").splitlines(keepends=True)]
    return "".join(sorted(lines, key=lambda line: line.split(maxsplit=1)[0]))
