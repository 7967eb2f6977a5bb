"""The label files of auto_avsr (arXiv:2303.14307) and Llama-AVSR (arXiv:2409.12319), for people who have their mouth crops.

A line is `dataset,path,frames,token ids`, with the transcript in the text folder beside (auto_avsr), or
`dataset,path,frames,ignored,transcript` (Llama-AVSR, Omni-AVSR). The videos are mouth crops: dump them with --crop given.
"""

from collections.abc import Iterator
from pathlib import Path

from espnet2_avsr_llm.data.corpora import Dropped, Utterance, drawn, read_lines
from espnet2_avsr_llm.data.text import normalise


def read_labels(root: Path, train_csv: Path, test_csv: Path, valid_csv: Path | None = None) -> Iterator[Utterance | Dropped]:
    """Label files, as sets ``train_csv``, ``valid_csv`` and ``test_csv``.

    Args:
        root: folder that the crops are in: ``root/dataset/path``.
        train_csv: for training; a file may have both forms of lines, and commas in transcripts.
        test_csv: for the test.
        valid_csv: for validation; by default as much is drawn from ``train_csv``, by whole recordings, as LRS3 would have.
    """
    yield from _read_file(root, test_csv, "test_csv")
    train = list(_read_file(root, train_csv, "train_csv"))
    if valid_csv:
        yield from _read_file(root, valid_csv, "valid_csv")
        yield from train
    else:
        valid = drawn([item.recording for item in train if isinstance(item, Utterance)])
        yield from (item._replace(dset="valid_csv") if isinstance(item, Utterance) and item.recording in valid else item for item in train)


def _read_file(root: Path, csv: Path, dset: str) -> Iterator[Utterance | Dropped]:
    for number, line in enumerate(read_lines(csv), 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split(",", 4)]  # a transcript may hold commas
        if len(fields) < 4 or not fields[2].isdigit():
            raise SystemExit(f"{csv}:{number}: found {line[:60]!r}; expected dataset,path,frames,tokens or dataset,path,frames,tokens,text")
        video = root / fields[0] / fields[1]
        text = fields[4] if len(fields) == 5 else _text_beside(video)
        if not video.is_file():
            yield Dropped(dset, str(video), "no video file")
        elif text is None:
            yield Dropped(dset, str(video), "no text file")
        elif not (written := normalise(text)):
            yield Dropped(dset, str(video), "empty text")
        else:
            sound = video.with_suffix(".wav")
            names = Path(fields[1]).with_suffix("").parts[1:]  # test/<recording>/<clip>, or only <clip>
            recording, utt = names[-2:][0], "_".join((fields[0], *names[-2:-1], *names[:-2], names[-1]))
            yield Utterance(dset, utt, f"{fields[0]}_{recording}", recording, written, sound if sound.is_file() else video, video)


def _text_beside(video: Path) -> str | None:
    """The transcript of a crop `.../lrs3_video_seg16s/test/a/b.mp4`, in `.../lrs3_text_seg16s/test/a/b.txt`."""
    parts = [part.replace("_video_seg", "_text_seg") for part in video.parts]
    path = Path(*parts).with_suffix(".txt")
    return path.read_text(encoding="utf-8") if path.is_file() else None
