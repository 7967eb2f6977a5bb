"""avsr_llm.sh with a stand-in for Python that writes down what it is asked to run: stages, options, failures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "egs2" / "TEMPLATE" / "avsr_llm1"
STUB = """#!/usr/bin/env bash
# stands in for python: notes the command line; fails for the command lines that hold FAIL
case "$1" in
    utils/*) exec python3 "$@" ;;
esac
printf '%s\\n' "${*:2}" >>calls.txt
if [ -n "${FAIL:-}" ] && [[ "$*" == *"${FAIL}"* ]]; then echo "reason of the failure"; exit "${STATUS:-1}"; fi
if [ "$2" = espnet2_avsr_llm.bin.make_shape ]; then # --outs A B
    for file in $(sed 's/.*--outs \\([^ ]* [^ ]*\\).*/\\1/' <<<"$*"); do mkdir -p "${file%/*}" && echo "$*" >"${file}"; done
fi
if [ "$2" = espnet2_avsr_llm.bin.results ]; then touch "${*: -1}/wer.txt"; fi
if [ "$2" = espnet2.bin.launch ]; then echo "trained with ${OMP_NUM_THREADS} threads" >"$6" && touch "${6%/*}/checkpoint.pth"; fi
"""
AV, A, V = "conf/av.yaml", "conf/a.yaml", "conf/v.yaml"


class Recipe:
    """A recipe folder that links to the real template."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "egs2" / "toy" / "avsr_llm1"
        (self.folder / "local").mkdir(parents=True)
        (self.folder / "conf" / "decode").mkdir(parents=True)
        (self.folder / "utils").mkdir()
        for name in ("avsr_llm.sh", "path.sh", "cmd.sh", "db.sh", *(f"utils/{path.name}" for path in (TEMPLATE / "utils").iterdir())):
            (self.folder / name).symlink_to(TEMPLATE / name)
        (self.folder / "utils" / "install.sh").unlink()  # a test installs nothing
        self.write("utils/install.sh", '#!/usr/bin/env bash\necho "utils/install.sh $*" >>calls.txt\n', 0o755)
        self.write("stub", STUB, 0o755)
        self.write("local/data.sh", '#!/usr/bin/env bash\necho "local/data.sh $*" >>calls.txt\n', 0o755)
        self.write(AV, "audio_frontend: whisper\nvideo_frontend: avhubert\n")
        self.write(A, "audio_frontend: whisper\nvideo_frontend: null  # none\n")
        self.write(V, "video_frontend: avhubert\nvideo_frontend_conf: {}\n")
        self.sets = ["--train_set", "tr", "--valid_set", "va", "--test_sets", "te1 te2"]

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess:
        command = ["./avsr_llm.sh", *self.sets, "--python", "./stub", *args]
        env = {**os.environ, "AVSR_LLM_ENV": "/absent", **env}
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=120)

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls.txt"
        return path.read_text().splitlines() if path.exists() else []

    def programs(self) -> list[str]:
        return [call.split()[0].rpartition(".")[2] for call in self.calls]


@pytest.fixture
def recipe(tmp_path):
    return Recipe(tmp_path)


def stages(out: str) -> dict[int, str]:
    """Message of each stage that spoke."""
    return {int(m[1]): m[2] for m in re.finditer(r"Stage (\d+): (.*)", out)}


def test_all_stages_in_order(recipe):
    out = recipe.run("--asr_configs", f"{AV} {V}", "--noise_snrs", "0 -5", "--skip_packing", "false", "--nj", "2")
    assert out.returncode == 0, out.stderr
    assert recipe.programs() == (
        ["sh", "roi_models", "check_parts", "sh", "datadir", *["dump"] * 12, *["datadir"] * 2, "noise_list", *["check_parts"] * 2]
        + [*["make_shape"] * 2, "launch", "launch", *["avsr_llm_inference"] * 4, *["score"] * 4, "results", *["pack"] * 2]
        + ["sinks", "sinks", "shap", "report"] * 2
    )
    said = stages(out.stdout)
    assert sorted(said) == list(range(17))
    assert all(said[n] == "skipped (nothing to do here)" for n in (2, 6, 7, 8, 9))
    assert said[15] == "skipped by option"
    for line in out.stdout.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d \(avsr_llm\.sh:\d+:\w+\) |  ", line), line
    assert re.search(r"Successfully finished\. \[elapsed=\d+s\]$", out.stdout.strip())


