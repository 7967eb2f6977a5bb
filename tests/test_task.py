"""The task's options: ours in ESPnet's parser, and defaults that avoid its defects."""

import argparse

import pytest

from espnet2_avsr_llm.build import PARTS
from espnet2_avsr_llm.compat import Trainer, scheduler_classes
from espnet2_avsr_llm.task import AVSRLLMTask


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


def test_frames_of_a_batch_are_capped(tiny_config, train_command, tmp_path, caplog):
    command = train_command(tmp_path / "exp", tiny_config("asr"), "--batch_frames", 20, "--dry_run", "false", "--max_epoch", 1)
    caplog.set_level("INFO")
    AVSRLLMTask.main(cmd=command)
    assert "[train] 8 utterances in 8 batches of 1 to 1" in caplog.text
