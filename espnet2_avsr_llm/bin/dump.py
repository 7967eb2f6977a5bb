"""Dump a data directory (stage 3): 16 kHz flac and 96x96 mouth-crop mp4 for each utterance.

With --job K it does the Kth part of --nj parts, and --finish then writes the tables and the report; without either it
does everything. A killed run continues where it was: every file appears whole or not at all. Files that cannot be used
are left out and listed with the reason in OUT_DIR/failed.jsonl; the exit code is then 3. They are tried again by the
next run.
"""

import argparse
import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from espnet2_avsr_llm.data import MISSING
from espnet2_avsr_llm.data.atomic import atomic_path
from espnet2_avsr_llm.data.journal import DONE, Entry, Journal, close_all, keep_settings, mark, with_entries
from espnet2_avsr_llm.data.roi import MAX_GAP, STRIDE
from espnet2_avsr_llm.data.tables import SOURCE_TABLES, Row, count, rows, segment_of, table_names, writing

if TYPE_CHECKING:
    from espnet2_avsr_llm.data.dumping import Job, Settings

EXIT_SOME_FAILED = 3


def get_parser() -> argparse.ArgumentParser:
    """Build the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in_dir", type=Path, required=True, help="data directory with wav.scp, video.scp or both")
    parser.add_argument("--out_dir", type=Path, required=True, help="directory to make, the media in its data/")
    parser.add_argument("--nj", type=int, default=1, help="number of parts")
    parser.add_argument("--job", type=int, help="part to do, from 1 on")
    parser.add_argument("--finish", action="store_true", help="all parts are done: write the tables and the report")
    parser.add_argument("--landmarks", default="litert", help="litert, mediapipe, or precomputed:FOLDER of published 68-point files")
    parser.add_argument("--crop", choices=["auto_avsr", "avhubert", "given"], default="auto_avsr", help="given: the videos are mouth crops")
    strides = range(1, MAX_GAP + 2)  # the frames between two looks are interpolated
    stride_help = f"look for the face in every Nth frame, 1 to {strides[-1]}; precomputed: in all"
    parser.add_argument("--landmark_stride", type=int, choices=strides, metavar="N", default=STRIDE, help=stride_help)
    parser.add_argument(
        "--on_missing", choices=["fail", "mark"], default="fail", help="an utterance without sound, video or face fails, or goes on without it"
    )
    parser.add_argument("--allow_partial", action="store_true", help="use damaged and truncated files as far as they go")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Dump what is not yet dumped, write the tables; return the exit code."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    if args.finish:
        return finish(args.in_dir, args.out_dir)
    from espnet2_avsr_llm.data.dumping import Settings

    settings = Settings(args.landmarks, args.crop, args.landmark_stride, args.on_missing, args.allow_partial)
    keep_settings(args.out_dir, asdict(settings))
    if args.job is not None:
        run(args.in_dir, args.out_dir, settings, args.job, args.nj)
        return 0
    for job in range(1, args.nj + 1):
        run(args.in_dir, args.out_dir, settings, job, args.nj)
    return finish(args.in_dir, args.out_dir)


def run(in_dir: Path, out_dir: Path, settings: "Settings", part: int, parts: int) -> None:
    """Do the utterances of one part that no journal has yet."""
    import cv2
    from tqdm import tqdm

    from espnet2_avsr_llm.data.dumping import dump_utterance

    cv2.setNumThreads(1)
    total = len(range(part - 1, count(in_dir), parts))
    workplace = out_dir / "tmp" / f"{part}of{parts}"
    shutil.rmtree(workplace, ignore_errors=True)  # of a killed run
    workplace.mkdir(parents=True)
    journal = Journal(out_dir, part, parts)
    frames, failed, begin = 0, 0, time.process_time()
    with tqdm(total=total, desc=f"dump {out_dir} {part}/{parts}", unit="utt", mininterval=1) as bar:
        for job, _, source, entry in _jobs(in_dir, out_dir, part, parts):
            if entry is None:
                entry = {**dump_utterance(job, settings, workplace), "source": source}
                journal.append(entry)
                frames += entry.get("frames", 0)
                failed += "reason" in entry
            bar.update()
    journal.close()
    seconds = time.process_time() - begin
    rate = f"{frames} frames in {seconds:.1f} CPU seconds, {frames / seconds:.0f} a second" if frames else f"{seconds:.1f} CPU seconds"
    logging.info("%s: part %d of %d, %s, %d failed", out_dir, part, parts, rate, failed)


def _jobs(in_dir: Path, out_dir: Path, part: int = 1, parts: int = 1) -> Iterator[tuple["Job", Row, int, Entry | None]]:
    """The jobs of a part in the order of their ids, each with its row, a mark of its source, and what a journal says of it."""
    from espnet2_avsr_llm.data.dumping import Job

    for utt, row, entry in islice(with_entries(rows(in_dir), out_dir), part - 1, None, parts):
        _check(in_dir, utt, row)
        start, end = segment_of(utt, row)
        wav, video = (None if (path := row.get(name, MISSING)) == MISSING else path for name in ("wav.scp", "video.scp"))
        speaker = row["utt2spk"]  # a folder of what is written
        source = mark(wav, video, start, end, speaker)
        known = entry if entry is not None and entry["source"] == source else None
        stem = f"{out_dir}/data/{speaker}/{utt}"
        yield Job(utt, wav, video, start, end, stem), row, source, known


def _check(in_dir: Path, utt: str, row: Row) -> None:
    """Refuse what cannot be dumped.

    Raises:
        ValueError: no speaker, or an id that cannot be a file name.
    """
    speaker = row.get("utt2spk", "")
    if not speaker:
        raise ValueError(f"{in_dir} has no speaker of {utt} in utt2spk: expected `utt speaker` lines there")
    if "/" in utt + speaker or utt[0] in "-." or speaker[0] in "-.":
        raise ValueError(f"{in_dir}: ids become file names; found {utt!r} of {speaker!r}: no slash, no leading dash or dot")


def finish(in_dir: Path, out_dir: Path) -> int:
    """Write the tables of what was dumped, ``done.jsonl``, ``failed.jsonl`` and the report; return the exit code.

    Raises:
        SystemExit: some utterances were not tried yet.
    """
    from espnet2_avsr_llm.data.roi.report import Report

    found = set(table_names(in_dir))
    names = [name for name in SOURCE_TABLES if name in found and name != "utt2segment"]
    for name, lengths in (("wav.scp", "utt2num_samples"), ("video.scp", "utt2num_frames")):
        names += [name, lengths] if name in found else []
    report, missing, failed = Report(), 0, 0
    with atomic_path(out_dir / DONE) as done, atomic_path(out_dir / "failed.jsonl") as failures:
        with open(done, "w", encoding="utf-8") as done_file, open(failures, "w", encoding="utf-8") as failed_file, writing(out_dir, names) as write:
            for job, row, _, entry in _jobs(in_dir, out_dir):
                if entry is None:
                    missing += 1
                    continue
                report.add(entry, job.stem)
                if "reason" in entry:
                    failed += 1
                    failed_file.write(json.dumps({"utt": job.utt, "reason": entry["reason"]}, ensure_ascii=False) + "\n")
                else:
                    done_file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                    write(job.utt, row | _dumped(job.stem, entry))
            if missing:
                raise SystemExit(f"{missing} utterances of {in_dir} are not in {out_dir} yet: run the parts that were cut off again")
    report.write(out_dir)
    close_all(out_dir)
    shutil.rmtree(out_dir / "tmp", ignore_errors=True)
    logging.info("%s: dumped %d utterances, %d failed; see report.json and report.png", out_dir, report.summary()["utterances"], failed)
    return EXIT_SOME_FAILED if failed else 0


def _dumped(stem: str, entry: Entry) -> Row:
    """Paths and lengths of a dumped utterance, by table."""
    samples, frames = entry["samples"], entry["frames"]
    paths = {"wav.scp": f"{stem}.flac" if samples else MISSING, "video.scp": f"{stem}.mp4" if frames else MISSING}
    return paths | {"utt2num_samples": str(samples), "utt2num_frames": str(frames)}


if __name__ == "__main__":
    raise SystemExit(main())