def test_one_stage_of_one_configuration_with_training_options(recipe):
    args = ["--stage", "11", "--stop-stage", "11", "--asr_configs", V, "--ngpu", "1", "--asr_args", "--max_epoch 5"]
    assert recipe.run(*args).returncode == 0
    lengths, call = recipe.calls  # length files of these options do not exist yet
    assert lengths.endswith("--outs exp/stats_v_max_epoch5/train/llm_shape exp/stats_v_max_epoch5/valid/llm_shape --max_epoch 5")
    launcher, _, training = call.partition(" -- ")
    assert launcher.startswith("espnet2.bin.launch --cmd run.pl --name v_max_epoch5 --log exp/v_max_epoch5/train.log --ngpu 1 --num_nodes 1")
    assert training.startswith("./stub -m espnet2_avsr_llm.bin.avsr_llm_train --config conf/v.yaml ")
    assert training.endswith("--resume true --output_dir exp/v_max_epoch5 --max_epoch 5")
    assert "--train_data_path_and_name_and_type dump/raw/tr/video.scp,video,video" in training
    assert "--valid_data_path_and_name_and_type dump/raw/va/text,text,text" in training
    assert "--train_shape_file exp/stats_v_max_epoch5/train/llm_shape" in training
    assert ",speech," not in training


@pytest.mark.parametrize("config, streams", [(AV, ["speech", "video"]), (A, ["speech"]), (V, ["video"])])
def test_streams_and_noise_follow_the_configuration(recipe, config, streams):
    recipe.write("dump/raw/noise/train.txt", "babble x\n")
    args = ["--asr_config", config, "--stage", "11", "--stop_stage", "12", "--noise_snrs", "0 -5", "--test_sets", "te1"]
    assert recipe.run(*args).returncode == 0
    _, training, decoding = recipe.calls
    assert re.findall(r"--train_data_path_and_name_and_type \S+,(speech|video),", training) == streams
    hears = "speech" in streams
    assert ("--augment_conf noise_file=dump/raw/noise/train.txt" in training) == hears
    name = Path(config).stem
    conditions = "clean babble_0dB babble_-5dB" if hears else "clean"
    assert f"--conditions {conditions} --output_dir" in decoding
    assert decoding.endswith(f"--output_dir exp/{name}/greedy_asr_model_valid.acc.ave/te1")
    assert f"--asr_train_config exp/{name}/config.yaml --asr_model_file exp/{name}/valid.acc.ave.pth" in decoding


def test_types_of_noise_levels_of_papers_and_damaged_video(recipe):
    noise = ["--noise_types", "babble musan_music", "--noise_snrs", "llama_avsr", "--noise_args", "--musan /m", "--video_conditions", "blur frozen"]
    expected = [f"{kind}_{snr}dB" for kind in ("babble", "musan_music") for snr in (5, 0, -5)]
    for config, conditions in ((AV, [*expected, "blur", "frozen"]), (A, expected), (V, ["blur", "frozen"])):
        (recipe.folder / "calls.txt").unlink(missing_ok=True)
        args = ["--asr_config", config, "--stage", "5", "--stop_stage", "12", "--skip_train", "true", "--test_sets", "te1"]
        assert recipe.run(*args, *noise).returncode == 0
        lists, _, decoding = recipe.calls
        assert lists.endswith("--out_dir dump/raw/noise --types babble musan_music --snrs 5 0 -5 --musan /m")
        assert f"--conditions clean {' '.join(conditions)} --output_dir" in decoding


def test_levels_of_noise_are_named_as_the_lists_are(recipe):
    args = ["--asr_config", A, "--stage", "5", "--stop_stage", "12", "--skip_train", "true", "--test_sets", "te1", "--noise_snrs", "5.0 2.50 -05"]
    assert recipe.run(*args).returncode == 0
    lists, _, decoding = recipe.calls
    assert lists.endswith("--snrs 5 2.5 -5") and "--conditions clean babble_5dB babble_2.5dB babble_-5dB --output_dir" in decoding


def test_what_to_decode_with_is_one_list(recipe):
    requests = "task=asr,audio_rate=4 max_llm_tokens=60"
    assert recipe.run("--asr_config", AV, "--stage", "12", "--stop_stage", "13", "--test_sets", "te1", "--inference_requests", requests).returncode == 0
    decoding, _, results = recipe.calls
    assert decoding.endswith(f"/te1 --requests {requests}")
    assert results.endswith("bin.results exp/av --plot_dir exp")


