"""Experiments to decode with."""

import pytest
import yaml
from decoding import load

from espnet2_avsr_llm import checkpoint


@pytest.fixture(scope="session")
def experiment(tiny_config, make_model, tmp_path_factory):
    """Folder with ``config.yaml`` and ``model.pth`` of a model with three passes and random weights."""
    passes = [{"task": "avsr", "rates": {"audio": 4, "video": 2}}, {"task": "avsr", "rates": {"audio": 16, "video": 5}}]
    passes += [{"task": "asr", "rates": {"audio": 4}}]
    kwargs = dict(compression="avg_pool", passes=passes, adapter_conf={"sets": ["shared", "scale"]})
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_config(**kwargs)))
    checkpoint.save(make_model(**kwargs).state_dict(), folder / "model.pth")
    return folder


@pytest.fixture(scope="session")
def greedy(experiment):
    return load(experiment)


@pytest.fixture(scope="session")
def omni_experiment(make_model, tiny_config, tmp_path_factory):
    """A model of three tasks at two rates of each stream."""
    plan = ("random_rates", {"rates": {"audio": [4, 16], "video": [2, 5]}, "tasks": {"asr": 1, "vsr": 1.5, "avsr": 1}})
    kwargs = dict(compression="avg_pool", projector="mlp_bank", plan=plan, adapter_conf={"sets": ["shared", "task"]})
    folder = tmp_path_factory.mktemp("omni")
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_config(**kwargs)))
    checkpoint.save(make_model(**kwargs).state_dict(), folder / "model.pth")
    return folder


@pytest.fixture(scope="session")
def omni(omni_experiment):
    return load(omni_experiment)
