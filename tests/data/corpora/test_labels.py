"""Label files of auto_avsr and Llama-AVSR."""

import json

import pytest

from espnet2_avsr_llm.bin import prepare
from espnet2_avsr_llm.data.tables import read_dir
from layouts import make_crops, touch


@pytest.fixture
def crops(tmp_path):
    return make_crops(tmp_path)


def read(crops, *lines, dset="test_csv", **files):
    """Tables of a set, and the reasons for what was left out; without lines, what is in ``files``."""
    for name, text in {"train": "\n", "test": "".join(f"{line}\n" for line in lines), **files}.items():
        (crops / f"{name}.csv").write_text(text)
    options = [option for name in ("train", "test", *files) for option in (f"--{name}_csv", str(crops / f"{name}.csv"))]
    prepare.main(["labels", str(crops), *options, "--out_dir", str(crops / "data")])
    dropped = [json.loads(line)["reason"] for line in (crops / "data" / dset / "dropped.jsonl").read_text().splitlines()]
    return read_dir(crops / "data" / dset), dropped


def test_auto_avsr(crops):
    paths = [f"lrs3_video_seg16s/{name}.mp4" for name in ("test/aa/00001", "test/aa/00002", "trainval/-b/00001_00", "test/aa/9")]
    tables, dropped = read(crops, *(f"lrs3,{path},50,12 7 499" for path in paths), "lrs3, lrs3_video_seg16s/clip_1.mp4, 50, 12 7")
    assert tables["text"] == {"lrs3_aa_test_00001": "text of 1", "lrs3_aa_test_00002": "text of 2", "lrs3_clip_1": "text of 1"}
    assert tables["wav.scp"]["lrs3_aa_test_00001"].endswith("00001.wav") and tables["wav.scp"]["lrs3_aa_test_00002"].endswith("00002.mp4")
    assert dropped == ["no text file", "no video file"]
    assert set(tables["utt2video"].values()) == {"aa", "clip_1"} and set(tables["utt2spk"].values()) == {"lrs3_aa", "lrs3_clip_1"}


def test_llama_avsr_with_commas(crops):
    tables, dropped = read(
        crops,
        "lrs3,lrs3_video_seg16s/trainval/-b/00001_00.mp4,50,1 2 3,well, that's it",
        "lrs3,lrs3_video_seg16s/test/aa/00001.mp4,60,,",
        "",
        "lrs3,lrs3_video_seg16s/test/aa/7.mp4,60,x,gone",
    )
    assert tables["text"] == {"lrs3_-b_trainval_00001_00": "well that's it"} and dropped == ["empty text", "no video file"]


def test_validation_is_drawn_from_training_or_given(crops):
    for video in "abc":
        for clip in range(20):
            touch(crops / f"lrs3/lrs3_video_seg16s/trainval/{video}/{clip}.mp4")
    train = "".join(f"lrs3,lrs3_video_seg16s/trainval/{video}/{clip}.mp4,50,,words\n" for video in "abc" for clip in range(20))
    test = "lrs3,lrs3_video_seg16s/test/aa/00001.mp4,60,,"
    tables, _ = read(crops, test + "words", dset="train_csv", train=train)
    valid = read_dir(crops / "data/valid_csv")
    assert (len(tables["text"]), len(valid["text"])) == (40, 20) and not set(tables["utt2video"].values()) & set(valid["utt2video"].values())
    tables, _ = read(crops, test + "words", dset="train_csv", train=train, valid=test + "given\n")
    assert len(tables["text"]) == 60 and set(read_dir(crops / "data/valid_csv")["text"].values()) == {"given"}


@pytest.mark.parametrize("line", ["lrs3,a.mp4", "lrs3,a.mp4,many,1 2", "id,text,start,end,x"])
def test_other_files_are_refused(crops, line):
    with pytest.raises(SystemExit, match=r"test.csv:1: found .*expected dataset,path,frames,tokens"):
        read(crops, line)