@pytest.mark.parametrize(
    "option, left_out",
    [
        (["--skip_data_prep", "true"], {1, 3, 4, 5}),
        (["--skip-train", "true"], {4, 10, 11}),
        (["--skip_eval", "true"], {12, 13}),
        (["--skip_analysis", "true"], {16}),
        (["--skip_stages", "3 12"], {3, 12}),
    ],
)
def test_skip_options(recipe, option, left_out):
    out = recipe.run("--asr_configs", A, "--stage", "1", "--skip_packing", "false", *option)
    assert out.returncode == 0, out.stderr
    assert {n for n, text in stages(out.stdout).items() if text == "skipped by option"} == left_out | {15}


def test_start_in_the_middle_runs_to_the_end(recipe):
    out = recipe.run("--asr_configs", A, "--stage", "12")
    assert sorted(stages(out.stdout)) == [12, 13, 14, 15, 16]
    assert recipe.programs() == [*["avsr_llm_inference"] * 2, "score", "score", "results", "sinks", "sinks", "shap", "report"]


def test_analysis(recipe):
    """Before and after training, of the first test set, in the conditions of decoding; RESULTS.md gains the sections."""
    recipe.write("exp/av/RESULTS.md", "")
    out = recipe.run("--asr_config", AV, "--stage", "16", "--noise_snrs", "-5", "--analysis_args", "--max_evals 9", "--gpu_inference", "true")
    assert out.returncode == 0, out.stderr
    before, after, shap, results, report = recipe.calls
    model = "--asr_train_config exp/av/config.yaml --data_dir dump/raw/te1 --noise_dir dump/raw/noise/te1 --ngpu 1 --output_dir exp/av/analysis"
    trained = "--asr_model_file exp/av/valid.acc.ave.pth"
    assert before == f"espnet2_avsr_llm.bin.sinks {model}/sinks_before"
    assert after == f"espnet2_avsr_llm.bin.sinks {model}/sinks {trained}"
    assert shap == f"espnet2_avsr_llm.bin.shap {model}/shap {trained} --conditions clean babble_-5dB --max_evals 9"
    assert results == "espnet2_avsr_llm.bin.results exp/av" and report == "espnet2_avsr_llm.bin.report exp/av"
    assert "log: 'exp/av/analysis/shap.log'" in out.stdout


@pytest.mark.parametrize("part", ["projector: smop", "adapter: mome"])
def test_analysis_of_experts(recipe, part):
    recipe.write(AV, f"audio_frontend: whisper\nvideo_frontend: avhubert\n{part}\n")
    recipe.run("--asr_config", AV, "--stage", "16")
    assert recipe.programs() == ["sinks", "sinks", "experts", "shap", "report"]
    assert recipe.calls[2].endswith("--output_dir exp/av/analysis/experts --asr_model_file exp/av/valid.acc.ave.pth")


def test_length_files_made_before(recipe):
    args = ["--asr_stats_dir", "exp/shared", "--stage", "10", "--stop_stage", "11", "--asr_config"]
    assert recipe.run(*args, AV).returncode == 0
    assert "--outs exp/shared/train/llm_shape exp/shared/valid/llm_shape" in recipe.calls[0]
    (recipe.folder / "calls.txt").unlink()
    os.utime(recipe.folder / A, (9e9, 9e9))  # newer than the length files
    assert recipe.run("--asr_stats_dir", "exp/shared", "--stage", "11", "--stop_stage", "11", "--asr_config", A).returncode == 0
    (training,) = recipe.calls
    assert "--train_shape_file exp/shared/train/llm_shape" in training


def test_failure_stops_and_names_the_log(recipe):
    out = recipe.run("--asr_configs", A, "--stage", "12", FAIL="espnet2_avsr_llm.bin.avsr_llm_inference")
    assert out.returncode == 1
    where = "exp/a/greedy_asr_model_valid.acc.ave/te1/decode.log"
    assert f"Error: exit status 1, see {where}" in out.stdout
    assert f"run.pl: 1 / 1 failed, log is in {where}" in out.stderr
    assert "reason of the failure" in out.stderr
    assert recipe.programs() == ["avsr_llm_inference"]
    assert "Successfully" not in out.stdout


def test_failure_of_a_program_without_log_stops_too(recipe):
    out = recipe.run("--asr_configs", A, "--stage", "4", FAIL="espnet2_avsr_llm.bin.datadir")
    assert out.returncode == 1 and recipe.programs() == ["datadir"]


