"""Stage 3: lengths, broken files, resuming after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from espnet2_avsr_llm.bin import dump
from espnet2_avsr_llm.data.media import read_audio, read_roi
from espnet2_avsr_llm.data.roi import MouthROI, NoFaceError, models


def make_clip(path, n_frames=10, seconds=0.4):
    """A grey video with a tone of another length."""
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("libx264", rate=25), out.add_stream("aac", rate=16000, layout="mono")
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for i in range(n_frames):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * i % 250, np.uint8), format="rgb24")))
        out.mux(video.encode())
        wave = 0.5 * np.sin(np.arange(round(16000 * seconds)) / 5, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        out.mux(audio.encode(frame))
        out.mux(audio.encode())


def write_tables(folder, media, names=("wav.scp", "video.scp")):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("".join(f"{utt} {path}\n" for utt, path in media.items()))
    (folder / "text").write_text("".join(f"{utt} hello {utt}\n" for utt in media))
    (folder / "utt2spk").write_text("".join(f"{utt} {utt[:2]}\n" for utt in media))


def table(path):
    return dict(line.split(" ", 1) for line in path.read_text().splitlines())


@pytest.fixture
def no_face_models(monkeypatch):
    """A crop that needs no model: the frame's grey level; black first frames beyond 100 frames have no face."""

    def mouth_roi(frames, backend="litert", stride=1):
        if len(frames) > 100:
            raise NoFaceError("found no face")
        levels = np.repeat(frames[:, :1, :1, 0], 96 * 96, 2).reshape(-1, 96, 96)
        return MouthROI(levels, np.zeros((len(frames), 2, 3)), np.ones(len(frames), bool))

    monkeypatch.setattr("espnet2_avsr_llm.data.roi.mouth_roi", mouth_roi)


def test_sound_and_video_have_equal_length(tmp_path, no_face_models, caplog):
    clips = {"s1_a": (10, 0.38), "s1_b": (10, 0.9), "s2_c": (20, 0.4)}
    for utt, lengths in clips.items():
        make_clip(tmp_path / f"{utt}.mp4", *lengths)
    write_tables(tmp_path / "in", {utt: tmp_path / f"{utt}.mp4" for utt in clips})
    out = tmp_path / "out"
    assert dump.main(["--in_dir", str(tmp_path / "in"), "--out_dir", str(out)]) == 0
    assert table(out / "utt2num_frames") == {"s1_a": "10", "s1_b": "10", "s2_c": "20"}
    assert table(out / "utt2num_samples") == {"s1_a": "6400", "s1_b": "6400", "s2_c": "12800"}
    assert (out / "spk2utt").read_text() == "s1 s1_a s1_b\ns2 s2_c\n"
    assert table(out / "text")["s2_c"] == "hello s2_c" and (out / "failed.jsonl").read_text() == ""
    for utt, (frames, _) in clips.items():
        assert len(read_audio(table(out / "wav.scp")[utt])) == 640 * frames
        assert read_roi(table(out / "video.scp")[utt]).shape == (frames, 96, 96)
    assert "s1_a" not in caplog.text  # within 0.2 s
    assert re.search("s1_b: sound of 0.9. s, video of 0.40 s: the sound is cut", caplog.text)
    assert re.search("s2_c: sound of 0.4. s, video of 0.80 s: the sound is padded", caplog.text)


def test_what_an_utterance_lacks_stays_missing(tmp_path, no_face_models):
    make_clip(tmp_path / "a.mp4")
    write_tables(tmp_path / "in", {utt: tmp_path / "a.mp4" for utt in ("both", "deaf", "mute", "none")})
    for name, without in (("wav.scp", ("deaf", "none")), ("video.scp", ("mute", "none"))):
        rows = table(tmp_path / "in" / name)
        (tmp_path / "in" / name).write_text("".join(f"{u} {'-' if u in without else path}\n" for u, path in rows.items()))
    out = tmp_path / "out"
    for _ in range(2):  # the second time from what is there
        assert dump.main(["--in_dir", str(tmp_path / "in"), "--out_dir", str(out)]) == 3
        assert json.loads((out / "failed.jsonl").read_text()) == {"utt": "none", "reason": "neither sound nor video"}
        assert (table(out / "wav.scp")["deaf"], table(out / "video.scp")["mute"]) == ("-", "-")
        samples = table(out / "utt2num_samples")
        assert (samples["both"], samples["deaf"]) == ("6400", "0") and int(samples["mute"]) >= 6400  # whole, with no video to align to
        assert table(out / "utt2num_frames") == {"both": "10", "deaf": "10", "mute": "0"}


