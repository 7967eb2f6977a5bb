"""The environment script: when it installs, what it says, and how it goes on after a kill. No test installs anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UTILS = ROOT / "egs2" / "TEMPLATE" / "avsr_llm1" / "utils"
# stands in for a Python that can make environments; the pip in them notes its calls and fails while there is a file `broken`
PYTHON = """#!/usr/bin/env bash
here=$(dirname "$0")
case "$*" in
    *"(3, 10))"*) exit "${IS_310:-0}" ;;
    *Python.h*) echo "${HEADER:-/dev/null}" ;;
    *ensurepip*) exit 0 ;;
    *python_version*) echo 3.11.0 ;;
    *"-m venv"*) echo "venv ${*: -1}" >>"$CALLS"; mkdir -p "${*: -1}/bin"; cp "$0" "${*: -1}/bin/python"; rm -f "$BROKEN" ;;
    *"-m pip --version"*) ;;
    *"-m pip"*) echo "$*" >>"$CALLS"; [ ! -e "$BROKEN" ] ;;
    *check_install*) [ "$(basename "$here")" = bin ] ;;
esac
"""


@pytest.fixture
def install(tmp_path):
    """Run install.sh with the stand-in; `python3` in PATH has nothing installed."""
    (tmp_path / "path").mkdir()
    stand_in = tmp_path / "path" / "python3"
    stand_in.write_text(PYTHON)
    stand_in.chmod(0o755)

    def run(*args, **env):
        environment = {
            **os.environ,
            "PATH": f"{tmp_path / 'path'}:{os.environ['PATH']}",
            "AVSR_LLM_ENV": str(tmp_path / "env"),
            "CALLS": str(tmp_path / "calls"),
            "BROKEN": str(tmp_path / "broken"),
            **env,
        }
        command = [str(UTILS / "install.sh"), "--python", str(stand_in), *args]
        out = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        calls = tmp_path / "calls"
        out.calls = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return out

    return run


def test_builds_the_environment_with_the_pins(install, tmp_path):
    out = install("--extras", "mini test")
    assert out.returncode == 0, out.stderr
    venv, pip, package = out.calls
    assert venv == f"venv {tmp_path / 'env'}"
    assert pip.endswith("pip install --quiet pip<26.3")
    assert package.endswith(f"--constraint {ROOT}/conf/constraints.txt --editable {ROOT}[mini,test]")
    assert "installed" in out.stderr and not (tmp_path / "env" / ".unfinished").exists()


def test_python_310_takes_the_ranges_of_setup_py(install):
    assert "--constraint" not in install(IS_310="1").calls[-1]


def test_missing_compiler_and_headers_are_named(install):
    out = install(CXX="no-such-compiler", HEADER="/no/such/Python.h")
    assert "no C++ compiler (no-such-compiler): pyworld" in out.stderr
    assert "no Python headers (/no/such/Python.h)" in out.stderr
    assert "no C++ compiler" not in install(CXX="bash").stderr


def test_second_call_finds_the_environment_ready(install, tmp_path):
    install()
    (tmp_path / "path" / "python3").unlink()
    (tmp_path / "path" / "python3").symlink_to(tmp_path / "env" / "bin" / "python")
    (tmp_path / "env" / "bin" / "python3").symlink_to("python")
    out = install()
    assert out.returncode == 0 and out.calls == []
    assert "has all that is needed" in out.stderr


def test_failing_pip_is_an_error_and_keeps_the_environment_for_the_next_try(install, tmp_path):
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").write_text(PYTHON)
    (tmp_path / "env" / "bin" / "python").chmod(0o755)
    (tmp_path / "broken").touch()
    out = install()
    assert out.returncode == 1 and "pip failed" in out.stderr
    assert not any(call.startswith("venv") for call in out.calls)
    # the next run finds an unfinished environment that pip cannot complete: it starts anew
    out = install()
    assert out.returncode == 0, out.stderr
    assert "building it anew" in out.stderr
    assert not (tmp_path / "env" / ".unfinished").exists()


def test_no_usable_python_is_said(install):
    out = install("--python", "/no/such/python")
    assert out.returncode == 1
    assert "Needed: Python 3.10, 3.11 or 3.12" in out.stderr


def check(setup_py, *extras):
    command = [sys.executable, str(UTILS / "check_install.py"), str(setup_py), *extras]
    return subprocess.run(command, capture_output=True, text=True)


def test_this_environment_satisfies_setup_py():
    out = check(ROOT / "setup.py", "test")
    assert out.returncode == 0, out.stderr


def test_every_unmet_requirement_is_named(tmp_path):
    setup_py = tmp_path / "setup.py"
    needs = '["numpy<1", "no-such-package>=2", "pytest", "also-absent; python_version < \'3\'"]'
    setup_py.write_text(f'from setuptools import setup\nsetup(name="pytest", install_requires={needs}, extras_require={{"x": ["absent-extra"]}})\n')
    err = check(setup_py, "x").stderr
    assert "numpy is" in err and "wanted <1" in err
    assert "no-such-package is not installed" in err and "absent-extra is not installed" in err
    assert "pytest" not in err and "also-absent" not in err


def test_constraints_lie_within_setup_py():
    from packaging.requirements import Requirement

    sys.path.insert(0, str(UTILS))
    from check_install import requirements

    pinned = {}
    for line in (ROOT / "conf" / "constraints.txt").read_text().splitlines():
        if "==" in line:
            name, _, version = line.partition("==")
            pinned[name.lower().replace("_", "-")] = version
    for line in requirements(ROOT / "setup.py", ["mini", "test"])[1:]:
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"python_version": "3.11"}):
            assert wanted.specifier.contains(pinned[wanted.name.lower()]), line