def test_decoding_as_a_job_array(recipe):
    args = ["--asr_config", A, "--stage", "12", "--stop_stage", "12", "--test_sets", "te1"]
    assert recipe.run(*args).returncode == 0
    (one,) = recipe.calls
    (recipe.folder / "calls.txt").unlink()
    assert recipe.run(*args, "--inference_nj", "3").returncode == 0
    *jobs, last = recipe.calls
    assert sorted(jobs) == [f"{one} --nj 3 --job {job}" for job in (1, 2, 3)] and last == f"{one} --nj 3 --finish"
    out = recipe.run(*args, "--inference_nj", "3", FAIL="--job 2")
    assert out.returncode == 1 and "te1/log/decode.*.log" in out.stdout and recipe.calls[-1] != last


def test_preparation_is_a_job_array_with_its_options(recipe):
    args = ["--stage", "1", "--stop_stage", "3", "--nj", "3", "--dump_args", "--crop avhubert --landmark_stride 1"]
    assert recipe.run(*args).returncode == 0
    _, _, validate, *dumps = recipe.calls
    assert validate == "espnet2_avsr_llm.bin.datadir validate data/tr data/va --test data/te1 data/te2"
    for dset, out in (("tr", "org/tr"), ("va", "org/va"), ("te1", "te1"), ("te2", "te2")):
        places = f"espnet2_avsr_llm.bin.dump --in_dir data/{dset} --out_dir dump/raw/{out}"
        own, dumps = dumps[:4], dumps[4:]
        options = "--crop avhubert --landmark_stride 1"
        assert sorted(own[:3]) == [f"{places} --nj 3 --job {job} {options}" for job in (1, 2, 3)]
        assert own[3] == f"{places} --finish"
        assert len(list((recipe.folder / "dump/raw" / out / "log").glob("dump.*.log"))) == 3


def test_unusable_files_are_warned_of_and_the_run_goes_on(recipe):
    recipe.write("dump/raw/te1/failed.jsonl", '{"utt": "a"}\n{"utt": "b"}\n')
    args = ["--stage", "3", "--stop_stage", "4", "--nj", "1"]
    out = recipe.run(*args, FAIL="--finish", STATUS="3")
    assert out.returncode == 0 and recipe.programs() == [*["dump"] * 8, "datadir", "datadir"]
    assert "Warning: 2 utterances of data/te1 are left out, see dump/raw/te1/failed.jsonl" in out.stdout
    out = recipe.run(*args, FAIL="--finish")
    assert out.returncode == 1 and "see dump/raw/org/tr/log/finish.log" in out.stdout


def test_a_failed_job_of_an_array_shows_its_log(recipe):
    out = recipe.run("--stage", "3", "--stop_stage", "3", "--nj", "3", FAIL="--job 2")
    assert out.returncode == 1 and "see dump/raw/org/tr/log/dump.*.log" in out.stdout
    assert out.stderr.count("reason of the failure") == 1 and "run.pl: 1 / 3 failed" in out.stderr


def test_training_on_the_cpu_uses_all_threads(recipe):
    args = ["--asr_configs", A, "--stage", "11", "--stop_stage", "11", "--num_threads", "3"]
    assert recipe.run(*args).returncode == 0
    assert (recipe.folder / "exp/a/train.log").read_text() == "trained with 3 threads\n"
    assert recipe.run(*args, "--ngpu", "2", OMP_NUM_THREADS="1").returncode == 0
    assert (recipe.folder / "exp/a/train.log").read_text() == "trained with 1 threads\n"


def test_length_files_are_made_again_only_when_needed(recipe):
    def made(config=A, train_set="tr"):
        """What two runs of the stage make; times do not matter."""
        (recipe.folder / "calls.txt").unlink(missing_ok=True)
        os.utime(recipe.folder / config, (0, 0))
        for _ in range(2):
            assert recipe.run("--asr_configs", config, "--stage", "10", "--stop_stage", "10", "--train_set", train_set).returncode == 0
        return recipe.calls

    made()
    assert made() == []
    recipe.write("dump/raw/tr/text", "u1 a\n")
    assert len(made()) == 1
    recipe.write("dump/raw/va/utt2num_frames", "u2 25\n")
    assert len(made()) == 1
    recipe.write(A, "audio_frontend: whisper\nllm: other\n")
    assert len(made()) == 1
    recipe.write("conf/mini/a.yaml", "audio_frontend: hf_speech\n")  # its name is that of the folder too
    assert len(made("conf/mini/a.yaml")) == 1
    assert made(train_set="other") == [
        "espnet2_avsr_llm.bin.make_shape --config conf/a.yaml --data_dirs dump/raw/other dump/raw/va"
        " --outs exp/stats_a/train/llm_shape exp/stats_a/valid/llm_shape"
    ]


