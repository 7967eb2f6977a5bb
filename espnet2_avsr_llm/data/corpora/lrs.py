"""LRS3 (arXiv:1809.00496) and LRS2: sentences of TED talks and of the BBC, with transcripts in a txt file beside each mp4.

A txt file has `Text:  WORDS`, `Conf:  n`, perhaps `Ref:` and a table of faces, a blank line, and `WORD START END ASDSCORE`
with a line for each word, in seconds. Files of `pretrain` can last minutes; they are cut as auto_avsr does.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_avsr_llm.data.corpora import Dropped, Utterance, drawn, read_lines
from espnet2_avsr_llm.data.text import normalise

PRETRAIN_SECONDS, TEST_SECONDS = 16.0, 24.0  # longest utterance; longer files are cut where they have word times


class Word(NamedTuple):
    """A word and its time in seconds."""

    word: str
    start: float
    end: float


class Segment(NamedTuple):
    """Part of a file: its text, and start and end in seconds; end -1 is the file's end."""

    text: str
    start: float
    end: float


def read_transcript(path: Path) -> tuple[str, list[Word]]:
    """Read a txt file.

    Returns:
        the text of its first line, and its words with their times (none where there is no table).

    Raises:
        ValueError: its form is another one; the message says where.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    tag, _, text = (lines or [""])[0].partition(":")
    if tag != "Text":
        raise ValueError(f"no transcript: line 1 is {(lines or [''])[0][:40]!r}, expected 'Text:  WORDS'")
    words: list[Word] = []
    heads = [number for number, line in enumerate(lines) if line.startswith("WORD START END")]
    for number, line in enumerate(lines[heads[0] + 1 :] if heads else [], heads[0] + 2 if heads else 0):
        fields = line.split()
        if not fields:
            continue
        try:
            word = Word(fields[0], float(fields[1]), float(fields[2]))
        except (IndexError, ValueError):
            raise ValueError(f"bad word table: line {number} is {line[:40]!r}, expected 'WORD START END SCORE'") from None
        if not (words[-1].start if words else 0) <= word.start <= word.end < float("inf"):
            raise ValueError(f"bad word table: line {number}, the times of {word.word!r} are out of order")
        words.append(word)
    return text.strip(), words


def cut(text: str, words: Sequence[Word], longest: float) -> list[Segment]:
    """Cut a file into segments of less than ``longest`` seconds, as auto_avsr does: as many words as fit, then the next.

    Args:
        text: of the whole file.
        words: with times; a file without stays whole.
        longest: seconds. A segment begins with its first word (the first with the file) and ends with its last.

    Returns:
        the segments; of a file that fits, one to its end.
    """
    if not words or max(word.end for word in words) < longest:
        return [Segment(text, 0.0, -1.0)]
    segments: list[tuple[float, list[Word]]] = [(0.0, [])]
    for word in words:
        start, inside = segments[-1]
        if inside and word.end >= start + longest:
            segments.append((word.start, [word]))
        else:
            inside.append(word)
    return [Segment(" ".join(word.word for word in inside), start, inside[-1].end) for start, inside in segments]


def _utterances(files: Sequence[Path], dset: str, corpus: str, longest: float, need_times: bool) -> Iterator[Utterance | Dropped]:
    """Utterances of mp4 files ``.../<partition>/<recording>/<clip>.mp4``."""
    for file in files:
        partition, video, clip = file.parts[-3], file.parent.name, file.stem
        if not file.is_file():
            yield Dropped(dset, str(file), "no mp4 file")
            continue
        try:
            text, words = read_transcript(file.with_suffix(".txt"))
        except FileNotFoundError:
            yield Dropped(dset, str(file), "no txt file")
            continue
        except ValueError as error:
            yield Dropped(dset, str(file), str(error))
            continue
        if need_times and not words:
            yield Dropped(dset, str(file), "no word table")
            continue
        segments = cut(text, words, longest)
        for number, segment in enumerate(segments):
            utt = f"{corpus}_{video}_{partition}_{clip}" + (f"_{number:02d}" if len(segments) > 1 else "")
            if not (written := normalise(segment.text)):
                yield Dropped(dset, f"{file} {segment.start:g}", "empty text")
            elif 0 <= segment.end < segment.start + 1 / 25:
                yield Dropped(dset, f"{file} {segment.start:g}", "shorter than a frame")
            else:
                yield Utterance(dset, utt, f"{corpus}_{video}", video, written, file, file, segment.start, segment.end)


def _in_sets(items: Iterator[Utterance | Dropped], *dsets: str) -> Iterator[Utterance | Dropped]:
    """The same utterances in several sets."""
    for item in items:
        yield from (item._replace(dset=dset) for dset in dsets)


def read_lrs3(root: Path, valid_list: Path | None = None) -> Iterator[Utterance | Dropped]:
    """LRS3: `{pretrain,trainval,test}/<video>/<clip>.{mp4,txt}`.

    Sets: ``train_30h`` (trainval without the validation clips), ``train_433h`` (that and pretrain), ``valid``, ``test``.

    Args:
        root: of the corpus.
        valid_list: validation clips, a line `trainval/<video>/<clip>` each (AV-HuBERT publishes one of 1,200); by
            default as many are drawn, by whole videos.
    """
    files = {name: _clips(root / name) for name in ("pretrain", "trainval", "test")}
    _require(root, files, ("trainval", "test"))
    if valid_list:
        valid = _listed(valid_list, files["trainval"])
    else:
        videos = drawn([file.parent.name for file in files["trainval"]])
        valid = {file for file in files["trainval"] if file.parent.name in videos}
    rest = [file for file in files["trainval"] if file not in valid]
    yield from _in_sets(_utterances(rest, "", "lrs3", TEST_SECONDS, False), "train_30h", "train_433h")
    yield from _utterances(files["pretrain"], "train_433h", "lrs3", PRETRAIN_SECONDS, True)
    yield from _utterances(sorted(valid), "valid", "lrs3", TEST_SECONDS, False)
    yield from _utterances(files["test"], "test", "lrs3", TEST_SECONDS, False)


def _clips(folder: Path) -> list[Path]:
    """The mp4 files of a partition, and those whose txt is there without them."""
    return sorted({path.with_suffix(".mp4") for path in folder.glob("*/*") if path.suffix in (".mp4", ".txt")})


def _require(root: Path, files: dict[str, list[Path]], names: Sequence[str]) -> None:
    if missing := [name for name in names if not files[name]]:
        raise SystemExit(f"{root} has no clips in {', '.join(missing)}; expected {root}/{missing[0]}/<recording>/<clip>.mp4 with .txt beside")


def _listed(valid_list: Path, files: Sequence[Path]) -> set[Path]:
    wanted = {"/".join(line.strip().split("/")[-2:]) for line in read_lines(valid_list) if line.strip()}
    found = {f"{file.parent.name}/{file.stem}": file for file in files}
    if absent := sorted(wanted - found.keys()):
        raise SystemExit(f"{valid_list}: {len(absent)} of its {len(wanted)} clips are not in trainval, such as {absent[:3]}: take these lines out")
    return {found[name] for name in wanted}


def read_lrs2(root: Path) -> Iterator[Utterance | Dropped]:
    """LRS2: `{main,pretrain}/<recording>/<clip>.{mp4,txt}`, with `{train,val,test,pretrain}.txt` there or one folder above.

    Sets: ``train_28h`` (main), ``train_223h`` (that and pretrain), ``valid``, ``test``. A list has the clip in its first column.
    """
    root = root / "mvlrs_v1" if (root / "mvlrs_v1").is_dir() else root
    files: dict[str, list[Path]] = {}
    for name in ("train", "val", "test", "pretrain"):
        lists = [folder / f"{name}.txt" for folder in (root, root.parent) if (folder / f"{name}.txt").is_file()]
        if not lists:
            raise SystemExit(f"no list {name}.txt in {root} or above; expected the lists that LRS2 is published with")
        clips = (line.split()[0] for line in read_lines(lists[0]) if line.strip())
        files[name] = [root / ("pretrain" if name == "pretrain" else "main") / f"{clip}.mp4" for clip in clips]
    for name, dset in (("train", "train_28h"), ("pretrain", "train_223h"), ("val", "valid"), ("test", "test")):
        longest = PRETRAIN_SECONDS if name == "pretrain" else TEST_SECONDS
        items = _utterances(files[name], dset, "lrs2", longest, name == "pretrain")
        yield from _in_sets(items, "train_28h", "train_223h") if name == "train" else items