def test_broken_files_are_listed_and_the_rest_is_dumped(tmp_path, no_face_models):
    make_clip(tmp_path / "good.mp4")
    make_clip(tmp_path / "faceless.mp4", n_frames=101, seconds=4)
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    media = {"a_good": "good", "b_text": "text", "c_face": "faceless", "d_none": "none"}
    write_tables(tmp_path / "in", {utt: tmp_path / f"{name}.mp4" for utt, name in media.items()})
    out = tmp_path / "out"
    for _ in range(2):  # a second run finds the same
        assert dump.main(["--in_dir", str(tmp_path / "in"), "--out_dir", str(out)]) == 3
        failed = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
        assert [row["utt"] for row in failed] == ["b_text", "c_face", "d_none"]
        assert all(str(tmp_path) in row["reason"] for row in failed)
        assert "no face" in failed[1]["reason"] and "no such file" in failed[2]["reason"]
        for name in ("wav.scp", "video.scp", "text", "utt2spk", "utt2num_samples", "utt2num_frames"):
            assert list(table(out / name)) == ["a_good"]


def test_finished_files_are_left_alone_and_missing_ones_made(tmp_path, no_face_models):
    for name in "ab":
        make_clip(tmp_path / f"{name}.mp4")
    write_tables(tmp_path / "in", {name: tmp_path / f"{name}.mp4" for name in "ab"})
    arguments = ["--in_dir", str(tmp_path / "in"), "--out_dir", str(tmp_path / "out")]
    dump.main(arguments)
    files = sorted((tmp_path / "out" / "data").rglob("*.*"))
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    assert len(files) == 6
    lost = tmp_path / "out/data/b/b.npz"
    lost.unlink()
    lost.with_name(".b.mp4.123.tmp").write_bytes(b"half")
    dump.main(arguments)
    after = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted((tmp_path / "out" / "data").rglob("*.*"))}
    assert {file: content for file, (content, _) in after.items()} == {file: content for file, (content, _) in before.items()}
    assert [file.stem for file in files if before[file] == after[file]] == ["a"] * 3


@pytest.mark.parametrize("change, message", [("missing", "differ in 1 ids"), ("slash", "no slash"), ("dots", "no slash")])
def test_tables_that_disagree_and_ids_that_are_no_file_names(tmp_path, change, message):
    utt = {"missing": "b", "slash": "x/y", "dots": "..x"}[change]
    write_tables(tmp_path / "in", {"a": "a.wav", utt: "b.wav"}, names=["wav.scp"])
    if change == "missing":
        (tmp_path / "in" / "wav.scp").write_text("a a.wav\n")
    with pytest.raises(ValueError, match=message):
        dump.main(["--in_dir", str(tmp_path / "in"), "--out_dir", str(tmp_path / "out")])


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def make_sounds(folder, n):
    rng = np.random.default_rng(0)
    for i in range(n):
        soundfile.write(folder / f"u{i:03}.wav", 0.1 * rng.standard_normal((24000, 2)), 44100)
    write_tables(folder / "in", {f"u{i:03}": folder / f"u{i:03}.wav" for i in range(n)}, names=["wav.scp"])


def test_killed_runs_end_like_an_undisturbed_one(tmp_path, monkeypatch):
    """Sound only, two processes; killed as soon as some, but not all, files are there."""
    make_sounds(tmp_path, 60)
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "espnet2_avsr_llm.bin.dump", "--in_dir", "in", "--nj", "2", "--out_dir"]
    environment = dict(os.environ, PYTHONPATH=str(Path(dump.__file__).parents[2]))
    for fewest in (5, 25):
        process = subprocess.Popen([*command, "out"], env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(Path("out").rglob("*.flac"))) < fewest:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    Path("out/data/u0").joinpath(".u059.flac.1.tmp").write_bytes(b"half")
    half_way = Path("out/text").exists()
    subprocess.run([*command, "out"], env=environment, check=True)
    first = contents(Path("out"))
    assert not half_way and len(first) == 60 + 6
    assert dump.main(["--in_dir", "in", "--out_dir", "undisturbed"]) == 0
    second = contents(Path("undisturbed"))
    del first["wav.scp"], second["wav.scp"]  # names the folder
    assert first == second


def test_help_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from espnet2_avsr_llm.bin import dump, noise_list, roi_models\n"
        "[m.get_parser().format_help() for m in (dump, noise_list, roi_models)]\n"
        "sys.exit(', '.join({'torch', 'av', 'cv2', 'soundfile', 'tqdm'} & set(sys.modules)) or 0)"
    )
    environment = dict(os.environ, PYTHONPATH=str(Path(dump.__file__).parents[2]))
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (found.stderr.strip(), found.returncode) == ("", 0)


def test_real_clips_in_two_processes_equal_one(tmp_path):
    if not os.environ.get("AVSR_REAL_DATA"):
        pytest.skip("AVSR_REAL_DATA is not set")
    if not (models.model_dir() / models.MESH).is_file():
        pytest.skip("the face models are not fetched: python -m espnet2_avsr_llm.bin.roi_models")
    clips = sorted(Path(os.environ["AVSR_REAL_DATA"], "grid_raw").glob("*.mpg"))[:3]
    write_tables(tmp_path / "in", {clip.stem: clip for clip in clips})
    for nj in ("1", "2"):
        assert dump.main(["--in_dir", str(tmp_path / "in"), "--out_dir", str(tmp_path / nj), "--nj", nj]) == 0
    assert contents(tmp_path / "1" / "data") == contents(tmp_path / "2" / "data")
    assert set(table(tmp_path / "1" / "utt2num_frames").values()) == {"75"}
