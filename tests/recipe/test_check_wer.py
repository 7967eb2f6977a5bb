"""The bounds on the mini recipe's error rates are really checked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / ".ci" / "check_wer.py"
GOOD = {
    "asr": {"clean": 2.0, "babble_0dB": 4.0, "babble_-5dB": 30.0},
    "vsr": {"clean": 15.0},
    "avsr": {"clean": 2.4, "babble_0dB": 4.0, "babble_-5dB": 20.0},
}


def write(folder, model, request, condition, percent, sentences):
    path = folder / model / "greedy" / "test" / request / condition / "score_wer" / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"percent": percent, "sentences": sentences}))


def check(folder, rates, *args, sentences=160):
    for task, conditions in rates.items():
        for condition, percent in conditions.items():
            write(folder, f"llama_avsr_{task}", f"{task}_audio4", condition, percent, sentences)
    for condition in rates["asr"]:  # the audio-visual model decodes sound alone too, which is not looked at
        write(folder, "llama_avsr_avsr", "asr_audio4", condition, 100.0, sentences)
    return subprocess.run([sys.executable, str(PROGRAM), str(folder), *args], capture_output=True, text=True)


def test_good_rates_pass(tmp_path):
    out = check(tmp_path, GOOD)
    assert out.returncode == 0 and "all WER bounds hold" in out.stdout


@pytest.mark.parametrize(
    "task, condition, percent, message",
    [
        ("asr", "clean", 3.1, "ASR clean is 3.10 %, bound 3.00 %"),
        ("vsr", "clean", 20.5, "VSR clean is 20.50 %"),
        ("avsr", "clean", 2.6, "AVSR clean is 2.60 %, bound 2.50 %"),
        ("avsr", "babble_-5dB", 21.5, "AVSR babble_-5dB is 21.50 %, bound 21.00 %"),
        ("asr", "babble_-5dB", 4.9, "no noise condition brings ASR above 5 %"),
        ("asr", "clean", float("nan"), "ASR clean is nan %"),
    ],
)
def test_each_bound_fails(tmp_path, task, condition, percent, message):
    out = check(tmp_path, {**GOOD, task: {**GOOD[task], condition: percent}})
    assert out.returncode == 1 and message in out.stderr


def test_bounds_are_options_and_a_small_test_set_is_refused(tmp_path):
    out = check(tmp_path, GOOD, sentences=100)
    assert out.returncode == 1 and "100 test utterances" in out.stderr
    again = [sys.executable, str(PROGRAM), str(tmp_path), "--min_utterances", "90", "--max_vsr", "10"]
    assert "VSR clean is 15.00 %, bound 10.00 %" in subprocess.run(again, capture_output=True, text=True).stderr


def test_missing_experiment_is_refused(tmp_path):
    out = check(tmp_path, {"asr": GOOD["asr"]})
    assert out.returncode == 1 and "expected one folder llama_avsr_vsr*" in out.stderr
