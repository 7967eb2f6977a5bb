"""MuAViC as both versions of its scripts leave it."""

import json

import pytest

from espnet2_avsr_llm.bin import prepare
from espnet2_avsr_llm.data.tables import read_dir

TEXTS = {"es": ["¿Cómo estás?", "(Risas) Hola.", "...", "Muy bien."], "ar": ["مرحبا", "نعم", "لا", "شكرا"]}


@pytest.fixture(params=["_avsr", ""], ids=["new", "old"])
def muavic(tmp_path, request):
    """Two languages; in train one clip lacks its video and one its text; valid was moved after its manifest was written."""
    for language, texts in TEXTS.items():
        folder = tmp_path / "muavic" / language
        for split in ("train", "valid", "test"):
            lines = []
            for i, text in enumerate(texts):
                talk, clip = f"{split}Talk-{i // 2}", f"{split}Talk-{i // 2}_{i:04}"
                for kind, suffix in (("audio", "wav"), ("video", "mp4")):
                    path = folder / kind / split / talk / f"{clip}.{suffix}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if (split, kind, i) != ("train", "video", 3):
                        path.touch()
                root = "/gone" if split == "valid" else str(folder)
                paths = [f"{root}/{kind}/{split}/{talk}/{clip}.{suffix}" for kind, suffix in (("video", "mp4"), ("audio", "wav"))]
                name = f"{split}/{talk}/{clip}" if request.param == "" else clip
                lines.append("\t".join([name, *paths, "50", "32000"]) + "\n")
            (folder / f"{split}{request.param}.tsv").write_text("/\n" + "".join(lines))
            (folder / f"{split}{request.param}.{language}").write_text("".join(f"{text}\n" for text in texts))
    return tmp_path / "muavic"


def test_sets_of_each_language(muavic, tmp_path):
    prepare.main(["muavic", str(muavic), "--out_dir", str(tmp_path / "data")])
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [f"{s}_{lang}" for s in ("test", "train", "valid") for lang in ("ar", "es")]
    train = read_dir(tmp_path / "data" / "train_es")
    assert train["text"] == {"es_trainTalk-0_trainTalk-0_0000": "cómo estás", "es_trainTalk-0_trainTalk-0_0001": "hola"}
    assert set(train["utt2lang"].values()) == {"es"} and set(train["utt2video"].values()) == {"es_trainTalk-0"}
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
