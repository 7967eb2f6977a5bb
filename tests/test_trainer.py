"""Training runs on a tiny corpus: kill and resume, two ranks, files and what they refuse (contracts 4, 5, 8; espnet_base.md 2, 8)."""

import argparse
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

from espnet2_avsr_llm import checkpoint
from espnet2_avsr_llm.bin import avsr_llm_train
from espnet2_avsr_llm.data.batching import token_batches
from espnet2_avsr_llm.espnet_model import ESPnetAVSRLLMModel
from espnet2_avsr_llm.inference.load import load_model
from espnet2_avsr_llm.pass_plan import RandomRatesPlan
from espnet2_avsr_llm.task import AVSRLLMTask
from espnet2_avsr_llm.trainer import AVSRLLMTrainer, NamedSteps, _plain, _restored

# A clean process that has the heavy imports behind it: children start at once, and no thread of this process is copied.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["espnet2_avsr_llm.task", "transformers.models.llama.modeling_llama", "peft"])
OMNI = ("random_rates", {"rates": {"audio": [4, 16], "video": [2, 5]}, "tasks": {"asr": 1.0, "vsr": 1.5, "avsr": 1.0}})
MOME = {"bottleneck": 3, "routed": 6, "top_k": 2, "balance": 1.0}
DECORRELATION = {"losses": ["decorrelation"], "losses_conf": {"decorrelation": {"weight": 3.0, "layers": "released"}}}
SGD = ["--optim", "sgd", "--optim_conf", "lr=0.05"]


@pytest.fixture(autouse=True)
def restored_environment(monkeypatch):
    """Training sets this for its own process."""
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")


def weights(file):
    return {n: t for n, t in checkpoint.load(file).items() if n != "_extra_state"}


def log(out, epoch=1, phase="train"):
    return {k: v for k, v in checkpoint.load(out / "checkpoint.pth")["reporter"]["stats"][epoch][phase].items()}


def value(out, key, epoch=1, phase="train"):
    return log(out, epoch, phase)[key]


@pytest.fixture(scope="module")
def trained(tiny_config, train_command, tmp_path_factory):
    """An undisturbed run of four epochs."""
    out = tmp_path_factory.mktemp("trained") / "exp"
    command = train_command(out, tiny_config(), "--max_epoch", 4, "--keep_nbest_models", 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
        AVSRLLMTask.main(cmd=command)
    return out, command


def test_files_of_a_run(trained):
    out, _ = trained
    files = {p.name for p in out.iterdir()}
    assert {"config.yaml", "checkpoint.pth", "4epoch.pth", "latest.pth", "valid.acc.best.pth", "valid.acc.ave.pth"} <= files
    assert not [f for f in files if "tmp" in f]
    assert (out / "latest.pth").resolve().name == "4epoch.pth"
    names = set(checkpoint.load(out / "4epoch.pth"))
    assert names == set(checkpoint.load(out / "valid.acc.ave.pth")) and all(n.split(".")[0] in ("projector", "llm", "_extra_state") for n in names)


def test_something_is_learnt_and_the_rate_falls_to_zero(trained):
    out, _ = trained
    assert value(out, "loss", 4) < value(out, "loss", 1)
    rates = [value(out, "optim0_lr0", e) for e in (1, 2, 3, 4)]
    assert rates == sorted(rates, reverse=True) and rates[3] < 0.2 * rates[0]


def test_average_of_the_n_best(trained):
    out, _ = trained
    (average,) = out.glob("valid.acc.ave_*best.pth")
    assert average.name == "valid.acc.ave_4best.pth"
    states = [weights(out / f"{e}epoch.pth") for e in (1, 2, 3, 4)]
    for name, tensor in weights(average).items():
        expected = sum(s[name].double() for s in states) / 4
        torch.testing.assert_close(tensor.double(), expected, atol=1e-6, rtol=0)


def test_kill_and_resume_is_exact(trained, tmp_path):
    """SIGKILL after the first epoch, then the same command again: the weights of the undisturbed run, bit by bit."""
    undisturbed, command = trained
    out = tmp_path / "exp"
    command = [str(out) if a == str(undisturbed) else a for a in command]
    process = SERVER.Process(target=avsr_llm_train.main, args=(command,))
    process.start()
    deadline = time.monotonic() + 120
    while not (out / "latest.pth").exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (out / "4epoch.pth").exists(), "the run was over before it was killed"
    AVSRLLMTask.main(cmd=command)
    for name in ("4epoch.pth", "valid.acc.ave_4best.pth"):
        expected, found = weights(undisturbed / name), weights(out / name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[n], found[n]) for n in expected)
    assert value(out, "loss", 4) == value(undisturbed, "loss", 4) and value(out, "acc", 2, "valid") == value(undisturbed, "acc", 2, "valid")


