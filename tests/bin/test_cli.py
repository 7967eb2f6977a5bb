"""The console script finds programs by file, imports only what it runs, and every --help answers at once."""

import os
import subprocess
import sys
import time

import pytest

from espnet2_avsr_llm.bin import cli

HEAVY = ("torch", "espnet2", "transformers", "av", "cv2", "scipy", "matplotlib")
OWN_PARSER_OF_ESPNET = {"avsr_llm_train"}


def run_cli(*args):
    return subprocess.run([sys.executable, "-m", "espnet2_avsr_llm.bin.cli", *args], capture_output=True, text=True)


def test_help_lists_every_program_with_its_first_line():
    out = run_cli("--help")
    assert out.returncode == 0
    for name, file in cli.programs().items():
        first = cli.summary(file)
        assert first, f"{file} has no docstring"
        assert any(line.split(maxsplit=1) == [name, first] for line in out.stdout.splitlines())


def test_unknown_program_names_the_nearest():
    out = run_cli("scores")
    assert out.returncode != 0
    assert "no program 'scores'. Did you mean score?" in out.stderr


def test_arguments_and_dashes_reach_the_program(tmp_path):
    out = run_cli("datadir", "validate", str(tmp_path / "absent"))
    assert out.returncode != 0
    assert "neither wav.scp nor video.scp" in out.stderr


@pytest.mark.parametrize("name", sorted(set(cli.programs()) - OWN_PARSER_OF_ESPNET))
def test_help_is_fast_and_imports_nothing_heavy(name):
    code = (
        "import sys\nfrom espnet2_avsr_llm.bin import cli\n"
        f"try:\n    cli.main([{name!r}, '--help'])\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]\nassert not heavy, heavy"
    )
    start = os.times()
    wall = time.monotonic()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    end = os.times()
    assert out.returncode == 0, out.stderr
    assert "--help" in out.stdout
    # CPU time of the child: the wall time of a busy machine says little
    seconds = end.children_user + end.children_system - start.children_user - start.children_system
    assert seconds < 1.0, f"--help took {seconds:.2f} s of CPU time ({time.monotonic() - wall:.2f} s in all)"


def test_importing_the_package_is_light():
    code = f"import sys, espnet2_avsr_llm; assert not [m for m in {HEAVY!r} if m in sys.modules]"
    subprocess.run([sys.executable, "-c", code], check=True)
