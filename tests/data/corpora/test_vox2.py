"""VoxCeleb2: sound beside, chunks of 400 frames, the list of English clips."""

import gzip
import json
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from espnet2_avsr_llm.bin import prepare
from espnet2_avsr_llm.data.tables import read_dir


def write_video(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode())


def write_aac(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, round(16000 * seconds)), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        out.mux(stream.encode(frame))
        out.mux(stream.encode())


@pytest.fixture(scope="module")
def vox2(tmp_path_factory):
    """Clips of 50, 400, 811 and 803 frames (the last chunk too short), and unusable ones."""
    root = tmp_path_factory.mktemp("vox2")
    good = {"dev/{}/id00012/ab-_c/00001": 50, "dev/{}/id00012/ab-_c/00002": 400, "test/{}/id00017/x/00001": 811 + 12, "test/{}/id00017/x/00002": 803}
    for name, frames in good.items():
        write_video(root / f"{name.format('mp4')}.mp4", frames)
        if name.startswith("dev"):
            write_aac(root / f"{name.format('aac')}.m4a", frames / 25)
        else:
            (root / name.format("wav")).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(root / f"{name.format('wav')}.wav", np.zeros(frames * 640), 16000)
    write_video(root / "dev/mp4/id00012/ab-_c/00003.mp4", 50)  # no sound
    write_video(root / "dev/mp4/id00012/ab-_c/00004.mp4", 50)  # sound of another length
    write_aac(root / "dev/aac/id00012/ab-_c/00004.m4a", 4.0)
    write_video(root / "dev/mp4/id00012/ab-_c/00005.mp4", 11)
    write_aac(root / "dev/aac/id00012/ab-_c/00005.m4a", 0.44)
    (root / "dev/mp4/id00012/ab-_c/00006.mp4").write_text("no video")
    (root / "dev/aac/id00012/ab-_c/00006.m4a").write_text("no sound")
    return root


def test_chunks_and_what_is_left_out(vox2, tmp_path):
    prepare.main(["vox2", str(vox2), "--out_dir", str(tmp_path)])
    tables = read_dir(tmp_path / "vox2")
    assert tables["utt2segment"] == {
        "vox2_id00012_ab-_c_00001": "0 -1",
        "vox2_id00012_ab-_c_00002": "0 -1",
        "vox2_id00017_x_00001_00": "0 16",
        "vox2_id00017_x_00001_01": "16 32",
        "vox2_id00017_x_00001_02": "32 -1",
        "vox2_id00017_x_00002_00": "0 16",
        "vox2_id00017_x_00002_01": "16 32",
    }
    assert tables["wav.scp"]["vox2_id00012_ab-_c_00001"].endswith("dev/aac/id00012/ab-_c/00001.m4a")
    assert tables["wav.scp"]["vox2_id00017_x_00002_01"].endswith("test/wav/id00017/x/00002.wav")
    assert tables["utt2spk"]["vox2_id00017_x_00002_01"] == "vox2_id00017" and tables["utt2video"]["vox2_id00017_x_00002_01"] == "vox2_x"
    assert set(tables["text"].values()) == {""}
    dropped = {row["what"].rpartition("/")[2]: row["reason"] for row in map(json.loads, (tmp_path / "vox2/dropped.jsonl").read_text().splitlines())}
    assert dropped.pop("00006.mp4").startswith("not readable: ")
    assert dropped == {
        "00003.mp4": "no sound file: in neither aac/ nor wav/",
        "00004.mp4": "sound and video differ in length",
        "00005.mp4": "fewer than 12 frames",
        "00002.mp4 32": "fewer than 12 frames",
    }


@pytest.mark.parametrize("zipped", [False, True])
def test_the_list_of_english_clips(vox2, tmp_path, zipped):
    lines = b"dev/mp4/id00012/ab-_c/00001\ntest/mp4/id00017/x/00009\n"
    path = tmp_path / ("vox-en.id.gz" if zipped else "vox-en.id")
    path.write_bytes(gzip.compress(lines) if zipped else lines)
    prepare.main(["vox2", str(vox2), "--out_dir", str(tmp_path), "--clip_list", str(path)])
    assert list(read_dir(tmp_path / "vox2")["text"]) == ["vox2_id00012_ab-_c_00001"]
    assert "00009.mp4" in (tmp_path / "vox2/dropped.jsonl").read_text()
