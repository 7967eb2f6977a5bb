"""MuAViC as both versions of its scripts leave it."""

import json

import pytest

from espnet2_avsr_llm.bin import prepare
from espnet2_avsr_llm.data.tables import read_dir
from layouts import make_muavic

@pytest.fixture(params=["_avsr", ""], ids=["new", "old"])
def muavic(tmp_path, request):
    return make_muavic(tmp_path / "muavic", request.param)


def test_sets_of_each_language(muavic, tmp_path):
    prepare.main(["muavic", str(muavic), "--out_dir", str(tmp_path / "data")])
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [f"{s}_{lang}" for s in ("test", "train", "valid") for lang in ("ar", "es")]
    train = read_dir(tmp_path / "data" / "train_es")
    assert train["text"] == {"es_estrainTalk-0_estrainTalk-0_0000": "cómo estás", "es_estrainTalk-0_estrainTalk-0_0001": "hola"}
    assert set(train["utt2video"].values()) == {"estrainTalk-0"}
    dropped = [json.loads(line)["reason"] for line in (tmp_path / "data/train_es/dropped.jsonl").read_text().splitlines()]
    assert dropped == ["empty text", "no video file"]
    valid = read_dir(tmp_path / "data" / "valid_ar")
    assert len(valid["text"]) == 4 and all(path.startswith(str(muavic)) for path in valid["wav.scp"].values())


def test_one_language_and_absent_ones(muavic, tmp_path):
    prepare.main(["muavic", str(muavic), "--out_dir", str(tmp_path / "data"), "--languages", "ar"])
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["test_ar", "train_ar", "valid_ar"]
    with pytest.raises(SystemExit, match="has no el; found ar, es"):
        prepare.main(["muavic", str(muavic), "--languages", "el"])


def test_lists_of_different_lengths_are_refused(muavic, tmp_path):
    path = next(p for p in (muavic / "es" / "test_avsr.es", muavic / "es" / "test.es") if p.exists())
    path.write_text("una\n")
    with pytest.raises(SystemExit, match="has 4 clips, its transcripts are 1"):
        prepare.main(["muavic", str(muavic), "--out_dir", str(tmp_path / "data"), "--languages", "es"])
