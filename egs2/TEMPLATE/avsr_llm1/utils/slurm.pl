#!/usr/bin/env python3
"""Run one command, or a job array, on a Slurm cluster and wait for it: the interface of Kaldi's script of this name.

usage: slurm.pl [--config FILE] [--gpu N] [--num_threads N] [--num_nodes N] [--mem SIZE] [--time T] [--name S]
                [--max-jobs-run N] [JOB=1:N] LOG COMMAND [ARGS]

FILE (conf/slurm.conf) says which sbatch options each of ours stands for. The batch script is run.pl, which runs its own job of
the array and writes the log; no command line passes through a shell. ESPnet's launcher knows this script by its name.
"""

import shlex
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

RUN_PL = Path(__file__).resolve().with_name("run.pl")


def load_run_pl():
    """Import the neighbouring script, whose name is no module name."""
    loader = SourceFileLoader("run_pl", str(RUN_PL))
    module = module_from_spec(spec_from_loader("run_pl", loader))
    loader.exec_module(module)
    return module


def read_config(path):
    """Read lines `command sbatch ...`, `default NAME=VALUE` and `option NAME=VALUE FLAGS` (VALUE `*`: any, `$0` in FLAGS)."""
    command, defaults, flags = ["sbatch"], {}, {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        word, *rest = shlex.split(line, comments=True) or [""]
        if word == "command":
            command = rest
        elif word in ("default", "option") and rest and "=" in rest[0]:
            key, _, value = rest[0].partition("=")
            if word == "default":
                defaults[key] = value
            else:
                flags[key, value] = rest[1:]
        elif word:
            sys.exit(f"{path}:{number}: expected command, default or option, found {line!r}")
    return command, defaults, flags


def sbatch_flags(options, flags, path):
    """Translate our options by the configuration."""
    translated = []
    for key, value in options.items():
        found = flags.get((key, value), flags.get((key, "*")))
        if found is None:
            sys.exit(f"slurm.pl: {path} has no line `option {key}={value} ...` nor `option {key}=* ...`: add one")
        translated += [flag.replace("$0", value) for flag in found]
    return translated


def main(argv):
    """Submit, wait, and fail if a job failed."""
    options, name, first, last, (log, *command) = load_run_pl().parse(argv)
    config = options.pop("config", "conf/slurm.conf")
    label = options.pop("name", Path(log).stem)
    at_once = options.pop("max_jobs_run", None)
    sbatch, defaults, flags = read_config(config)
    submit = [*sbatch, "--wait", "--job-name", label, *sbatch_flags({**defaults, **options}, flags, config)]
    task = ["--job-from", "SLURM_ARRAY_TASK_ID", f"{name}={first}:{last}"] if name else []
    if name:
        submit += ["--array", f"{first}-{last}" + (f"%{at_once}" if at_once else "")]
    queue = Path(log).parent / "q"  # what Slurm itself says, when a job does not even start
    queue.mkdir(parents=True, exist_ok=True)
    submit += ["--output", str(queue / "slurm-%j.out"), str(RUN_PL), *task, log, *command]
    if code := subprocess.run(submit).returncode:
        where = log.replace(name, "*") if name else log
        sys.stderr.write(f"slurm.pl: failed, log is in {where}; Slurm's own messages are in {queue}\n")
        sys.exit(1 if name else code)


if __name__ == "__main__":
    main(sys.argv[1:])
