"""Every training configuration builds on ``meta`` and takes one step at tiny size; every decoding one is accepted."""

import argparse
from pathlib import Path

import pytest
import torch
import yaml

from espnet2_avsr_llm.bin import avsr_llm_inference
from espnet2_avsr_llm.build import PRETRAINED, build
from espnet2_avsr_llm.config import load_config
from espnet2_avsr_llm.espnet_model import ESPnetAVSRLLMModel
from espnet2_avsr_llm.summary import on_meta
from espnet2_avsr_llm.task import AVSRLLMTask

CONF = Path(__file__).resolve().parents[1] / "conf"
TRAIN, DECODE = sorted(CONF.glob("train/**/*.yaml")), sorted(CONF.glob("decode/**/*.yaml"))
TINY = {"whisper": "tiny-whisper", "hf_speech": "tiny-wavlm", "avhubert": "tiny-avhubert", "causal_lm": "tiny-llama"}


def name(file):
    return str(file.relative_to(CONF))


def tiny(config):
    """The configuration with its pretrained parts at tiny size; rates and everything else as they are."""
    small = dict(config)
    for part in PRETRAINED:
        if config.get(part):
            conf = {k: v for k, v in config[f"{part}_conf"].items() if k not in ("source", "revision")}
            small[f"{part}_conf"] = {**conf, "init": "random", "arch": TINY[config[part]]}
    return small


def test_there_are_configurations():
    assert len(TRAIN) >= 3 and len(DECODE) >= 2


@pytest.mark.parametrize("file", TRAIN, ids=name)
def test_espnets_parser_takes_it(file):
    """Unknown keys are errors there, and a rate such as ``1e-3`` without a point would be read as a word."""
    args = AVSRLLMTask.get_parser().parse_args(["--config", str(file), "--output_dir", "x"])
    assert isinstance(args.optim_conf["lr"], float)
    AVSRLLMTask.build_preprocess_fn(argparse.Namespace(**_offline(vars(args))), train=True)


def _offline(config):
    return tiny(config) | {"augment_conf": {k: v for k, v in config["augment_conf"].items() if k != "noise_file"}}


@pytest.mark.parametrize("file", TRAIN, ids=name)
def test_builds_on_meta(file):
    config = load_config(file)
    for part in PRETRAINED:  # parts that the recipe ships as folders have no arch
        if config.get(part) and "arch" not in config[f"{part}_conf"]:
            config = tiny(config)
    model = on_meta(config)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("file", TRAIN, ids=name)
def test_takes_one_step(file, make_batch):
    model = build(tiny(load_config(file)), ESPnetAVSRLLMModel).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.dtype == torch.float32 for p in trained)
    before = [p.clone() for p in trained]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    losses, filterbanks = [], any(f.filterbanks for f in model.frontends.values())
    for _ in range(2):  # in the first step one of LoRA's matrices has no gradient: the other is zero
        loss, stats, _ = model(**make_batch((16000, 25, 5), (12800, 20, 2), filterbanks=filterbanks))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(torch.isfinite(p).all() and not torch.equal(p, b) for p, b in zip(trained, before))
    assert losses[1] < losses[0]


@pytest.mark.parametrize("file", DECODE, ids=name)
def test_decoding_configurations(file):
    needed = ["--asr_train_config", "c", "--asr_model_file", "m", "--data_dir", "d", "--output_dir", "o"]
    args = avsr_llm_inference.parse([*needed, "--config", str(file)])
    assert all(getattr(args, k) == v for k, v in yaml.safe_load(file.read_text()).items())