def test_length_files_of_one_folder_are_those_of_one_configuration(recipe):
    out = recipe.run("--asr_configs", f"{A} {V}", "--asr_stats_dir", "exp/shared", "--stage", "10")
    assert out.returncode == 2 and recipe.calls == []
    assert f"--asr_stats_dir exp/shared holds the length files of one configuration, found several: '{A} {V}'" in out.stdout


TRAIN = ["--asr_config", A, "--asr_tag", "m", "--stage", "11", "--stop_stage", "11"]


@pytest.mark.parametrize(
    "file, text, args, differs",
    [
        ("dump/raw/tr/text", "u1 other words\n", [], r"< tr: \d+ \d+\n---\n> tr: \d+ \d+"),
        (A, "audio_frontend: whisper\nvideo_frontend: null\nmax_epoch: 9\n", [], r"> max_epoch: 9\n"),
        ("x", "", ["--asr_args", "--max_epoch 9"], r"< asr_args: \n---\n> asr_args: --max_epoch 9\n"),
        ("x", "", ["--train_set", "less"], r"< tr: .*\n---\n> less: "),
        ("exp/other/train/llm_shape", "u1 9,9", ["--asr_stats_dir", "exp/other"], r"< lengths: .*\n---\n> lengths: "),
    ],
)
def test_a_model_trained_on_something_else_is_refused(recipe, file, text, args, differs):
    recipe.write("dump/raw/tr/text", "u1 words\n")
    recipe.run(*TRAIN)
    recipe.write(A, "# a comment\n" + (recipe.folder / A).read_text())
    again = recipe.run(*TRAIN)
    assert again.returncode == 0 and recipe.programs() == ["make_shape", "launch", "launch"] and "<" not in again.stdout
    recipe.write(file, text)
    refused = recipe.run(*TRAIN, *args)
    assert refused.returncode == 2 and recipe.programs().count("launch") == 2
    assert re.search(differs, refused.stdout) and "remove exp/m/trained_on" in refused.stdout
    (recipe.folder / "exp/m/trained_on").unlink()
    for launches in (3, 4):
        assert recipe.run(*TRAIN, *args).returncode == 0 and recipe.programs().count("launch") == launches


def test_a_training_that_left_no_checkpoint_may_be_begun_on_something_else(recipe):
    recipe.run(*TRAIN)
    (recipe.folder / "exp/m/checkpoint.pth").unlink()
    assert recipe.run(*TRAIN, "--asr_args", "--max_epoch 9").returncode == 0
    assert "asr_args: --max_epoch 9\n" in (recipe.folder / "exp/m/trained_on").read_text()


def test_comparisons_refuse_models_of_other_batches(recipe):
    """compare.sh on the real stage 11: its names hold neither the budget nor the configuration of the batches."""
    (recipe.folder / "compare.sh").symlink_to(TEMPLATE / "compare.sh")
    recipe.write("run.sh", f'#!/usr/bin/env bash\n./avsr_llm.sh {" ".join(recipe.sets[:4])} --test_sets te --python ./stub "$@"\n', 0o755)
    recipe.write("python3", f'#!/usr/bin/env bash\n[[ "$1" != utils/* ]] || exec {sys.executable} "$@"\n', 0o755)
    recipe.write("list.txt", f"name {A}\n")
    command = ["./compare.sh", "--systems", "list.txt", "--seeds", "1", "--batch_config", V]
    env = {**os.environ, "PATH": f"{recipe.folder}:{os.environ['PATH']}", "AVSR_LLM_ENV": "/absent"}

    def run(*args):
        return subprocess.run([*command, *args], cwd=recipe.folder, env=env, capture_output=True, text=True, timeout=120)

    assert [run().returncode for _ in range(2)] == [0, 0] and recipe.programs().count("launch") == 2
    for options, differs in ((["--batch_bins", "9"], "asr_args"), (["--batch_config", AV], "lengths"), (["--max_epoch", "9"], "asr_args")):
        refused = run(*options)
        assert refused.returncode == 1 and recipe.programs().count("launch") == 2, refused.stdout
        assert f"> {differs}: " in refused.stdout and "exp/compare/name.1_seed1 was trained on something else" in refused.stdout
    assert run().returncode == 0


