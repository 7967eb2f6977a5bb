"""VoxCeleb2 (arXiv:1806.05622): celebrities' interviews, without transcripts: Whisper makes them (`avsr-llm pseudo_label`).

`{dev,test}/mp4/<speaker>/<video>/<clip>.mp4`, with the sound in `{dev,test}/aac/.../<clip>.m4a` or `{dev,test}/wav/.../<clip>.wav`.
Clips are cut into chunks of 16 s (400 frames), as in auto_avsr.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path

from espnet2_avsr_llm.data.corpora import Dropped, Utterance

CHUNK_FRAMES = 400
_FPS = 25
_FEWEST_FRAMES = 12
_SAMPLES_PER_FRAME = (560, 720)  # outside: sound and video do not belong together


def read_vox2(root: Path, clip_list: Path | None = None) -> Iterator[Utterance | Dropped]:
    """VoxCeleb2, as set ``vox2``, its transcripts empty.

    Args:
        root: of the corpus.
        clip_list: clips to take, a line `dev/mp4/<speaker>/<video>/<clip>` each, perhaps gzipped: AV-HuBERT publishes
            `vox-en.id`, the 628,418 English ones; by default all.
    """
    from tqdm import tqdm

    from espnet2_avsr_llm.data.media import MediaError, duration

    clips = _listed(root, clip_list) if clip_list else [path for part in ("dev", "test") for path in sorted((root / part / "mp4").glob("*/*/*.mp4"))]
    if not clips:
        raise SystemExit(f"{root} has no clips; expected {root}/dev/mp4/<speaker>/<video>/<clip>.mp4")
    for clip in tqdm(clips, desc="VoxCeleb2", unit="clip", mininterval=1):
        sound = _sound_of(clip)
        if sound is None:
            yield Dropped("vox2", str(clip), "no sound file: in neither aac/ nor wav/")
            continue
        try:
            frames, samples = round(duration(clip, "video") * _FPS), duration(sound, "audio") * 16000
        except MediaError as error:
            yield Dropped("vox2", str(clip), f"not readable: {error}")
            continue
        if frames < _FEWEST_FRAMES:
            yield Dropped("vox2", str(clip), "fewer than 12 frames")
        elif not _SAMPLES_PER_FRAME[0] <= samples / frames <= _SAMPLES_PER_FRAME[1]:
            yield Dropped("vox2", str(clip), "sound and video differ in length")
        else:
            yield from _chunks(clip, sound, frames)


def _listed(root: Path, clip_list: Path) -> list[Path]:
    opened = gzip.open(clip_list, "rt", encoding="utf-8") if clip_list.suffix == ".gz" else open(clip_list, encoding="utf-8")
    with opened as lines:
        return [root / f"{line.strip().removesuffix('.mp4')}.mp4" for line in lines if line.strip()]


def _sound_of(clip: Path) -> Path | None:
    part, below = clip.parents[3], clip.relative_to(clip.parents[2])
    candidates = [part / folder / below.with_suffix(suffix) for folder, suffix in (("aac", ".m4a"), ("wav", ".wav"))]
    return next((path for path in candidates if path.is_file()), None)


def _chunks(clip: Path, sound: Path, frames: int) -> Iterator[Utterance | Dropped]:
    speaker, video = clip.parts[-3:-1]
    for number, first in enumerate(range(0, frames, CHUNK_FRAMES)):
        last = min(first + CHUNK_FRAMES, frames)
        if last - first < _FEWEST_FRAMES:
            yield Dropped("vox2", f"{clip} {first / _FPS:g}", "fewer than 12 frames")
            continue
        utt = f"vox2_{speaker}_{video}_{clip.stem}" + (f"_{number:02d}" if frames > CHUNK_FRAMES else "")
        start, end = first / _FPS, -1.0 if last == frames else last / _FPS
        yield Utterance("vox2", utt, f"vox2_{speaker}", f"vox2_{video}", "", sound, clip, start, end)
