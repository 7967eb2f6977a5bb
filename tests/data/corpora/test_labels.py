"""Label files of auto_avsr and Llama-AVSR."""

import json

import pytest

from espnet2_avsr_llm.bin import prepare
from espnet2_avsr_llm.data.tables import read_dir


@pytest.fixture
def crops(tmp_path):
    """Three crops of LRS3, with texts beside; the second has no wav, the third no text."""
    for name in ("test/aa/00001", "test/aa/00002", "trainval/-b/00001_00"):
        video = tmp_path / "lrs3/lrs3_video_seg16s" / f"{name}.mp4"
        text = tmp_path / "lrs3/lrs3_text_seg16s" / f"{name}.txt"
        for path in (video, text):
            path.parent.mkdir(parents=True, exist_ok=True)
        video.touch()
        if not name.endswith("2"):
            video.with_suffix(".wav").touch()
        if not name.startswith("trainval"):
            text.write_text(f"TEXT OF {name[-1]}")
    return tmp_path


def read(crops, *lines):
    (crops / "labels.csv").write_text("".join(f"{line}\n" for line in lines))
    prepare.main(["labels", str(crops), "--csv", str(crops / "labels.csv"), "--dset", "mine", "--out_dir", str(crops / "data")])
    return read_dir(crops / "data/mine"), [json.loads(line)["reason"] for line in (crops / "data/mine/dropped.jsonl").read_text().splitlines()]


def test_auto_avsr(crops):
    paths = [f"lrs3_video_seg16s/{name}.mp4" for name in ("test/aa/00001", "test/aa/00002", "trainval/-b/00001_00", "test/aa/9")]
    tables, dropped = read(crops, *(f"lrs3,{path},50,12 7 499" for path in paths))
    assert tables["text"] == {"lrs3_aa_test_00001": "text of 1", "lrs3_aa_test_00002": "text of 2"}
    assert tables["wav.scp"]["lrs3_aa_test_00001"].endswith("00001.wav") and tables["wav.scp"]["lrs3_aa_test_00002"].endswith("00002.mp4")
    assert dropped == ["no text file", "no text file"] and set(tables["utt2video"].values()) == {"lrs3_aa"}


def test_llama_avsr_with_commas(crops):
    tables, dropped = read(
        crops,
        "lrs3,lrs3_video_seg16s/trainval/-b/00001_00.mp4,50,1 2 3,well, that's it",
        "lrs3,lrs3_video_seg16s/test/aa/00001.mp4,60,,",
        "",
        "lrs3,lrs3_video_seg16s/test/aa/7.mp4,60,x,gone",
    )
    assert tables["text"] == {"lrs3_-b_trainval_00001_00": "well that's it"} and dropped == ["empty text", "no video file"]


@pytest.mark.parametrize("line", ["lrs3,a.mp4", "lrs3,a.mp4,many,1 2", "id,text,start,end,x"])
def test_other_files_are_refused(crops, line):
    with pytest.raises(SystemExit, match=r"labels.csv:1: found .*expected dataset,path,frames,tokens"):
        read(crops, line)
