"""A packed model unpacks with the stock model zoo, its pretrained folders included."""

import logging
from pathlib import Path

import pytest
import yaml

from espnet2_avsr_llm.bin import pack


@pytest.fixture
def exp(tmp_path, monkeypatch):
    """A recipe folder with an experiment whose LLM is a folder of the recipe."""
    monkeypatch.chdir(tmp_path)
    for name in ("exp/asr/RESULTS.md", "exp/asr/valid.acc.ave_1best.pth", "pretrained/llm/config.json", "dump/noise.flac"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    Path("exp/asr/valid.acc.ave.pth").symlink_to("valid.acc.ave_1best.pth")
    config = {"llm_conf": {"source": "pretrained/llm"}, "video_frontend_conf": {"source": "owner/hub-id"}, "output_dir": "exp/asr"}
    config["augment_conf"] = {"noise_file": "dump/noise.flac"}
    Path("exp/asr/config.yaml").write_text(yaml.safe_dump(config))
    return Path("exp/asr")


def packed(exp):
    pack.main(
        ["--asr_train_config", f"{exp}/config.yaml", "--asr_model_file", f"{exp}/valid.acc.ave.pth"]
        + ["--option", f"{exp}/RESULTS.md", "--outpath", f"{exp}/asr.zip"]
    )
    return exp / "asr.zip"


def test_stock_unpacker_rewrites_the_folder(exp, tmp_path):
    from espnet_model_zoo.downloader import ModelDownloader

    got = ModelDownloader(str(tmp_path / "cache")).download_and_unpack(str(packed(exp)))
    assert sorted(got) == ["asr_model_file", "asr_train_config"]
    assert Path(got["asr_model_file"]).read_text() == "exp/asr/valid.acc.ave_1best.pth"
    config = yaml.safe_load(Path(got["asr_train_config"]).read_text())
    llm = Path(config["llm_conf"]["source"])
    assert llm.is_relative_to(tmp_path / "cache")
    assert (llm / "config.json").read_text() == "pretrained/llm/config.json"
    assert config["video_frontend_conf"]["source"] == "owner/hub-id"
    assert not list((tmp_path / "cache").rglob("*.flac"))


def test_killed_packing_leaves_no_archive(exp, monkeypatch):
    def broken(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("espnet2.main_funcs.pack_funcs.pack", broken)
    with pytest.raises(KeyboardInterrupt):
        packed(exp)
    assert not (exp / "asr.zip").exists()


def test_parts_outside_the_recipe_are_named_not_packed(exp, tmp_path, caplog):
    outside = tmp_path.parent / f"{tmp_path.name}_outside"
    outside.mkdir()
    with caplog.at_level(logging.WARNING):
        assert pack.local_parts({"a": [{"b": str(outside)}], "c": "pretrained/llm", "d": 3}) == [Path("pretrained/llm")]
    assert f"{outside} is outside" in caplog.text
