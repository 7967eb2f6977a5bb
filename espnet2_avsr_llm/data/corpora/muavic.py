"""MuAViC (arXiv:2303.00628), as its `get_data.py` leaves it: audio and mouth crops of TED talks in nine languages.

`<lang>/{audio,video}/<split>/<talk>/<clip>.{wav,mp4}`. `<lang>/<split>_avsr.tsv` (older versions: `<split>.tsv`) has a line
`id video audio frames samples` for each clip after its first line, and the file with the language's suffix beside it a
transcript per line. The videos are mouth crops: dump them with --crop given.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from espnet2_avsr_llm.data.corpora import Dropped, Utterance, read_lines
from espnet2_avsr_llm.data.text import normalise

LANGUAGES = ("ar", "de", "el", "en", "es", "fr", "it", "pt", "ru")
_SPLITS = ("train", "valid", "test")
_NOISE = re.compile(r"\([^)]*\)")  # (Applause)


def read_muavic(root: Path, languages: Sequence[str]) -> Iterator[Utterance | Dropped]:
    """MuAViC, as sets ``train_<lang>``, ``valid_<lang>``, ``test_<lang>``.

    Args:
        root: folder of the languages' folders.
        languages: those wanted; all that are there if empty.
    """
    there = [language for language in LANGUAGES if (root / language).is_dir()]
    if absent := sorted(set(languages) - set(there)):
        raise SystemExit(f"{root} has no {', '.join(absent)}; found {', '.join(there) or 'no language'}: run MuAViC's get_data.py --src-lang")
    for language in languages or there:
        for split in _SPLITS:
            yield from _read_split(root / language, split, language)


def _read_split(folder: Path, split: str, language: str) -> Iterator[Utterance | Dropped]:
    dset = f"{split}_{language}"
    manifest = next((path for path in (folder / f"{split}_avsr.tsv", folder / f"{split}.tsv") if path.is_file()), None)
    if manifest is None:
        raise SystemExit(f"{folder} has neither {split}_avsr.tsv nor {split}.tsv: run MuAViC's get_data.py --src-lang {language}")
    clips = read_lines(manifest)[1:]
    texts = read_lines(manifest.with_suffix(f".{language}"))
    if len(clips) != len(texts):
        raise SystemExit(f"{manifest} has {len(clips)} clips, its transcripts are {len(texts)}: run MuAViC's get_data.py again")
    for line, text in zip(clips, texts):
        name, video, audio, *_ = line.split("\t")
        clip = name.rpartition("/")[2]
        paths = {kind: _locate(folder, kind, split, path) for kind, path in (("video", video), ("audio", audio))}
        gone = [kind for kind, path in paths.items() if path is None]
        if gone:
            yield Dropped(dset, name, f"no {' and no '.join(gone)} file")
        elif not (written := normalise(_NOISE.sub(" ", text))):
            yield Dropped(dset, name, "empty text")
        else:
            talk = paths["video"].parent.name
            speaker = f"{language}_{talk}"
            yield Utterance(dset, f"{speaker}_{clip}", speaker, talk, written, paths["audio"], paths["video"])


def _locate(folder: Path, kind: str, split: str, path: str) -> Path | None:
    """The file that a manifest names, or where it lies when the corpus was moved since, or the manifest left out the talk's folder."""
    named = Path(path)
    talks = (named.parent.name, named.stem.rpartition("_")[0])
    candidates = (named, *(folder / kind / split / talk / named.name for talk in talks))
    return next((candidate for candidate in candidates if candidate.is_file()), None)
