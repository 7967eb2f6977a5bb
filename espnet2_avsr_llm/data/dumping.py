"""One utterance of stage 3: its 16 kHz flac, its 96x96 mouth-crop mp4, and the crop's geometry."""

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_avsr_llm.data import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, media
from espnet2_avsr_llm.data.atomic import atomic_path
from espnet2_avsr_llm.data.journal import Entry
from espnet2_avsr_llm.data.media import MediaError, NoStreamError
from espnet2_avsr_llm.data.preprocess import LENGTH_TOLERANCE, cut_or_pad
from espnet2_avsr_llm.data.roi import NoFaceError, mouth_crops
from espnet2_avsr_llm.data.roi.landmarks import get_backend


@dataclass(frozen=True)
class Settings:
    """What the files of a dump depend on, besides their sources.

    Attributes:
        landmarks: backend, see ``landmarks.get_backend``.
        crop: recipe in ``crop.CROPS``, or ``given``: the videos are mouth crops of 96x96 already.
        landmark_stride: the face is looked for in every Nth frame.
        on_missing: an utterance without sound, video or face fails (``fail``), or goes on without it (``mark``).
        allow_partial: use damaged or truncated files as far as they go.
    """

    landmarks: str
    crop: str
    landmark_stride: int
    on_missing: str
    allow_partial: bool


class Job(NamedTuple):
    """One utterance.

    Attributes:
        utt: its id.
        wav, video: files to read, or None.
        start, end: the part of them that is wanted, in seconds; end None is their end.
        stem: path of the files to write, without suffix: .flac, .mp4 and .npz (the crop's geometry).
    """

    utt: str
    wav: str | None
    video: str | None
    start: float
    end: float | None
    stem: str


def dump_utterance(job: Job, settings: Settings, workplace: Path) -> Entry:
    """Write the files of one utterance.

    Args:
        job: the utterance.
        settings: of the dump.
        workplace: folder for unfinished files, on the same file system; nobody else's.

    Returns:
        ``samples`` and ``frames``, 0 for what is missing, and what the report needs; or the ``reason`` of a failure.
    """
    notes: list[str] = []
    try:
        entry = _dump(job, settings, workplace, notes)
    except MediaError as error:
        entry = {"reason": str(error)}
    except NoFaceError as error:
        entry = {"reason": f"{job.video}: {error}"}
    return {"utt": job.utt, **entry, **({"notes": notes} if notes else {})}


def _dump(job: Job, settings: Settings, workplace: Path, notes: list[str]) -> Entry:
    if not job.wav and not job.video:
        return {"reason": "neither sound nor video"}
    entry: Entry = {"samples": 0, "frames": 0}
    stem = workplace / "file"
    mark = settings.on_missing == "mark"
    if job.video:
        try:
            entry |= _write_given(job, stem, settings, notes) if settings.crop == "given" else _write_mouth(job, stem, settings, notes)
        except (NoStreamError, NoFaceError) as error:
            if not (mark and job.wav):
                raise
            notes.append("no video" if isinstance(error, NoStreamError) else "no face")
    if job.wav:
        try:
            wave = media.read_audio(job.wav, job.start, job.end, settings.allow_partial, notes.append)
        except NoStreamError:
            if not (mark and entry["frames"]):
                raise
            notes.append("no sound")
        else:
            entry["samples"] = _write_sound(wave, stem, entry["frames"], notes)
    for suffix, written in ((".mp4", entry["frames"]), (".npz", entry["frames"]), (".flac", entry["samples"])):
        if written and (source := stem.with_suffix(suffix)).exists():
            Path(job.stem).parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, job.stem + suffix)
    return entry


def _write_mouth(job: Job, stem: Path, settings: Settings, notes: list[str]) -> Entry:
    """Write the crops and their geometry; what the report needs of them."""
    frames = media.video_frames(job.video, job.start, job.end, settings.allow_partial, notes.append)
    track = get_backend(settings.landmarks).track(job.video, int(job.start * FPS + 1e-6))
    geometry = []

    def patches() -> Iterator[np.ndarray]:
        for crop in mouth_crops(frames, track, settings.crop, settings.landmark_stride):
            geometry.append((crop.transform, crop.has_face))
            yield crop.patch

    count = media.write_roi(stem.with_suffix(".mp4"), patches())
    transforms, has_face = (np.stack(column) for column in zip(*geometry))
    if not has_face.any():
        raise NoFaceError(f"found no face in any of {count} frames; expected one: remove it from the list, or use --on_missing mark")
    with atomic_path(stem.with_suffix(".npz")) as temporary, open(temporary, "wb") as file:
        np.savez(file, transforms=transforms, has_face=has_face)
    (a, _, _), (b, _, _) = np.nanmedian(transforms, axis=0)
    return {
        "frames": count,
        "without_face": int((~has_face).sum()),
        "black": int(np.isnan(transforms[:, 0, 0]).sum()),
        "faces": track.faces,
        "scale": round(float(np.hypot(a, b)), 4),
        "degrees": round(float(np.degrees(np.arctan2(b, a))), 2),
    }


def _write_given(job: Job, stem: Path, settings: Settings, notes: list[str]) -> Entry:
    """Take a video that is a mouth crop already: checked, and copied as it is; written anew where it is used in part.

    Each picture is 1/25 s, whatever the file says.
    """
    if job.start or job.end is not None:
        raise MediaError(job.video, f"a segment from {job.start} s on", "whole files with --crop given", "cut the crops beforehand")
    video = media.read_roi(job.video, settings.allow_partial, notes.append)
    if notes:
        media.write_roi(stem.with_suffix(".mp4"), video)
    else:
        with atomic_path(stem.with_suffix(".mp4")) as temporary:
            shutil.copyfile(job.video, temporary)
    return {"frames": len(video)}


def _write_sound(wave: np.ndarray, stem: Path, frames: int, notes: list[str]) -> int:
    """Write samples (T,), cut or padded to the video's length; the number written."""
    if frames:
        sound, video = len(wave) / SAMPLE_RATE, frames / FPS
        if abs(sound - video) > LENGTH_TOLERANCE:
            notes.append("sound cut to the video" if sound > video else "sound padded to the video")
            logging.warning("sound of %.2f s, video of %.2f s: %s", sound, video, notes[-1])
        wave = cut_or_pad(wave, frames * SAMPLES_PER_FRAME)
    media.write_audio(stem.with_suffix(".flac"), wave, notes.append)
    return len(wave)
