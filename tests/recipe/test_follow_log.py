"""The progress line is made from what trainers and progress bars write."""

import os
import subprocess
import sys
from pathlib import Path

UTILS = Path(__file__).resolve().parents[2] / "egs2" / "TEMPLATE" / "avsr_llm1" / "utils"
sys.path.insert(0, str(UTILS))
import follow_log  # noqa: E402
PREFIX = "[host] 2026-11-20 11:18:20,136 (trainer:811) INFO: "


def test_training_log_becomes_a_bar():
    lines = [
        f"{PREFIX}2/4epoch started. Estimated time to finish: 3 minutes",
        f"{PREFIX}2epoch:train:1-10batch: iter_time=0.1, loss=1.250, acc=0.5, backward_time=1",
    ]
    assert follow_log.progress(lines[:1]) == "epoch 2/4 [#####...............]  about 3 minutes left"
    assert follow_log.progress(lines) == "epoch 2/4 [#####...............] loss=1.250 acc=0.5"


def test_progress_bar_is_shown_as_it_is(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("# cmd\nstart\n 10%|# | 1/10\r 20%|## | 2/10\n# Accounting: time=1\n")
    assert follow_log.progress(follow_log.tail(log)) == "20%|## | 2/10"


def test_follower_ends_with_its_parent(tmp_path):
    command = f"[sys.executable, {str(UTILS / 'follow_log.py')!r}, {str(tmp_path / 'x')!r}, str(os.getpid())]"
    start = f"import os, subprocess, sys; subprocess.Popen({command})"
    # returns when the follower, which holds the pipe too, has ended
    subprocess.run([sys.executable, "-c", start], stdout=subprocess.PIPE, timeout=30, check=True)


def test_a_log_of_an_earlier_run_is_not_shown(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("old\n")
    os.utime(log, (0, 0))
    script = f"{sys.executable} {UTILS / 'follow_log.py'} {log} $$ & sleep 1; echo new > {log}; sleep 1"
    out = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30)
    assert out.stdout == "  new\n"
