"""VoxCeleb2: sound beside, chunks of 400 frames, the list of English clips."""

import gzip
import json
import shutil

import pytest

from espnet2_avsr_llm.bin import prepare
from espnet2_avsr_llm.data.tables import read_dir
from layouts import make_vox2, write_media


@pytest.fixture(scope="module")
def vox2(tmp_path_factory):
    return make_vox2(tmp_path_factory.mktemp("vox2"))


def prepared(root, out, *options):
    """Tables of each set, and the reasons in its dropped.jsonl by the end of the clip's name."""
    prepare.main(["vox2", str(root), "--out_dir", str(out), *options])
    found = {}
    for folder in out.iterdir():
        dropped = map(json.loads, (folder / "dropped.jsonl").read_text().splitlines())
        found[folder.name] = read_dir(folder), {row["what"].rpartition("/")[2]: row["reason"] for row in dropped}
    return found


def test_chunks_and_what_is_left_out(vox2, tmp_path):
    found = prepared(vox2, tmp_path)
    tables, dropped = found["test"]
    assert tables["utt2segment"] == {
        "vox2_id00017_x_00001_00": "0 16",
        "vox2_id00017_x_00001_01": "16 32",
        "vox2_id00017_x_00001_02": "32 32.92",
        "vox2_id00017_x_00002_00": "0 16",
        "vox2_id00017_x_00002_01": "16 32",
    }
    assert dropped == {"00002.mp4 32": "fewer than 12 frames"}
    assert tables["wav.scp"]["vox2_id00017_x_00002_01"].endswith("test/wav/id00017/x/00002.wav")
    assert tables["utt2spk"]["vox2_id00017_x_00002_01"] == "vox2_id00017" and tables["utt2video"]["vox2_id00017_x_00002_01"] == "x"
    tables, dropped = next(of for of in found.values() if "vox2_id00012_ab-_c_00001" in of[0]["text"])
    assert tables["utt2segment"] == {"vox2_id00012_ab-_c_00001": "0 2", "vox2_id00012_ab-_c_00002": "0 16"}
    assert tables["wav.scp"]["vox2_id00012_ab-_c_00001"].endswith("dev/aac/id00012/ab-_c/00001.m4a")
    assert set(tables["text"].values()) == {""}
    assert dropped.pop("00006.mp4").startswith("not readable: ")
    assert "no audio" in dropped.pop("00003.mp4")
    assert dropped == {
        "00004.mp4": "sound and video differ in length",
        "00005.mp4": "fewer than 12 frames",
    }


@pytest.mark.parametrize("seconds, expected", [(44.8, ["0 16", "16 32", "32 40"]), (35.6, ["0 16", "16 32", "32 35.6"])])
def test_no_chunk_goes_on_where_sound_or_video_has_ended(tmp_path, seconds, expected):
    write_media(tmp_path / "vox2/test/mp4/id1/v/00001.mp4", 1000)
    write_media(tmp_path / "vox2/test/aac/id1/v/00001.m4a", seconds=seconds)
    found = prepared(tmp_path / "vox2", tmp_path / "data")["test"][0]["utt2segment"].values()
    assert [[round(float(time), 1) for time in segment.split()] for segment in found] == [[float(t) for t in e.split()] for e in expected]


def test_videos_of_the_test_set_are_not_trained_on(vox2, tmp_path, caplog):
    """Two people of one interview, one in dev and one in test."""
    shutil.copytree(vox2, tmp_path / "vox2")
    shutil.copytree(vox2 / "dev/mp4/id00013/v", tmp_path / "vox2/dev/mp4/id00013/x")
    with caplog.at_level("INFO"):
        found = prepared(tmp_path / "vox2", tmp_path / "data")
    dset = next(name for name, (tables, _) in found.items() if "vox2_id00013" in tables["utt2spk"].values())
    assert found[dset][1]["00001.mp4"] == "its video is in the test set" and "'its video is in the test set': 1" in caplog.text
    videos = {name: set(tables["utt2video"].values()) for name, (tables, _) in found.items()}
    assert videos["test"] == {"x"} and "x" not in videos["train"] | videos["valid"]


def test_validation_has_speakers_of_its_own(vox2, tmp_path):
    found = prepared(vox2, tmp_path)
    speakers = {dset: set(tables["utt2spk"].values()) for dset, (tables, _) in found.items()}
    assert speakers["test"] == {"vox2_id00017"} and len(speakers["train"]) == len(speakers["valid"]) == 1
    assert speakers["train"] | speakers["valid"] == {"vox2_id00012", "vox2_id00013"}


@pytest.mark.parametrize("zipped", [False, True])
def test_the_list_of_english_clips(vox2, tmp_path, zipped):
    lines = b"dev/mp4/id00012/ab-_c/00001\ndev/mp4/id00013/v/00001\ntest/mp4/id00017/x/00002\ntest/mp4/id00017/x/00009\n"
    path = tmp_path / ("vox-en.id.gz" if zipped else "vox-en.id")
    path.write_bytes(gzip.compress(lines) if zipped else lines)
    found = prepared(vox2, tmp_path / "data", "--clip_list", str(path))
    assert [len(tables["text"]) for tables, _ in found.values()] in ([1, 1, 2], [1, 2, 1], [2, 1, 1])
    assert found["test"][1]["00009.mp4"].startswith("not readable: ")


def test_sound_in_the_video_itself(tmp_path):
    write_media(tmp_path / "vox2/test/mp4/id1/v/00001.mp4", 50, 2.0)
    found = prepared(tmp_path / "vox2", tmp_path / "data")
    assert found["test"][0]["wav.scp"] == found["test"][0]["video.scp"] and not found["test"][1]
