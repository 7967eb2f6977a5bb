"""compare.sh with a stand-in for run.sh: which models are trained, on which batches, and that every step is equal."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "egs2" / "TEMPLATE" / "avsr_llm1"
LISTED = """# comment
a conf/a.yaml --plan_conf passes=[{"task":"asr","rates":{"audio":4}}]

a conf/a.yaml --plan_conf passes=[{"task":"asr","rates":{"audio":8}}]
b conf/b.yaml
"""
RUN = """#!/usr/bin/env bash
[[ "$*" != *"${FAIL:-nothing}"* ]] || exit 1
printf '%s\\n' "$*" >>calls.txt
"""


@pytest.fixture
def compare(tmp_path):
    """``compare(options...)``: the process; its calls of run.sh are in calls.txt."""
    for name in ("compare.sh", "path.sh", "utils"):
        (tmp_path / name).symlink_to(TEMPLATE / name)
    for name, text in (("run.sh", RUN), ("python3", "#!/usr/bin/env bash\necho \"python $*\"\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "list.txt").write_text(LISTED)
    (tmp_path / "exp" / "compare").mkdir(parents=True)

    def run(*args, **env):
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "AVSR_LLM_ENV": "/absent", **env}
        return subprocess.run(["./compare.sh", *args], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    return run


def test_every_model_and_seed_on_the_same_batches(compare, tmp_path):
    options = ["--systems", "list.txt", "--seeds", "1 2", "--batch_config", "conf/c.yaml", "--batch_bins", "99", "--max_epoch", "7", "--jobs", "2"]
    out = compare(*options, "--noise_snrs", "0 -5", "--run_args", "--nj 3")
    assert out.returncode == 0, out.stderr
    lengths, *models = (tmp_path / "calls.txt").read_text().splitlines()
    common = "--expdir exp/compare --asr_stats_dir exp/compare/stats --skip_packing true --noise_snrs 0 -5 --nj 3"
    assert lengths == f"{common} --stage 10 --stop_stage 10 --asr_config conf/c.yaml"
    expected = []
    for seed in (1, 2):
        for name, config, audio in (("a.1", "a", 4), ("a.2", "a", 8), ("b.1", "b", None)):
            plan = f'--plan_conf passes=[{{"task":"asr","rates":{{"audio":{audio}}}}}] ' if audio else " "
            start = f"{common} --stage 11 --stop_stage 13 --asr_config conf/{config}.yaml --asr_tag {name}_seed{seed} --num_threads "
            expected.append((start, f" --asr_args {plan}--seed {seed} --batch_bins 99 --max_epoch 7"))
    assert len(models) == len(expected)
    for start, end in expected:
        assert [m for m in models if m.startswith(start) and m.endswith(end)], start
    assert (tmp_path / "exp/compare/compare.md").read_text() == "python -m espnet2_avsr_llm.bin.compare exp/compare\n"


def test_a_failure_ends_it_without_a_table(compare, tmp_path):
    out = compare("--systems", "list.txt", FAIL="a.2_seed1")
    assert out.returncode == 1
    assert "seed3" not in (tmp_path / "calls.txt").read_text() and not (tmp_path / "exp/compare/compare.md").exists()


def test_a_failure_is_not_lost_when_the_last_model_ends_at_once(compare, tmp_path):
    (tmp_path / "awk").write_text('#!/usr/bin/env bash\n/usr/bin/awk "$@"; sleep 2\n')  # the list ends after the models
    (tmp_path / "awk").chmod(0o755)
    assert compare("--systems", "list.txt", "--seeds", "1", "--jobs", "3", FAIL="b.1_seed1").returncode == 1


def test_an_absent_list_is_named(compare):
    out = compare("--systems", "none.txt")
    assert out.returncode == 2 and "--systems names 'none.txt', no such file" in out.stderr


def test_help(compare):
    assert "--max_epoch 5" in compare("--help").stdout


@pytest.fixture(scope="module")
def parser():
    from espnet2_avsr_llm.task import AVSRLLMTask

    return AVSRLLMTask.get_parser()


@pytest.mark.parametrize("listed", sorted((ROOT / "conf" / "compare").glob("*.txt")), ids=lambda p: p.name)
def test_listed_configurations_exist_and_their_options_are_those_of_training(parser, listed):
    from espnet2_avsr_llm.build import PARTS
    from espnet2_avsr_llm.registry import construct

    for line in listed.read_text().splitlines():
        if line and not line.startswith("#"):
            _, config, *options = line.split()
            args = parser.parse_args(["--config", str(ROOT / config), "--output_dir", "x", *options])
            assert construct(PARTS["plan"], args.plan, args.plan_conf).all_passes()