def test_a_failure_of_one_of_several_trainings_is_kept(recipe):
    args = ["--asr_configs", f"{A} {V} {AV}", "--stage", "11", "--stop_stage", "12", "--num_threads", "2"]
    for config in (A, V, AV):
        out = recipe.run(*args, FAIL=f"avsr_llm_train --config {config}")
        assert out.returncode == 1 and "avsr_llm_inference" not in recipe.programs()


def test_a_recipe_may_train_its_parts_further(recipe):
    recipe.write("local/parts.sh", '#!/usr/bin/env bash\necho "local/parts.sh $*" >>calls.txt\n', 0o755)
    assert recipe.run("--asr_configs", f"{AV} {V}", "--stage", "5", "--stop_stage", "5").returncode == 0
    parts, *checks = recipe.calls
    assert parts == f"local/parts.sh --train_dir dump/raw/tr --valid_dir dump/raw/va {AV} {V}" and len(checks) == 2
    recipe.write("local/parts.sh", "#!/usr/bin/env bash\nexit 1\n", 0o755)
    assert recipe.run("--asr_configs", AV, "--stage", "5", "--stop_stage", "5").returncode == 1 and len(recipe.calls) == 3


def test_local_data_options_reach_the_data_script(recipe):
    assert recipe.run("--stage", "1", "--stop_stage", "1", "--local_data_opts", "--clips 8 --seed 1").returncode == 0
    assert recipe.calls[1] == "local/data.sh --clips 8 --seed 1"


@pytest.mark.parametrize(
    "args, message",
    [
        (["--asr_configs", "conf/absent.yaml"], "no such file"),
        (["--asr_configs", f"{A} {V}", "--asr_tag", "x"], "found 2 configurations"),
        (["--njobs", "2"], "invalid option --njobs"),
        (["--train_set", ""], "--train_set, --valid_set and --test_sets are needed"),
        (["12"], "found '12', expected --option value"),
        (["--noise_snrs", "avhubbert"], "expected dB, or avhubert, auto_avsr"),
        (["--noise_snrs", "5 0.5.1"], "'5 0.5.1': expected dB, or avhubert, auto_avsr"),
        (["--asr_configs", A, "--stage", "15", "--skip_upload_hf", "false"], "--hf_repo is empty"),
    ],
)
def test_wrong_options_are_refused(recipe, args, message):
    out = recipe.run(*args)
    assert out.returncode != 0 and message in out.stdout + out.stderr
    assert recipe.calls == []


def test_experiment_name_can_be_given(recipe):
    assert recipe.run("--asr_config", A, "--asr_tag", "mine", "--stage", "14", "--skip_packing", "false").returncode == 0
    assert recipe.calls[0].endswith("--outpath exp/mine/mine_valid.acc.ave.zip")


def test_help_lists_options_with_their_meaning(recipe):
    out = recipe.run("--help")
    assert "--stop_stage 10000  # last stage" in out.stdout and "--hf_repo " in out.stdout


def test_help_shows_the_values_of_the_recipe(recipe):
    lines = recipe.run("--noise_snrs", "0 -5", "--skip_packing", "false", "--help").stdout.splitlines()
    assert "  --skip_packing false  # leave out 14" in lines and "  --test_sets te1 te2" in lines
    assert any(line.startswith("  --noise_snrs 0 -5  # ") for line in lines)


def test_mini_recipe_passes_its_options_on(tmp_path):
    source = ROOT / "egs2" / "mini_av" / "avsr_llm1"
    (tmp_path / "run.sh").write_bytes((source / "run.sh").read_bytes())
    (tmp_path / "avsr_llm.sh").write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\n")
    for name in ("run.sh", "avsr_llm.sh"):
        (tmp_path / name).chmod(0o755)
    args = ["--stage", "11", "--asr_args", "--max_epoch 5"]
    out = subprocess.run([tmp_path / "run.sh", *args], capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[-4:] == args
    for name in ("path.sh", "cmd.sh", "avsr_llm.sh", "utils", "conf"):
        assert (source / name).exists(), f"{name} of the mini recipe leads nowhere"
