"""Configurations read outside of ESPnet's parser."""

import argparse

import pytest

from espnet2_avsr_llm.build import PARTS
from espnet2_avsr_llm.config import PARTS as NAMES
from espnet2_avsr_llm.config import add_part_options, from_options, load_config, override


def test_absent_and_null_options_are_empty(tmp_path):
    (tmp_path / "a.yaml").write_text("llm: causal_lm\nadapter: lora\nadapter_conf: null\nplan_conf: {a: 1}\nplan: fixed\nseed: 1\noptim: adamw\n")
    config = load_config(tmp_path / "a.yaml")
    assert (config["llm_conf"], config["adapter_conf"], config["plan_conf"]) == ({}, {}, {"a": 1}) and "seed_conf" not in config
    assert config["projector_conf"] == {} and "optim_conf" not in config


def test_no_mapping_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("- llm\n")
    with pytest.raises(ValueError, match=r"a\.yaml: expected a YAML mapping.*found list"):
        load_config(tmp_path / "a.yaml")


def test_nothing_in_a_file_is_executed(tmp_path):
    (tmp_path / "a.yaml").write_text(f"llm: !!python/object/apply:os.mkdir [{tmp_path}/executed]\n")
    with pytest.raises(Exception, match="could not determine a constructor"):
        load_config(tmp_path / "a.yaml")
    assert not (tmp_path / "executed").exists()


def test_overrides():
    config = {"llm_conf": {"arch": "a", "deep": {"x": 1}}}
    out = override(config, "llm_conf", ["arch=b", "deep.y=2.5", "lora.rank=3", "none=null", "list=[1, 2]"])
    assert out["llm_conf"] == {"arch": "b", "deep": {"x": 1, "y": 2.5}, "lora": {"rank": 3}, "none": None, "list": [1, 2]}
    assert config == {"llm_conf": {"arch": "a", "deep": {"x": 1}}}
    with pytest.raises(ValueError, match="--llm_conf arch: expected KEY=VALUE"):
        override(config, "llm_conf", ["arch"])


@pytest.mark.parametrize("none", ["none", "null", "nil", "None"])
def test_options_of_programs(tmp_path, none):
    (tmp_path / "a.yaml").write_text("llm: causal_lm\nllm_conf: {arch: a, dtype: b}\nadapter: lora\nadapter_conf: {rank: 4}\ncompression: stack\n")
    parser = argparse.ArgumentParser()
    add_part_options(parser)
    options = ["--llm_conf", "arch=c", "--llm_conf", "init=random", "--adapter", none, "--compression", "avg_pool"]
    config = from_options(parser.parse_args(["--config", str(tmp_path / "a.yaml"), *options]))
    assert config["llm_conf"] == {"arch": "c", "dtype": "b", "init": "random"}
    assert (config["adapter"], config["adapter_conf"], config["compression"]) == (None, {"rank": 4}, "avg_pool")


def test_names_of_parts_are_those_of_build():
    """Listed twice, so that ``--help`` need not import the parts."""
    assert NAMES == tuple(PARTS)
