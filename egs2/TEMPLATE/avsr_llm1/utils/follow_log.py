#!/usr/bin/env python3
"""Show on the terminal how far a command is whose output goes to a log file: `follow_log.py LOG PARENT_PID`.

Prints the log's last line (a tqdm bar, or the epoch and losses of ESPnet's trainer) in one line that is rewritten; where the
output is no terminal, a line every half minute. Ends with its parent process.
"""

import os
import re
import shutil
import sys
import time

EPOCHS = re.compile(r"(\d+)/(\d+)epoch started")
VALUES = re.compile(r"\b(loss|acc)=([-\d.e]+)")
LEVEL = re.compile(r"^.*? (?:INFO|WARNING|ERROR): ")


def tail(path, size=65536):
    """Last bytes of a file as lines, a carriage return counting as a line end."""
    with open(path, "rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - size))
        text = log.read().decode("utf-8", "replace")
    return [line.strip() for line in re.split(r"[\r\n]", text) if line.strip() and not line.startswith("#")]


def progress(lines):
    """One line about the newest state: a bar over the epochs for a training log, the last line for any other."""
    started = [match for line in lines if (match := EPOCHS.search(line))]
    last = LEVEL.sub("", lines[-1])
    if not started:
        return last
    epoch, epochs = int(started[-1][1]), int(started[-1][2])
    done = 20 * (epoch - 1) // epochs
    reported = [line for line in lines if VALUES.search(line)]
    values = " ".join(f"{key}={value}" for key, value in VALUES.findall(reported[-1])[:2]) if reported else ""
    left = lines[-1].partition("Estimated time to finish: ")[2]
    return f"epoch {epoch}/{epochs} [{'#' * done}{'.' * (20 - done)}] {values} {'about ' + left + ' left' if left else ''}".rstrip()


def main(path, parent):
    """Follow until the parent process is gone."""
    begin, shown = time.time(), None
    terminal = sys.stdout.isatty()
    due = begin
    while os.getppid() == parent:
        time.sleep(0.5)
        # a log older than this process is that of an earlier run
        if time.time() < due or not os.path.exists(path) or os.path.getmtime(path) < begin or not (lines := tail(path)):
            continue
        if (line := progress(lines)) == shown:
            continue
        shown, due = line, time.time() + (0 if terminal else 30)
        room = shutil.get_terminal_size().columns - 1
        sys.stdout.write(f"\r\033[K{line[:room]}" if terminal else f"  {line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
