"""What the README tells users to type exists: scripts, configurations, options, programs."""

import re
import subprocess
from pathlib import Path

import pytest

from espnet2_avsr_llm.bin import cli

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "egs2" / "mini_av" / "avsr_llm1"
README = (ROOT / "README.md").read_text(encoding="utf-8")
TYPED = [line.split("#")[0].strip() for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


def test_the_two_commands():
    assert TYPED[:2] == ["egs2/mini_av/avsr_llm1/run.sh", "tests/run.sh"]
    for command in TYPED[:2]:
        assert (ROOT / command).stat().st_mode & 0o111, f"{command} is not executable"


@pytest.mark.parametrize("command", [line for line in TYPED if line.startswith("./run.sh --")])
def test_recipe_commands_use_known_options(command):
    # --help comes last: options before it are taken, nothing runs
    out = subprocess.run(["bash", "-c", f"{command} --help"], cwd=MINI, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr


@pytest.mark.parametrize("command", [line for line in TYPED if "--inference_requests" in line])
def test_what_is_asked_for_was_trained(command):
    """By each of the models that the command decodes with."""
    from espnet2_avsr_llm.build import part
    from espnet2_avsr_llm.config import load_config
    from espnet2_avsr_llm.inference.choose import Request

    given = re.search(r"--asr_config (\S+)", command)
    configs = [given[1]] if given else re.search(r'--asr_configs "(.*?)"', (MINI / "run.sh").read_text())[1].split()
    request = Request.parse(re.search(r"--inference_requests (\S+)", command)[1].strip('"'))
    for config in configs:
        trained = part(load_config(MINI / config), "plan").all_passes()
        assert request.candidates(trained, request.wanted(trained))


def test_named_configurations_and_programs_exist():
    for path in re.findall(r"conf/[\w/]+\.(?:yaml|conf)", README):
        assert (ROOT / path).is_file(), path
    for family, names in re.findall(r"(conf/train/\w+)_\{([\w,]+)\}\.yaml", README):
        for name in names.split(","):
            assert (ROOT / f"{family}_{name}.yaml").is_file()
    for program in re.findall(r"avsr-llm ([a-z_]+)", README):
        assert program in cli.programs(), program
