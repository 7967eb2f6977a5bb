"""GRID (Cooke, Barker, Cunningham, Shao 2006): sentences of a small grammar, spelled by the files' names.

As on Zenodo (record 3625687), `s<N>/<name>.mpg`; or one speaker's clips in a folder `..._s<N>/<name>.mp4`. The names are
the transcripts: the distributed alignments of several speakers belong to others.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from espnet2_avsr_llm.data.corpora import Dropped, Utterance
from espnet2_avsr_llm.data.noise import named_rng

_CODE = {
    0: {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    1: {"b": "blue", "g": "green", "r": "red", "w": "white"},
    2: {"a": "at", "b": "by", "i": "in", "w": "with"},
    3: {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    4: dict(zip("z123456789", "zero one two three four five six seven eight nine".split())),
    5: {"a": "again", "n": "now", "p": "please", "s": "soon"},
}
_TEST, _VALID = {"s1", "s2", "s20", "s22"}, {"s3", "s4"}  # test speakers of LipNet (arXiv:1611.01599)
_OVERLAPPED_TEST, _OVERLAPPED_VALID = 255, 20  # clips of each speaker


def sentence(name: str) -> str | None:
    """The words of a file name such as `bbaf2n`, or None if it is none."""
    words = [_CODE[i].get(letter) for i, letter in enumerate(name)] if len(name) == 6 else [None]
    return None if None in words else " ".join(words)


def read_grid(root: Path, split: str) -> Iterator[Utterance | Dropped]:
    """GRID, as sets ``train``, ``valid`` and ``test``.

    Args:
        root: folder of the speakers' folders, or of one speaker's clips.
        split: ``unseen`` (test speakers s1, s2, s20, s22; validation s3, s4), ``overlapped`` (255 test clips and 20
            validation clips of each speaker), or a file of lines `speaker_clip set`; clips that are not in it are not used.
    """
    listed = _read_list(Path(split)) if split not in ("unseen", "overlapped") else None
    missing = dict(listed or {})
    for speaker, clips in sorted(_speakers(root).items()):
        order = sorted(clips, key=lambda clip: named_rng(0, "grid", speaker, clip.stem).random())
        for rank, clip in enumerate(order):
            utt = f"{speaker}_{clip.stem}"
            dset = listed.get(utt) if listed is not None else _set_of(split, speaker, rank)
            missing.pop(utt, None)
            text = sentence(clip.stem)
            if dset and text is None:
                yield Dropped(dset, str(clip), "the name spells no sentence of the grammar")
            elif dset:
                yield Utterance(dset, utt, speaker, f"grid_{utt}", text, clip, clip)
    yield from (Dropped(dset, utt, "in the list, but there is no such clip") for utt, dset in missing.items())


def _read_list(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise SystemExit(f"no split {path}: expected unseen, overlapped, or a file of lines `speaker_clip set`")
    return dict(line.split() for line in path.read_text(encoding="utf-8").splitlines())


def _set_of(split: str, speaker: str, rank: int) -> str:
    if split == "unseen":
        return "test" if speaker in _TEST else "valid" if speaker in _VALID else "train"
    return "test" if rank < _OVERLAPPED_TEST else "valid" if rank < _OVERLAPPED_TEST + _OVERLAPPED_VALID else "train"


def _speakers(root: Path) -> dict[str, list[Path]]:
    """Clips of each speaker."""
    own = re.search(r"(?:^|_)(s\d+)$", root.resolve().name)
    folders = {folder.name: folder for folder in root.glob("s*") if re.fullmatch(r"s\d+", folder.name) and folder.is_dir()}
    if not folders and own:
        folders = {own[1]: root}
    found = {speaker: [path for path in folder.iterdir() if path.suffix in (".mpg", ".mp4")] for speaker, folder in folders.items()}
    if not any(found.values()):
        raise SystemExit(f"{root} has no clips; expected {root}/s1/bbaf2n.mpg (unzip s1.zip ... there), or a folder ..._s1 of one speaker")
    return found
