"""VoxCeleb2 (arXiv:1806.05622): celebrities' interviews, without transcripts: Whisper makes them (`avsr-llm pseudo_label`).

`{dev,test}/mp4/<speaker>/<video>/<clip>.mp4`, with the sound in `{dev,test}/aac/.../<clip>.m4a` or `{dev,test}/wav/.../<clip>.wav`, or in
the mp4. Clips are cut into chunks of 16 s (400 frames), as in auto_avsr; the last one ends where sound or video does.
"""

from collections.abc import Iterator
from pathlib import Path

from espnet2_avsr_llm.data import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from espnet2_avsr_llm.data.corpora import Dropped, Utterance, drawn, read_lines

CHUNK_FRAMES = 400
_FEWEST_FRAMES = 12
_FITTING = (560, 720)  # samples of sound per frame; outside: sound and video do not belong together


def read_vox2(root: Path, clip_list: Path | None = None) -> Iterator[Utterance | Dropped]:
    """VoxCeleb2, as sets ``train``, ``valid`` (speakers drawn from `dev`) and ``test``, its transcripts empty.

    Args:
        root: of the corpus.
        clip_list: clips to take, a line `dev/mp4/<speaker>/<video>/<clip>` each: AV-HuBERT publishes
            `vox-en.id.gz`, the 628,418 English ones; by default all.
    """
    from tqdm import tqdm

    from espnet2_avsr_llm.data.media import MediaError, duration

    if clip_list:
        clips = [root / f"{line.strip().removesuffix('.mp4')}.mp4" for line in read_lines(clip_list) if line.strip()]
    else:
        clips = [path for part in ("dev", "test") for path in sorted((root / part / "mp4").glob("*/*/*.mp4"))]
    if not clips:
        raise SystemExit(f"{root} has no clips; expected {root}/dev/mp4/<speaker>/<video>/<clip>.mp4")
    tested = {clip.parts[-2] for clip in clips if clip.parts[-5] == "test"}
    valid = drawn([clip.parts[-3] for clip in clips if clip.parts[-5] == "dev"])
    for clip in tqdm(clips, desc="VoxCeleb2", unit="clip", mininterval=1):
        dset = "test" if clip.parts[-5] == "test" else "valid" if clip.parts[-3] in valid else "train"
        if dset != "test" and clip.parts[-2] in tested:  # somebody of dev speaks to somebody of test
            yield Dropped(dset, str(clip), "its video is in the test set")
            continue
        sound = _sound_of(clip)
        try:
            frames, samples = round(duration(clip, "video") * FPS), duration(sound, "audio") * SAMPLE_RATE
        except MediaError as error:
            yield Dropped(dset, str(clip), f"not readable: {error}")
            continue
        if frames < _FEWEST_FRAMES:
            yield Dropped(dset, str(clip), "fewer than 12 frames")
        elif not _FITTING[0] <= samples / frames <= _FITTING[1]:
            yield Dropped(dset, str(clip), "sound and video differ in length")
        else:
            yield from _chunks(dset, clip, sound, min(frames, round(samples / SAMPLES_PER_FRAME)))


def _sound_of(clip: Path) -> Path:
    """The sound file of a clip; the clip itself where there is none."""
    part, below = clip.parents[3], clip.relative_to(clip.parents[2])
    candidates = [part / folder / below.with_suffix(suffix) for folder, suffix in (("aac", ".m4a"), ("wav", ".wav"))]
    return next((path for path in candidates if path.is_file()), clip)


def _chunks(dset: str, clip: Path, sound: Path, frames: int) -> Iterator[Utterance | Dropped]:
    speaker, video = clip.parts[-3:-1]
    for number, first in enumerate(range(0, frames, CHUNK_FRAMES)):
        last = min(first + CHUNK_FRAMES, frames)
        if last - first < _FEWEST_FRAMES:
            yield Dropped(dset, f"{clip} {first / FPS:g}", "fewer than 12 frames")
            continue
        utt = f"vox2_{speaker}_{video}_{clip.stem}" + (f"_{number:02d}" if frames > CHUNK_FRAMES else "")
        yield Utterance(dset, utt, f"vox2_{speaker}", video, "", sound, clip, first / FPS, last / FPS)
