"""The label files of auto_avsr (arXiv:2303.14307) and Llama-AVSR (arXiv:2409.12319), for people who have their mouth crops.

A line is `dataset,path,frames,token ids`, with the transcript in the text folder beside (auto_avsr), or
`dataset,path,frames,ignored,transcript` (Llama-AVSR, Omni-AVSR). The videos are mouth crops: dump them with --crop given.
"""

from collections.abc import Iterator
from pathlib import Path

from espnet2_avsr_llm.data.corpora import Dropped, Utterance
from espnet2_avsr_llm.data.text import normalise


def read_labels(root: Path, csv: Path, dset: str) -> Iterator[Utterance | Dropped]:
    """A label file, as one set.

    Args:
        root: folder that the crops are in: ``root/dataset/path``.
        csv: the file; it may have both forms of lines, and commas in transcripts.
        dset: name of the set.
    """
    for number, line in enumerate(csv.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        fields = line.split(",", 4)  # a transcript may hold commas
        if len(fields) < 4 or not fields[2].isdigit():
            raise SystemExit(f"{csv}:{number}: found {line[:60]!r}; expected dataset,path,frames,tokens or dataset,path,frames,tokens,text")
        video = root / fields[0] / fields[1]
        text = fields[4] if len(fields) == 5 else _text_beside(video)
        if text is None or not video.is_file():
            yield Dropped(dset, str(video), "no video file" if text is not None else "no text file")
        elif not (written := normalise(text)):
            yield Dropped(dset, str(video), "empty text")
        else:
            sound = video.with_suffix(".wav")
            recording = f"{fields[0]}_{video.parent.name}"
            utt = f"{recording}_{video.parts[-3]}_{video.stem}"
            yield Utterance(dset, utt, recording, recording, written, sound if sound.is_file() else video, video)


def _text_beside(video: Path) -> str | None:
    """The transcript of a crop `.../lrs3_video_seg16s/test/a/b.mp4`, in `.../lrs3_text_seg16s/test/a/b.txt`."""
    parts = [part.replace("_video_seg", "_text_seg") for part in video.parts]
    path = Path(*parts).with_suffix(".txt")
    return path.read_text(encoding="utf-8") if path.is_file() else None
