"""What a dump costs besides decoding: start-up, memory and time per entry of the program over generated lists of many lengths.

The media files of the lists are not there, so that each fails at once; what is done is as if written by a dump. Run by hand:
  python tests/benchmarks/bookkeeping.py --entries 10000 100000 1000000

At a million entries: 96 to 200 MB of memory in all three, the first entry of a fresh start after 2.3 s, 15 us of CPU per finished entry
to go on where a killed part was, 71 CPU seconds to finish.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from espnet2_avsr_llm.data.journal import Journal, mark
from espnet2_avsr_llm.data.media import write_roi
from espnet2_avsr_llm.data.roi.report import Report

PARTS = 64


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    return parser


def main():
    sys.stdout.write("entries  what                                            first after  peak memory  CPU seconds  us per entry\n")
    for n in get_parser().parse_args().entries:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            write_list(n)
            measure(n, f"part 1 of {PARTS}, nothing done yet", n // PARTS, "--nj", PARTS, "--job", 1)
            write_journals(n, "done")
            last = (n - 1) % PARTS + 1
            measure(n, f"part {last} of {PARTS}, all but its last entry done", n, "--nj", PARTS, "--job", last, out="done")
            measure(n, "finish: tables, report, failed.jsonl", n, "--finish", out="done")
            os.chdir("/")


def utterances(n):
    """Ids and speakers as of VoxCeleb2, 110 utterances each."""
    return ((f"id{i // 110:05}_0bcDEFghijk_{i % 110:05}", f"id{i // 110:05}") for i in range(n))


def write_list(n):
    Path("in").mkdir()
    with open("in/wav.scp", "w") as wav, open("in/video.scp", "w") as video, open("in/text", "w") as text, open("in/utt2spk", "w") as speakers:
        for utt, speaker in utterances(n):
            wav.write(f"{utt} {path_of(utt)}\n")
            video.write(f"{utt} {path_of(utt)}\n")
            text.write(f"{utt} words that somebody said in a video\n")
            speakers.write(f"{utt} {speaker}\n")


def path_of(utt):
    return f"/corpora/vox2/dev/mp4/{utt.replace('_', '/')}.mp4"


def write_journals(n, out):
    """All but the last entry done, and the mouth crops that the report shows."""
    journals, report = [Journal(Path(out), part + 1, PARTS) for part in range(PARTS)], Report()
    for i, (utt, speaker) in enumerate(utterances(n - 1)):
        source = mark(path_of(utt), path_of(utt), 0.0, None, speaker)
        entry = {"utt": utt, "samples": 128000, "frames": 200, "without_face": 0, "black": 0, "faces": 1, "scale": 1.04, "degrees": 0.5, "source": source}
        journals[i % PARTS].append(entry)
        report.add(entry, f"{out}/data/{speaker}/{utt}")
    for _, shown in report._chosen:
        write_roi(shown, np.zeros((1, 96, 96), np.uint8))


def measure(n, what, entries, *options, out="out"):
    command = [sys.executable, "-m", "espnet2_avsr_llm.bin.dump", "--in_dir", "in", "--out_dir", out, *map(str, options)]
    before, begin, first = written(out), time.monotonic(), None
    with open("log", "w") as log:
        process = subprocess.Popen(command, stderr=log)
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if first is None and "--finish" not in options and written(out) > before:
            first = time.monotonic() - begin
        time.sleep(0.01)
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 3), Path("log").read_text()
    cpu = usage.ru_utime + usage.ru_stime
    start = "" if first is None else f"{first:.1f} s"
    sys.stdout.write(f"{n:<9}{what:<48}{start:>11}{usage.ru_maxrss / 1024:>10.0f} MB{cpu:>13.1f}{1e6 * cpu / entries:>14.0f}\n")
    sys.stdout.flush()


def written(out):
    """Bytes in the journals."""
    return sum(path.stat().st_size for path in Path(out, "journal").glob("*.jsonl"))


if __name__ == "__main__":
    main()
