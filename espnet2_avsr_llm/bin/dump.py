"""Dump a data directory (stage 3): 16 kHz flac and 96x96 mouth-crop mp4 for each utterance.

A killed run continues where it was: every file appears whole or not at all. Files that cannot be used are
left out and listed with the reason in OUT_DIR/failed.jsonl; the exit code is then 3.
"""

import argparse
import glob
import json
import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from espnet2_avsr_llm.bin.datadir import Tables, media_of, read_dir, write_dir
from espnet2_avsr_llm.data import MISSING
from espnet2_avsr_llm.data.atomic import atomic_path, write_text

EXIT_SOME_FAILED = 3
_TOLERANCE_SECONDS = 0.2  # audio and video of one file may differ by this much without a warning


class Job(NamedTuple):
    """One utterance to dump.

    Attributes:
        utt: its id.
        wav, video: files to read, or None.
        stem: path of the files to write, without suffix: .flac, .mp4 and .npz (the crop's geometry).
        stride: the face is looked for in every ``stride``-th frame.
    """

    utt: str
    wav: str | None
    video: str | None
    stem: str
    stride: int


class Dumped(NamedTuple):
    """What became of an utterance: its lengths, or why it failed; and what to warn of."""

    utt: str
    n_samples: int | None = None
    n_frames: int | None = None
    error: str | None = None
    warning: str | None = None


def get_parser() -> argparse.ArgumentParser:
    """Build the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in_dir", type=Path, required=True, help="data directory with wav.scp, video.scp or both")
    parser.add_argument("--out_dir", type=Path, required=True, help="directory to make, the media in its data/")
    parser.add_argument("--nj", type=int, default=1, help="number of processes")
    parser.add_argument("--landmark_stride", type=int, default=1, help="look for the face in every Nth frame only")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Dump what is not yet dumped, write the tables; return the exit code."""
    from tqdm import tqdm

    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    tables = read_dir(args.in_dir)
    jobs = plan(args.in_dir, tables, args.out_dir, args.landmark_stride)
    done = []
    for result in tqdm(run(jobs, args.nj), total=len(jobs), desc=f"dump {args.out_dir}", unit="utt", mininterval=1):
        done.append(result)
        if result.warning:
            logging.warning("%s: %s", result.utt, result.warning)
    failed = [result for result in done if result.error]
    write_tables(args.out_dir, tables, jobs, [result for result in done if not result.error])
    lines = (json.dumps({"utt": result.utt, "reason": result.error}, ensure_ascii=False) for result in failed)
    write_text(args.out_dir / "failed.jsonl", "".join(f"{line}\n" for line in lines))
    for result in failed[:10]:
        logging.error("%s: %s", result.utt, result.error)
    logging.info("%s: dumped %d utterances, %d failed", args.out_dir, len(done) - len(failed), len(failed))
    return EXIT_SOME_FAILED if failed else 0


def plan(in_dir: Path, tables: Tables, out_dir: Path, stride: int) -> list[Job]:
    """List the jobs of a data directory, sorted by id.

    Raises:
        ValueError: the tables have different ids, utt2spk is missing, or an id cannot be a file name.
    """
    if "utt2spk" not in tables:
        raise ValueError(f"{in_dir} has no utt2spk: expected `utt speaker` lines there")
    speakers = tables["utt2spk"]
    for name, table in tables.items():
        if table.keys() != speakers.keys():
            odd = sorted(table.keys() ^ speakers.keys())
            raise ValueError(f"{in_dir / name} and utt2spk differ in {len(odd)} ids ({odd[:5]}): run `avsr-llm datadir fix`")
    odd = [f"{utt} {spk}" for utt, spk in speakers.items() if "/" in utt + spk or utt[0] in "-." or spk[:1] in ("", "-", ".")]
    if odd:
        raise ValueError(f"{in_dir / 'utt2spk'}: ids become file names; found {odd[:5]}: no slash, no leading dash or dot")
    media = {utt: media_of(tables, utt) for utt in speakers}
    stems = {utt: str(out_dir / "data" / spk / utt) for utt, spk in speakers.items()}
    return [Job(utt, media[utt].get("wav.scp"), media[utt].get("video.scp"), stems[utt], stride) for utt in sorted(speakers)]