def test_a_run_that_is_over_does_nothing(trained):
    out, command = trained
    before = (out / "4epoch.pth").stat().st_mtime_ns
    AVSRLLMTask.main(cmd=command)
    assert (out / "4epoch.pth").stat().st_mtime_ns == before


def test_raising_max_epoch_goes_on_learning(tiny_config, train_command, tmp_path):
    """The cosine must be stretched to the new end, or the further epochs would run at rate zero."""
    command = train_command(tmp_path / "exp", tiny_config("asr"))
    AVSRLLMTask.main(cmd=[*command, "--max_epoch", "1"])
    AVSRLLMTask.main(cmd=[*command, "--max_epoch", "2"])
    assert value(tmp_path / "exp", "optim0_lr0", 2) > 1e-5


def test_keep_nbest_models_as_a_number_and_raised_on_a_resume(tiny_config, train_command, tmp_path):
    """A YAML file may give one number; epochs that the first run did not keep are not missed."""
    out = tmp_path / "exp"
    config = tiny_config("asr") | {"keep_nbest_models": 1}
    command = train_command(out, config, *SGD)
    AVSRLLMTask.main(cmd=[*command, "--max_epoch", "3"])
    kept = {p.name for p in out.glob("?epoch.pth")}
    assert (out / "valid.acc.ave_1best.pth").exists() and len(kept) < 3
    AVSRLLMTask.main(cmd=[*command, "--max_epoch", "4", "--keep_nbest_models", "4"])
    left = sorted(p.name for p in out.glob("?epoch.pth"))
    assert set(left) == kept | {"4epoch.pth"} and (out / "valid.acc.ave.pth").resolve().name == f"valid.acc.ave_{len(left)}best.pth"


def test_the_configuration_of_a_run_rebuilds_its_model(trained, make_batch):
    out, _ = trained
    batch = make_batch((8000, 12, 4), (9600, 15, 2))
    there, _ = AVSRLLMTask.build_model_from_file(str(out / "config.yaml"), str(out / "valid.acc.ave.pth"))
    here = load_model(out / "config.yaml", out / "valid.acc.ave.pth")
    (pass_,) = here.plan.passes()
    models = (there.eval(), here, load_model(out / "config.yaml", None))
    first, second, untrained = (m.predict(m.encode(m.inputs(batch)), pass_, (batch["text"], batch["text_lengths"]))[0] for m in models)
    assert torch.equal(first, second) and not torch.equal(untrained, second)
    assert not here.training


