"""parse_options.sh takes options as Kaldi and ESPnet users write them, and refuses what it does not know."""

import subprocess
from pathlib import Path

import pytest

UTILS = Path(__file__).resolve().parents[2] / "egs2" / "TEMPLATE" / "avsr_llm1" / "utils"
SCRIPT = f"""
set -euo pipefail
nj=1; flag=false; some_args=; help_message="usage: me"
. {UTILS}/parse_options.sh
printf '%s|' "$nj" "$flag" "$some_args" "$@"
"""


def run(*args):
    return subprocess.run(["bash", "-c", SCRIPT, "me", *args], capture_output=True, text=True)


@pytest.mark.parametrize(
    "args, expected",
    [
        ([], "1|false||"),
        (["--nj", "4", "--flag", "true"], "4|true||"),
        (["--some-args", "--max_epoch 5", "--nj", "-1"], "-1|false|--max_epoch 5|"),
        (["--some_args", "$(touch /tmp/x); 'q'", "rest", "--nj"], "1|false|$(touch /tmp/x); 'q'|rest|--nj|"),
    ],
)
def test_accepted(args, expected):
    assert run(*args).stdout == expected


@pytest.mark.parametrize(
    "args, message",
    [
        (["--njobs", "4"], "invalid option --njobs"),
        (["--nj"], "--nj needs a value"),
        (["--nj=4"], "expected --name value"),
        (["--flag", "yes"], "--flag expects true or false, found 'yes'"),
        (["--a[$(touch pwned)]", "1"], "invalid option"),
    ],
)
def test_refused(args, message):
    out = run(*args)
    assert out.returncode == 1 and message in out.stderr


def test_config_file_and_help(tmp_path):
    (tmp_path / "c.sh").write_text("nj=7\n")
    assert run("--config", str(tmp_path / "c.sh"), "--flag", "true").stdout == "7|true||"
    assert run("--help").stdout == "usage: me\n"
