#!/usr/bin/env python3
"""Run one command, or a job array, on this machine with a log file each: the interface of Kaldi's script of this name.

usage: run.pl [--gpu N] [--num_threads N] [--mem SIZE] [--name S] [--max-jobs-run N] ... [JOB=1:N] LOG COMMAND [ARGS]

JOB is replaced in LOG and in every argument. Commands start without a shell. ESPnet's launcher knows this script by its name.
"""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RUNNING = set()


def parse(argv):
    """Split the command line into options (each takes one value), the job variable, its first and last index, and the rest."""
    options, rest = {}, list(argv)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        if len(rest) < 2:
            sys.exit(f"run.pl: {rest[0]} needs a value")
        key, value, *rest = rest
        options[key.lstrip("-").replace("-", "_")] = value
    name, first, last = None, 1, 1
    if rest and (job := re.fullmatch(r"([A-Za-z_]\w*)=(.*)", rest[0])):
        if not (span := re.fullmatch(r"(\d+)(?::(\d+))?", job[2])) or int(span[1]) > int(span[2] or span[1]):
            sys.exit(f"run.pl: expected {job[1]}=FIRST:LAST, found {rest[0]}")
        name, first, last, rest = job[1], int(span[1]), int(span[2] or span[1]), rest[1:]
    if len(rest) < 2:
        sys.exit(__doc__)
    return options, name, first, last, rest


def run(log, command):
    """Run one command; everything it writes goes to the log (`-`: to this script's own output). Returns its exit status."""
    if log == "-":
        return wait_for(subprocess.Popen(command))
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    start = time.time()
    with open(log, "w", encoding="utf-8") as out:
        out.write(f"# {' '.join(command)}\n# Started at {time.ctime()}\n#\n")
        out.flush()
        try:
            code = wait_for(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT))
        except OSError as e:
            out.write(f"run.pl: cannot start: {e}\n")
            code = 127
        seconds = round(time.time() - start)
    with open(log, "a", encoding="utf-8") as out:
        out.write(f"# Accounting: time={seconds} threads=1\n# Ended (code {code}) at {time.ctime()}, elapsed time {seconds} seconds\n")
    return code


def wait_for(process):
    """Wait for a child that a signal to this script must end too."""
    RUNNING.add(process)
    try:
        return process.wait()
    finally:
        RUNNING.discard(process)


def stop(number, _frame):
    """End the children, then this script, on SIGTERM and SIGINT."""
    for process in list(RUNNING):
        process.send_signal(number)
    os._exit(128 + number)


def main(argv):
    """Run the jobs; the exit status is that of a single command, 1 if a job of an array fails."""
    options, name, first, last, (log, *command) = parse(argv)
    if variable := options.get("job_from"):  # inside a cluster's array job: this process is one of the jobs
        first = last = int(os.environ[variable])

    def job(index):
        fill = (lambda text: text.replace(name, str(index))) if name else str
        return run(fill(log), [fill(arg) for arg in command])

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    jobs = last - first + 1
    with ThreadPoolExecutor(int(options.get("max_jobs_run", jobs))) as pool:
        codes = list(pool.map(job, range(first, last + 1)))
    if failed := sum(code != 0 for code in codes):
        sys.stderr.write(f"run.pl: {failed} / {jobs} failed, log is in {log.replace(name, '*') if name else log}\n")
        sys.exit(1 if name else codes[0])


if __name__ == "__main__":
    main(sys.argv[1:])
