"""The task's options: ours in ESPnet's parser, and defaults that avoid its defects."""

import argparse
import re

import pytest
import torch

from espnet2_avsr_llm.build import PARTS
from espnet2_avsr_llm.compat import Trainer, scheduler_classes
from espnet2_avsr_llm.task import UNREAD, AVSRLLMTask


@pytest.fixture(scope="module")
def parser():
    return AVSRLLMTask.get_parser()


def test_every_registered_class_is_a_choice(parser):
    actions = {a.dest: a for a in parser._actions}
    for part, family in PARTS.items():
        assert set(family) <= set(actions[part].choices)
        assert f"{part}_conf" in actions


def test_options_of_parts_are_merged(parser):
    args = parser.parse_args(["--output_dir", "x", "--llm_conf", "arch=tiny-llama", "--llm_conf", "dtype=float32", "--augment_conf", "time_mask=false"])
    assert args.llm_conf == {"arch": "tiny-llama", "dtype": "float32"} and args.augment_conf == {"time_mask": False}


def test_defaults_avoid_known_defects(parser):
    args = parser.parse_args(["--output_dir", "x"])
    assert args.num_att_plot == 0  # would call attentions that an LLM does not have
    assert args.unused_parameters is True  # a rank without video would hang
    assert len(args.best_model_criterion) == 1 and args.cudnn_deterministic is False


@pytest.mark.parametrize("name", [name for names in UNREAD.values() for name in names])
def test_options_that_would_be_ignored_are_refused(parser, name):
    (action,) = (a for a in parser._actions if a.dest == name)  # or the name is not ESPnet's
    args = parser.parse_args(["--output_dir", "x"])
    setattr(args, name, action.choices[0] if action.choices and action.choices[0] != action.default else "another")
    with pytest.raises(ValueError, match=f"--{name} .* is not supported, leave it at {re.escape(str(action.default))}"):
        AVSRLLMTask.main_worker(args)


def test_the_trainer_and_the_scheduler_are_ours():
    assert issubclass(AVSRLLMTask.trainer, Trainer) and AVSRLLMTask.trainer.run.__func__ is not Trainer.run.__func__
    assert scheduler_classes["warmup_cosine"].__module__ == "espnet2_avsr_llm.scheduler"


def test_unknown_augmentation_names_the_nearest(tiny_config):
    args = argparse.Namespace(**tiny_config(), augment_conf={"snr": [0]}, seed=0)
    with pytest.raises(ValueError, match=r"no option 'snr' \(did you mean 'snrs'\?\)"):
        AVSRLLMTask.build_preprocess_fn(args, train=True)


def test_validation_is_not_augmented(tiny_config):
    args = argparse.Namespace(**tiny_config(), augment_conf={}, seed=0)
    assert AVSRLLMTask.build_preprocess_fn(args, train=False).augmentation is None
    assert AVSRLLMTask.build_preprocess_fn(args, train=True).augmentation is not None


def test_ranks_share_the_utterances_of_a_batch(tmp_path, monkeypatch):
    """Each its part: ranks that all took the whole batch would give the same loss, at twice the cost."""
    utts = [f"u{i}" for i in range(7)]
    (tmp_path / "shape").write_text("".join(f"{u} {20 - i},5\n" for i, u in enumerate(utts)))
    monkeypatch.setattr(AVSRLLMTask, "build_dataset", lambda *_: None)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    options = dict(distributed=True, shape_files=[str(tmp_path / "shape")], batch_bins=80, num_iters_per_epoch=None, train=True, collate_fn=None)
    args = argparse.Namespace(seed=0, num_workers=0, ngpu=0, batch_frames=None)
    found = {}
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        factory = AVSRLLMTask.build_sequence_iter_factory(args, argparse.Namespace(**options), "train")
        found[rank] = factory.sampler.generate(0)
    assert len(found[0]) == len(found[1]) == 2 and all(found[0] + found[1])
    assert sorted(u for rank in (0, 1) for batch in found[rank] for u in batch) == utts


def test_frames_of_a_batch_are_capped(tiny_config, train_command, tmp_path, caplog):
    command = train_command(tmp_path / "exp", tiny_config("asr"), "--batch_frames", 20, "--dry_run", "false", "--max_epoch", 1)
    caplog.set_level("INFO")
    AVSRLLMTask.main(cmd=command)
    assert "[train] 8 utterances in 8 batches of 1 to 1" in caplog.text