def test_espnets_own_loader_is_strict_too(trained, tmp_path):
    out, _ = trained
    model, _ = AVSRLLMTask.build_model_from_file(str(out / "config.yaml"), str(out / "valid.acc.ave.pth"))
    assert isinstance(model, ESPnetAVSRLLMModel)
    torch.save({"unrelated": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(RuntimeError, match="of another model"):
        AVSRLLMTask.build_model_from_file(str(out / "config.yaml"), str(tmp_path / "other.pth"))


# ---- drawn rates ------------------------------------------------------------------------------------------------------


def test_steps_are_named_by_the_update_that_they_are_part_of():
    batches = [([str(i)], {"text": i}) for i in range(5)]
    options = argparse.Namespace(seed=7, accum_grad=2)
    named = NamedSteps(batches, 3, options)
    assert len(named) == 4
    # two updates an epoch, and the last batch is part of none
    assert list(named) == [(utts, {**b, "step": (7, n)}) for (utts, b), n in zip(batches, (4, 4, 5, 5))]


def test_accumulation_is_resumed_exactly(tiny_config, train_command, tmp_path, caplog):
    """Three batches an epoch make one update of two: no gradient of the third may reach an epoch that does not know of it after a resume."""
    caplog.set_level("INFO")
    for name, ends in (("undisturbed", (2,)), ("resumed", (1, 2))):
        command = train_command(tmp_path / name, tiny_config("asr"), *SGD, "--scheduler", "none", "--accum_grad", 2, "--batch_bins", 150)
        for end in ends:
            AVSRLLMTask.main(cmd=[*command, "--max_epoch", str(end)])
    assert "[train] 8 utterances in 3 batches" in caplog.text
    undisturbed, resumed = (weights(tmp_path / name / "2epoch.pth") for name in ("undisturbed", "resumed"))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in undisturbed.items())


def test_accumulation_beyond_the_epoch_is_refused(tiny_config, train_command, tmp_path):
    command = train_command(tmp_path / "exp", tiny_config("asr"), "--max_epoch", 1, "--accum_grad", 100)
    with pytest.raises(RuntimeError, match="Epoch 1 made no update: every gradient was non-finite, or accum_grad exceeds its batches"):
        AVSRLLMTask.main(cmd=command)


def test_rates_drawn_after_a_resume_are_those_of_an_undisturbed_run(tiny_config, train_command, tmp_path, monkeypatch):
    drawn, passes = [], RandomRatesPlan.passes

    def spy(self, step=None):
        found = passes(self, step)
        drawn.append((step, found[-1].rates))
        return found

    monkeypatch.setattr(RandomRatesPlan, "passes", spy)
    runs = {}
    config = tiny_config(compression="avg_pool", plan=("random_rates", {"rates": {"audio": [4, 8, 16]}, "tasks": {"asr": 1.0}}))
    for name, ends in (("undisturbed", (3,)), ("resumed", (1, 3))):
        drawn.clear()
        command = train_command(tmp_path / name, config, "--seed", 5)
        for end in ends:
            AVSRLLMTask.main(cmd=[*command, "--max_epoch", str(end)])
        runs[name] = [(step, rates) for step, rates in drawn if step is not None]
    assert runs["resumed"] == runs["undisturbed"] and len({r["audio"] for _, r in runs["resumed"]}) == 3
    assert [step for step, _ in runs["resumed"]] == [(5, n) for n in range(len(runs["resumed"]))]


# ---- what is logged ---------------------------------------------------------------------------------------------------


def test_accumulation_does_not_divide_the_logged_loss(tiny_config, train_command, tmp_path):
    runs = {}
    for accumulate in (1, 3):
        command = train_command(tmp_path / str(accumulate), tiny_config("asr"), "--max_epoch", 1, "--optim", "sgd", "--optim_conf", "lr=0.0")
        AVSRLLMTask.main(cmd=[*command, "--accum_grad", str(accumulate), "--batch_bins", "150"])
        runs[accumulate] = log(tmp_path / str(accumulate))
    assert runs[1]["loss"] == pytest.approx(runs[3]["loss"], rel=1e-6) and runs[1]["loss"] > 1


# ---- steps that go wrong ----------------------------------------------------------------------------------------------


def spoil(monkeypatch, steps):
    """Make the loss of these training steps infinite."""
    forward, count = ESPnetAVSRLLMModel.forward, [0]

    def spoilt(self, **batch):
        loss, stats, weight = forward(self, **batch)
        count[0] += self.projector.training
        return (loss * float("inf") if count[0] in steps and self.projector.training else loss), stats, weight

    monkeypatch.setattr(ESPnetAVSRLLMModel, "forward", spoilt)
    return count


def test_a_non_finite_step_is_skipped(tiny_config, train_command, tmp_path, monkeypatch):
    command = train_command(tmp_path / "exp", tiny_config("asr"), "--max_epoch", 1, *SGD, "--batch_bins", 120)
    count = spoil(monkeypatch, {2})
    AVSRLLMTask.main(cmd=command)
    assert count[0] > 2
    assert all(torch.isfinite(t).all() for t in weights(tmp_path / "exp" / "latest.pth").values())


def test_an_epoch_without_any_update_ends_the_run(tiny_config, train_command, tmp_path, monkeypatch):
    command = train_command(tmp_path / "exp", tiny_config("asr"), "--max_epoch", 2, *SGD)
    spoil(monkeypatch, set(range(100)))
    with pytest.raises(RuntimeError, match="Epoch 1 made no update: every gradient was non-finite, or accum_grad"):
        AVSRLLMTask.main(cmd=command)
    assert not (tmp_path / "exp" / "checkpoint.pth").exists()


def test_a_failure_while_saving_keeps_the_resume_file(tiny_config, train_command, tmp_path, monkeypatch):
    command = train_command(tmp_path / "exp", tiny_config("asr"), "--max_epoch", 2)
    save, count = torch.save, [0]

    def failing(states, path):
        count[0] += 1
        if count[0] == 4:  # the second epoch's resume file
            Path(path).write_bytes(b"half")
            raise OSError("disk full")
        save(states, path)

    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(OSError, match="disk full"):
        AVSRLLMTask.main(cmd=command)
    assert checkpoint.load(tmp_path / "exp" / "checkpoint.pth")["reporter"]["epoch"] == 1
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    AVSRLLMTask.main(cmd=command)
    assert checkpoint.load(tmp_path / "exp" / "checkpoint.pth")["reporter"]["epoch"] == 2


# ---- files from elsewhere ---------------------------------------------------------------------------------------------


class Canary:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("way", ["resume", "init_param"])
def test_a_file_that_would_execute_is_refused(tiny_config, train_command, tmp_path, way):
    out = tmp_path / "exp"
    out.mkdir()
    file = out / "checkpoint.pth" if way == "resume" else tmp_path / "foreign.pth"
    torch.save({"model": Canary(tmp_path / "executed")}, file)
    options = [] if way == "resume" else ["--init_param", str(file)]
    os.environ.pop("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    with pytest.raises(Exception, match="(?i)weights.only|which no checkpoint needs. It was refused"):
        AVSRLLMTask.main(cmd=[*train_command(out, tiny_config("asr"), "--max_epoch", 1), *options])
    assert not (tmp_path / "executed").exists()


def test_resume_itself_executes_nothing(make_model, tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    torch.save({"model": Canary(tmp_path / "executed")}, tmp_path / "checkpoint.pth")
    with pytest.raises(RuntimeError, match="It was refused"):
        AVSRLLMTask.trainer.resume(tmp_path / "checkpoint.pth", make_model("asr"), None, [], [])
    assert not (tmp_path / "executed").exists()


def test_init_param_and_freeze_param(trained, tiny_config, train_command, tmp_path):
    """Start from a trained model, freeze its projector: it is kept as it was, and is still in the new file."""
    start, _ = trained
    out = tmp_path / "exp"
    options = ["--max_epoch", 1, "--init_param", start / "valid.acc.ave.pth", "--freeze_param", "projector"]
    AVSRLLMTask.main(cmd=train_command(out, tiny_config(), *options))
    before, after = weights(start / "valid.acc.ave.pth"), weights(out / "latest.pth")
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name], after[name]) == (not name.endswith("shared.weight")), name


def test_init_param_of_one_part(trained, tiny_config, train_command, tmp_path):
    start, _ = trained
    options = ["--max_epoch", 1, "--optim", "sgd", "--optim_conf", "lr=0.0", "--init_param", f"{start}/valid.acc.ave.pth:projector:projector"]
    AVSRLLMTask.main(cmd=train_command(tmp_path / "exp", tiny_config(), *options))
    before, after = weights(start / "valid.acc.ave.pth"), weights(tmp_path / "exp" / "latest.pth")
    assert all(torch.equal(before[n], after[n]) == (not n.endswith("lora_B.shared.weight") and "lora_A" not in n) for n in before)


def test_init_param_over_another_llm_is_refused(trained, tiny_config, train_command, make_source, tmp_path):
    start, _ = trained
    other = make_source["llama"](tmp_path / "other", seed=8)
    command = train_command(tmp_path / "exp", tiny_config(llm_conf={"source": other}), "--max_epoch", 1, "--init_param", start / "latest.pth")
    with pytest.raises(RuntimeError, match="trained with llm = "):
        AVSRLLMTask.main(cmd=command)


def test_reporter_state_survives_plain_types():
    import datetime

    import numpy as np

    state = {"stats": {1: {"train": {"time": datetime.timedelta(seconds=1.5), "loss": np.float64(2.0), "total_count": 3}}}, "epoch": 1}
    assert _restored(_plain(state)) == {"stats": {1: {"train": {"time": datetime.timedelta(seconds=1.5), "loss": 2.0, "total_count": 3}}}, "epoch": 1}


# ---- two processes ----------------------------------------------------------------------------------------------------


def run_two_ranks(command, init_file):
    processes = []
    for rank in (0, 1):
        options = ["--dist_backend", "gloo", "--dist_world_size", "2", "--dist_rank", str(rank), "--dist_init_method", f"file://{init_file}"]
        processes.append(SERVER.Process(target=avsr_llm_train.main, args=([*command, *options],)))
        processes[-1].start()
    for process in processes:
        process.join(180)
        alive = process.is_alive()
        if alive:
            process.kill()
        assert not alive, "a rank hangs"
        assert process.exitcode == 0


@pytest.mark.parametrize("case", ["both", "no_video_on_rank_1", "drawn_rates", "drawn_rates_full_size", "experts"])
def test_two_ranks_equal_one_process(tiny_config, train_command, corpus, tmp_path, case):
    """DDP finds the parameters that a step leaves unused: those of a stream that a rank lacks, of rates that were not drawn.

    Balance losses are those of the tokens of both ranks, which have different numbers of them; so is the decorrelation loss. In
    bfloat16 rows round otherwise alone than in a batch, by less than 1e-3 of any weight; the weights move by up to 0.04.
    """
    full_size = {"dtype": "bfloat16", "gradient_checkpointing": True}  # as the configurations of full size
    kinds = {
        "drawn_rates": dict(compression="avg_pool", projector="mlp_bank", plan=OMNI, adapter_conf={"sets": ["shared", "task"]}),
        "drawn_rates_full_size": dict(
            compression="avg_pool", projector="mlp_bank", plan=OMNI, adapter_conf={"sets": ["shared", "task"]}, llm_conf=full_size
        ),
        "experts": dict(projector="smop", projector_conf={"routing": "dedr", "balance": 1.0, "z": 1.0}, adapter="mome", adapter_conf=MOME, **DECORRELATION),
    }
    config = tiny_config(**kinds.get(case, {}))
    utts = [line.split()[0] for line in (corpus / "train" / "text").read_text().splitlines()]
    # pairs of falling lengths: every batch is one pair, its first utterance goes to rank 0 and its second to rank 1
    lengths = {utt: (100 - i, 20) for i, utt in enumerate(utts)}
    (tmp_path / "shape").write_text("".join(f"{u} {n},{f}\n" for u, (n, f) in lengths.items()))
    assert token_batches(lengths, 250, None, 2) == [utts[i : i + 2] for i in range(0, 8, 2)]
    missing = set(utts[1::2]) if case in ("no_video_on_rank_1", "experts") else set()
    lines = [line.split() for line in (corpus / "train" / "video.scp").read_text().splitlines()]
    (tmp_path / "video.scp").write_text("".join(f"{u} {'-' if u in missing else path}\n" for u, path in lines))
    found, (of_stats, of_weights) = {}, (0.03, 1e-3) if case == "drawn_rates_full_size" else (1e-5, 1e-5)
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        files = dict(shapes=tmp_path / "shape", video=tmp_path / "video.scp")
        command = train_command(out, config, "--max_epoch", 2, *SGD, **files)
        run_two_ranks(command, tmp_path / "init") if ranks == 2 else AVSRLLMTask.main(cmd=command)
        found[ranks] = out
    for epoch in (1, 2):
        for phase, key in (("train", "loss"), ("train", "acc"), ("valid", "loss"), ("train", "grad_norm")):
            assert value(found[2], key, epoch, phase) == pytest.approx(value(found[1], key, epoch, phase), abs=of_stats), (epoch, phase, key)
    one, two = (weights(found[r] / "latest.pth") for r in (1, 2))
    start = yaml.safe_load((found[1] / "config.yaml").read_text())
    assert start["unused_parameters"] is True
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=of_weights, rtol=0)


def test_many_gpus_in_one_process_are_refused():
    with pytest.raises(ValueError, match="--ngpu 2 needs --multiprocessing_distributed true"):
        AVSRLLMTrainer.build_options(argparse.Namespace(ngpu=2, distributed=False))