def run(jobs: Sequence[Job], nj: int) -> Iterator[Dumped]:
    """Do the jobs in ``nj`` processes; the results come in the order of the jobs."""
    if nj == 1:
        _one_thread()
        yield from map(dump_utterance, jobs)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(nj, mp_context=spawn, initializer=_one_thread) as pool:
        yield from pool.map(dump_utterance, jobs, chunksize=4)


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)


def dump_utterance(job: Job) -> Dumped:
    """Write the files of one utterance, unless they are there already."""
    from espnet2_avsr_llm.data.media import MediaError
    from espnet2_avsr_llm.data.roi import NoFaceError

    if not (job.wav or job.video):
        return Dumped(job.utt, error="neither sound nor video")
    try:
        return _finished(job) or _dump(job)
    except MediaError as error:
        return Dumped(job.utt, error=str(error))
    except NoFaceError as error:
        return Dumped(job.utt, error=f"{job.video}: {error}")


def _finished(job: Job) -> Dumped | None:
    """The lengths of an utterance whose files are all there, else None."""
    import numpy as np
    import soundfile

    wanted = ([".flac"] if job.wav else []) + ([".mp4", ".npz"] if job.video else [])
    if not all(Path(job.stem + suffix).exists() for suffix in wanted):
        return None
    n_samples = soundfile.info(f"{job.stem}.flac").frames if job.wav else None
    if not job.video:
        return Dumped(job.utt, n_samples)
    with np.load(f"{job.stem}.npz", allow_pickle=False) as geometry:
        return Dumped(job.utt, n_samples, len(geometry["has_face"]))


def _dump(job: Job) -> Dumped:
    from espnet2_avsr_llm.data.media import read_audio, read_video, write_audio

    _remove_leftovers(job)
    wave = read_audio(job.wav) if job.wav else None
    frames = read_video(job.video) if job.video else None
    warning = None
    if wave is not None and frames is not None:
        wave, warning = _align(wave, len(frames))
    if frames is not None:
        _write_mouth(job, frames)
    if wave is not None:
        write_audio(f"{job.stem}.flac", wave)
    lengths = (None if x is None else len(x) for x in (wave, frames))
    return Dumped(job.utt, *lengths, warning=warning)


def _remove_leftovers(job: Job) -> None:
    """Remove the temporary files that a killed run left for this utterance."""
    stem = Path(job.stem)
    for leftover in stem.parent.glob(f".{glob.escape(stem.name)}.*.tmp"):
        leftover.unlink()


def _align(wave, n_frames: int):
    """Cut or pad sound (T,) to the video's length; say so when more than 0.2 s are concerned."""
    from espnet2_avsr_llm.data.media import SAMPLE_RATE, SAMPLES_PER_FRAME
    from espnet2_avsr_llm.data.preprocess import cut_or_pad

    n_samples = n_frames * SAMPLES_PER_FRAME
    sound, video = len(wave) / SAMPLE_RATE, n_samples / SAMPLE_RATE
    warning = None
    if abs(sound - video) > _TOLERANCE_SECONDS:
        change = "cut" if sound > video else "padded with silence"
        warning = f"sound of {sound:.2f} s, video of {video:.2f} s: the sound is {change}"
    return cut_or_pad(wave, n_samples), warning


def _write_mouth(job: Job, frames) -> None:
    import numpy as np

    from espnet2_avsr_llm.data.media import write_roi
    from espnet2_avsr_llm.data.roi import mouth_roi

    roi = mouth_roi(frames, stride=job.stride)
    write_roi(f"{job.stem}.mp4", roi.frames)
    with atomic_path(f"{job.stem}.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, transforms=roi.transforms, has_face=roi.has_face)


def write_tables(out_dir: Path, tables: Tables, jobs: Sequence[Job], done: Sequence[Dumped]) -> None:
    """Write the data directory of what was dumped, with the lengths."""
    dumped = {name: tables[name] for name in ("text", "utt2spk") if name in tables}
    if "wav.scp" in tables:
        dumped["wav.scp"] = {job.utt: f"{job.stem}.flac" if job.wav else MISSING for job in jobs}
        dumped["utt2num_samples"] = {result.utt: str(result.n_samples or 0) for result in done}
    if "video.scp" in tables:
        dumped["video.scp"] = {job.utt: f"{job.stem}.mp4" if job.video else MISSING for job in jobs}
        dumped["utt2num_frames"] = {result.utt: str(result.n_frames or 0) for result in done}
    write_dir(out_dir, dumped, [result.utt for result in done])


if __name__ == "__main__":
    raise SystemExit(main())
