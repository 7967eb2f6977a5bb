"""run.pl and slurm.pl: single jobs, arrays, failures, odd arguments, and ESPnet's launcher on top of them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

UTILS = Path(__file__).resolve().parents[2] / "egs2" / "TEMPLATE" / "avsr_llm1" / "utils"
SHOW = "import sys; print(*sys.argv[1:], sep='\\n')"


def call(script, *args, **kwargs):
    command = [sys.executable, str(UTILS / script), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, **kwargs)


@pytest.fixture(params=["run.pl", "slurm.pl"])
def script(request, tmp_path, monkeypatch):
    """Both scripts, the second over an sbatch that runs the array's tasks one after the other."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "slurm.conf").write_text((UTILS.parents[3] / "conf" / "slurm.conf").read_text())
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(
        f"#!{sys.executable}\n"
        "import json, os, subprocess, sys\n"
        "args = sys.argv[1:]\n"
        "at = next(i for i, a in enumerate(args) if a.endswith('run.pl'))\n"
        "json.dump(args[:at], open('sbatch.json', 'w'))\n"
        "first, last = (args[args.index('--array') + 1].split('%')[0].split('-')) if '--array' in args else (1, 1)\n"
        "runs = [subprocess.run([sys.executable, *args[at:]], env={**os.environ, 'SLURM_ARRAY_TASK_ID': str(i)}).returncode\n"
        "        for i in range(int(first), int(last) + 1)]\n"
        "sys.exit(max(runs))\n"
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return request.param


def test_single_job(script):
    odd = ["a b", "$(touch pwned)", "; touch pwned", "it's", "-x", ""]
    out = call(script, "--gpu", 0, "--mem", "4G", "log/one.log", sys.executable, "-c", SHOW, *odd)
    assert out.returncode == 0, out.stderr
    text = Path("log/one.log").read_text()
    assert "\n".join(odd) in text and not Path("pwned").exists()
    assert text.startswith("# ") and "# Accounting: time=" in text and "# Ended (code 0) at" in text


def test_array_replaces_job_everywhere(script):
    out = call(script, "--max-jobs-run", 2, "JOB=1:4", "log/a.JOB.log", sys.executable, "-c", SHOW, "part.JOB/JOB")
    assert out.returncode == 0, out.stderr
    for i in range(1, 5):
        assert f"\npart.{i}/{i}\n" in Path(f"log/a.{i}.log").read_text()


def test_a_dump_as_an_array(script):
    """Stage 3 on either backend: the parts, then the tables; a file that cannot be used is status 3 of the last job."""
    for i in range(5):
        soundfile.write(f"u{i}.wav", np.full(8000, 0.1), 16000)
    Path("u3.wav").write_text("no sound")
    Path("in").mkdir()
    for name, value in (("wav.scp", "{0}.wav"), ("text", "words"), ("utt2spk", "s")):
        Path("in", name).write_text("".join(f"u{i} {value}\n".format(f"u{i}") for i in range(5)))
    dump = [sys.executable, "-m", "espnet2_avsr_llm.bin.dump", "--in_dir", "in", "--out_dir", "out"]
    env = {**os.environ, "PYTHONPATH": str(UTILS.parents[3])}
    out = call(script, "JOB=1:2", "log/dump.JOB.log", *dump, "--nj", 2, "--job", "JOB", env=env)
    assert out.returncode == 0, out.stderr
    assert len(list(Path("out/journal").iterdir())) == 2
    assert call(script, "log/finish.log", *dump, "--finish", env=env).returncode == 3
    assert [line.split()[0] for line in Path("out/wav.scp").read_text().splitlines()] == ["u0", "u1", "u2", "u4"]


@pytest.mark.parametrize("backend, expected", [("", "run.pl"), ("local", "run.pl"), ("slurm", "slurm.pl"), ("pbs", "is 'pbs', expected local or slurm")])
def test_the_backend_is_chosen_by_name(backend, expected):
    command = '. "$1"; echo "${train_cmd} ${cuda_cmd} ${decode_cmd}"'
    out = subprocess.run(["bash", "-c", command, "-", UTILS.parent / "cmd.sh"], env={**os.environ, "cmd_backend": backend}, capture_output=True, text=True)
    assert out.stdout == f"{expected} {expected} {expected}\n" or (out.returncode == 1 and expected in out.stderr)


def test_failing_job_is_counted_and_its_log_named(script):
    code = "import sys; sys.exit(int(sys.argv[1]) % 2)"
    out = call(script, "JOB=1:3", "log/f.JOB.log", sys.executable, "-c", code, "JOB")
    assert out.returncode == 1
    assert "failed, log is in log/f.*.log" in out.stderr
    assert "# Ended (code 0)" in Path("log/f.2.log").read_text()
    assert "# Ended (code 1)" in Path("log/f.3.log").read_text()


def test_all_failures_of_an_array_are_counted(tmp_path):
    out = call("run.pl", "JOB=1:3", tmp_path / "f.JOB.log", sys.executable, "-c", "import sys; sys.exit(JOB % 2)")
    assert "run.pl: 2 / 3 failed" in out.stderr


def test_single_job_hands_its_exit_status_on(script):
    out = call(script, "log/three.log", sys.executable, "-c", "raise SystemExit(3)")
    assert out.returncode == 3 and "failed, log is in log/three.log" in out.stderr


def test_missing_program_is_a_failed_job(tmp_path):
    out = call("run.pl", tmp_path / "m.log", "/no/such/program")
    assert out.returncode == 127
    assert "cannot start" in (tmp_path / "m.log").read_text()


@pytest.mark.parametrize("span", ["JOB=3:1", "JOB=a:b", "JOB=1:"])
def test_bad_job_range_is_refused(tmp_path, span):
    out = call("run.pl", span, tmp_path / "x.log", "true")
    assert out.returncode == 1 and f"expected JOB=FIRST:LAST, found {span}" in out.stderr


def test_stopping_the_script_stops_its_job(tmp_path):
    job = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    pid = tmp_path / "pid"
    runner = subprocess.Popen([sys.executable, str(UTILS / "run.pl"), str(tmp_path / "s.log"), sys.executable, "-c", job, str(pid)])
    deadline = time.monotonic() + 20
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(20) == 128 + signal.SIGTERM
    while Path(f"/proc/{pid.read_text()}").exists():
        assert time.monotonic() < deadline, "the job outlived run.pl"
        time.sleep(0.05)


def test_slurm_options_are_translated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.conf").write_text("command echo\ndefault time=1:00\noption time=* -t $0\noption gpu=0\noption gpu=* --gres=gpu:$0\n")
    out = call("slurm.pl", "--config", "c.conf", "--gpu", 2, "--name", "n", "JOB=1:4", "l/x.JOB.log", "true")
    expected = f"--wait --job-name n -t 1:00 --gres=gpu:2 --array 1-4 --output l/q/slurm-%j.out {UTILS / 'run.pl'} --job-from"
    assert expected in out.stdout
    out = call("slurm.pl", "--config", "c.conf", "--mem", "4G", "l/x.log", "true")
    assert out.returncode == 1 and "has no line `option mem=4G ...`" in out.stderr


@pytest.mark.parametrize("script", ["slurm.pl"], indirect=True)
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_training_on_slurm_gets_cpus_for_its_data_workers(script, nodes):
    """The launcher names the GPUs, and for several nodes as many threads as GPUs."""
    options = ["--gpu", 4, *(["--num_threads", 4, "--num_nodes", 2] if nodes == 2 else [])]
    assert call(script, *options, "log/x.log", "true").returncode == 0
    flags = " ".join(json.loads(Path("sbatch.json").read_text()))
    assert "--gpus-per-node 4 --cpus-per-gpu 5" in flags and "--cpus-per-task" not in flags
    assert ("--nodes 2" in flags) == (nodes == 2)


def test_espnets_launcher_accepts_run_pl(tmp_path):
    command = ["-m", "espnet2.bin.launch", "--cmd", f"{UTILS / 'run.pl'} --name x", "--log", str(tmp_path / "train.log")]
    run = [sys.executable, *command, "--ngpu", "0", "--", sys.executable, "-c", SHOW, "--lr", "1"]
    subprocess.run(run, check=True, capture_output=True)
    subprocess.run(run, check=True, capture_output=True)
    assert "--lr\n1\n--ngpu\n0\n" in (tmp_path / "train.log").read_text()
    assert (tmp_path / "train.1.log").exists()
    failing = [*run[:-4], "-c", "raise SystemExit(3)"]
    assert subprocess.run(failing, capture_output=True).returncode != 0
