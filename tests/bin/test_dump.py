"""Stage 3: lengths, broken and incomplete files, segments, parts, resuming after a kill."""

import json
import os
import pickle
import re
import shutil
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
from espnet2_avsr_llm.data.media import read_audio, read_roi, write_roi
from espnet2_avsr_llm.data.roi import landmarks, models


def make_clip(path, n_frames=10, seconds=0.4, level=None):
    """A grey video (frame i at level 10 i, or all at `level`; none where n_frames is 0) with a tone of another length (none at 0)."""
    with av.open(str(path), "w") as out:
        if n_frames:
            video = out.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt, video.gop_size = 64, 48, "yuv420p", 12
        if seconds:
            audio = out.add_stream("aac", rate=16000, layout="mono")
        for i in range(n_frames):
            picture = np.full((48, 64, 3), 10 * i % 250 if level is None else level, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if n_frames:
            out.mux(video.encode())
        if seconds:
            wave = 0.5 * np.sin(np.arange(round(16000 * seconds)) / 5, dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
            out.mux(audio.encode(frame))
            out.mux(audio.encode())


def write_tables(folder, media, names=("wav.scp", "video.scp"), **more):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("".join(f"{utt} {path}\n" for utt, path in media.items()))
    (folder / "text").write_text("".join(f"{utt} hello {utt}\n" for utt in media))
    (folder / "utt2spk").write_text("".join(f"{utt} {utt[:2]}\n" for utt in media))
    for name, table in more.items():
        (folder / name).write_text("".join(f"{utt} {table[utt]}\n" for utt in media))


def table(path):
    return dict(line.split(" ", 1) for line in path.read_text().splitlines())


def failures(out):
    return {row["utt"]: row["reason"] for row in map(json.loads, (out / "failed.jsonl").read_text().splitlines())}


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


class BrightTrack:
    """Finds a face where the picture is not black; its mouth is where the picture is."""

    faces = 1
    free = False

    def __call__(self, frame):
        rng = np.random.default_rng(0)
        return rng.uniform((10, 10), (50, 40), (68, 2)) if frame.any() else None


class BrightBackend:
    def track(self, path, first):
        return BrightTrack()


@pytest.fixture
def bright(monkeypatch):
    """A landmark backend that needs no model."""
    monkeypatch.setitem(landmarks.BACKENDS, "bright", lambda argument: BrightBackend())
    landmarks.get_backend.cache_clear()
    return ["--landmarks", "bright"]


def run(folder, *more, out="out"):
    return dump.main(["--in_dir", str(folder / "in"), "--out_dir", str(folder / out), *map(str, more)])


def test_sound_and_video_have_equal_length(tmp_path, bright, caplog):
    clips = {"s1_a": (10, 0.38), "s1_b": (10, 0.9), "s2_c": (20, 0.4)}
    for utt, lengths in clips.items():
        make_clip(tmp_path / f"{utt}.mp4", *lengths)
    write_tables(tmp_path / "in", {utt: tmp_path / f"{utt}.mp4" for utt in clips}, utt2video={utt: f"v{utt}" for utt in clips})
    out = tmp_path / "out"
    assert run(tmp_path, *bright) == 0
    assert table(out / "utt2num_frames") == {"s1_a": "10", "s1_b": "10", "s2_c": "20"}
    assert table(out / "utt2num_samples") == {"s1_a": "6400", "s1_b": "6400", "s2_c": "12800"}
    assert (out / "spk2utt").read_text() == "s1 s1_a s1_b\ns2 s2_c\n"
    assert table(out / "text")["s2_c"] == "hello s2_c" and table(out / "utt2video")["s2_c"] == "vs2_c" and failures(out) == {}
    for utt, (frames, _) in clips.items():
        assert len(read_audio(table(out / "wav.scp")[utt])) == 640 * frames
        assert read_roi(table(out / "video.scp")[utt]).shape == (frames, 96, 96)
        with np.load(out / "data" / utt[:2] / f"{utt}.npz", allow_pickle=False) as geometry:
            assert geometry["transforms"].shape == (frames, 2, 3) and geometry["has_face"].shape == (frames,)
    assert re.search("sound of 0.9. s, video of 0.40 s: sound cut", caplog.text)
    assert re.search("sound of 0.4. s, video of 0.80 s: sound padded", caplog.text)
    report = json.loads((out / "report.json").read_text())
    assert report["utterances_by_note"] == {"sound cut to the video": 1, "sound padded to the video": 1}
    assert report["frames"] == 40 and report["hours"] == {"sound": round(1.6 / 3600, 4), "video": round(1.6 / 3600, 4)}


def test_broken_files_are_listed_and_the_rest_is_dumped(tmp_path, bright):
    make_clip(tmp_path / "good.mp4")
    make_clip(tmp_path / "faceless.mp4", level=0)
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    media = {"a_good": "good", "b_text": "text", "c_face": "faceless", "d_none": "none"}
    write_tables(tmp_path / "in", {utt: tmp_path / f"{name}.mp4" for utt, name in media.items()})
    out = tmp_path / "out"
    for _ in range(2):  # a second run finds the same
        assert run(tmp_path, *bright) == 3
        failed = failures(out)
        assert list(failed) == ["b_text", "c_face", "d_none"]
        assert all(str(tmp_path) in reason for reason in failed.values())
        assert "no face" in failed["c_face"] and "no such file" in failed["d_none"]
        for name in ("wav.scp", "video.scp", "text", "utt2spk", "utt2num_samples", "utt2num_frames"):
            assert list(table(out / name)) == ["a_good"]
    make_clip(tmp_path / "none.mp4")  # the file has come: tried again
    assert run(tmp_path, *bright) == 3 and list(failures(out)) == ["b_text", "c_face"] and "d_none" in table(out / "text")


def test_loud_sound_is_scaled_and_told(tmp_path):
    wave = 1.8 * np.sin(np.arange(16000) / 5)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    write_tables(tmp_path / "in", {"a": tmp_path / "a.wav"}, names=["wav.scp"])
    assert run(tmp_path) == 0
    assert np.abs(read_audio(table(tmp_path / "out/wav.scp")["a"]) - wave / 1.8).max() < 1e-4
    assert json.loads((tmp_path / "out/report.json").read_text())["utterances_by_note"] == {"sound scaled down to a peak of 1": 1}


def make_incomplete(folder):
    """Clips of which one lacks sound, one video, one a face."""
    for name, frames, seconds, level in (("full", 10, 0.4, 90), ("mute", 10, 0, 90), ("dark", 0, 0.4, 90), ("hidden", 10, 0.4, 0)):
        make_clip(folder / f"{name}.mp4", frames, seconds, level)
    write_tables(folder / "in", {name: folder / f"{name}.mp4" for name in ("dark", "full", "hidden", "mute")})


def test_incomplete_utterances_fail(tmp_path, bright):
    make_incomplete(tmp_path)
    assert run(tmp_path, *bright) == 3
    reasons = failures(tmp_path / "out")
    assert list(reasons) == ["dark", "hidden", "mute"]
    assert "no video" in reasons["dark"] and "no face" in reasons["hidden"] and "no audio" in reasons["mute"]


def test_incomplete_utterances_are_marked_if_asked(tmp_path, bright):
    make_incomplete(tmp_path)
    out = tmp_path / "out"
    assert run(tmp_path, *bright, "--on_missing", "mark") == 0
    missing = {name: [utt for utt, path in table(out / name).items() if path == "-"] for name in ("wav.scp", "video.scp")}
    assert missing == {"wav.scp": ["mute"], "video.scp": ["dark", "hidden"]}
    assert table(out / "utt2num_samples") == {"dark": "7168", "full": "6400", "hidden": "7168", "mute": "0"}  # AAC pads
    assert table(out / "utt2num_frames") == {"dark": "0", "full": "10", "hidden": "0", "mute": "10"}
    notes = json.loads((out / "report.json").read_text())["utterances_by_note"]
    assert notes == {"no face": 1, "no sound": 1, "no video": 1}
    assert not (out / "data/hi/hidden.mp4").exists() and not (out / "tmp").exists()
    in_again = tmp_path / "again"
    in_again.mkdir()
    for name in ("wav.scp", "video.scp", "text", "utt2spk"):
        (in_again / name).write_text((out / name).read_text())
    settings = ["--crop", "given"]  # marks are understood as well as given
    assert dump.main(["--in_dir", str(in_again), "--out_dir", str(tmp_path / "out2"), *settings]) == 0
    assert table(tmp_path / "out2/utt2num_frames") == table(out / "utt2num_frames")


def test_nothing_at_all_fails(tmp_path, bright):
    write_tables(tmp_path / "in", {"a": "-"})
    assert run(tmp_path, *bright, "--on_missing", "mark") == 3
    assert "neither sound nor video" in failures(tmp_path / "out")["a"]


def test_given_crops_are_copied_as_they_are(tmp_path):
    write_roi(tmp_path / "mouth.mp4", np.random.default_rng(0).integers(0, 256, (12, 96, 96), dtype=np.uint8))
    make_clip(tmp_path / "face.mp4")
    write_tables(tmp_path / "in", {"a": tmp_path / "mouth.mp4", "b": tmp_path / "face.mp4"}, names=["video.scp"])
    assert run(tmp_path, "--crop", "given") == 3
    assert (tmp_path / "out/data/a/a.mp4").read_bytes() == (tmp_path / "mouth.mp4").read_bytes()
    assert "64x48" in failures(tmp_path / "out")["b"] and table(tmp_path / "out/utt2num_frames") == {"a": "12"}


def test_truncated_crops_are_used_as_far_as_they_go_if_asked(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (60, 96, 96), dtype=np.uint8)
    with av.open(str(tmp_path / "mouth.mkv"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuv420p")))
        file.mux(stream.encode())
    content = (tmp_path / "mouth.mkv").read_bytes()
    (tmp_path / "mouth.mkv").write_bytes(content[: len(content) // 2])
    write_tables(tmp_path / "in", {"a": tmp_path / "mouth.mkv"}, names=["video.scp"])
    assert run(tmp_path, "--crop", "given") == 3
    assert run(tmp_path, "--crop", "given", "--allow_partial", out="partial") == 0
    count = int(table(tmp_path / "partial/utt2num_frames")["a"])
    assert 5 < count < 55 and len(read_roi(table(tmp_path / "partial/video.scp")["a"])) == count
    assert json.loads((tmp_path / "partial/report.json").read_text())["utterances_by_note"] == {"video is used as far as it goes": 1}


def test_segments_are_cut_out(tmp_path, bright):
    make_clip(tmp_path / "long.mp4", n_frames=100, seconds=4.0)
    spans = {"a0": "0 -1", "a1": "0.48 1.0", "a2": "2 3.96", "a3": "3 9"}
    write_tables(tmp_path / "in", dict.fromkeys(spans, tmp_path / "long.mp4"), utt2segment=spans)
    assert run(tmp_path, *bright) == 3
    out = tmp_path / "out"
    assert list(failures(out)) == ["a3"] and "ends at 4.00 s; expected 9.00 s" in failures(out)["a3"]
    assert table(out / "utt2num_frames") == {"a0": "100", "a1": "13", "a2": "49"}
    assert table(out / "utt2num_samples") == {"a0": "64000", "a1": "8320", "a2": "31360"}
    whole = read_audio(table(out / "wav.scp")["a0"])
    assert np.abs(read_audio(table(out / "wav.scp")["a2"]) - whole[32000 : 32000 + 31360]).max() < 1e-3
    with np.load(out / "data/a0/a0.npz") as geometry, np.load(out / "data/a2/a2.npz") as part:
        assert (part["has_face"] == geometry["has_face"][50:99]).all()


def test_truncated_files_are_used_as_far_as_they_go_if_asked(tmp_path, bright):
    make_clip(tmp_path / "a.mkv", n_frames=100, seconds=4.0)
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(content[: len(content) // 2])
    write_tables(tmp_path / "in", {"a": tmp_path / "a.mkv"})
    assert run(tmp_path, *bright) == 3
    assert run(tmp_path, *bright, "--allow_partial", out="partial") == 0
    assert 10 < int(table(tmp_path / "partial/utt2num_frames")["a"]) < 90
    assert any("video is used as far" in note for note in json.loads((tmp_path / "partial/report.json").read_text())["utterances_by_note"])


def test_finished_files_are_left_alone_and_changed_sources_dumped_again(tmp_path, bright):
    for name in "abc":
        make_clip(tmp_path / f"{name}.mp4", level=90)
    write_tables(tmp_path / "in", {name: tmp_path / f"{name}.mp4" for name in "ab"})
    run(tmp_path, *bright)
    files = sorted((tmp_path / "out" / "data").rglob("*.*"))
    before = {file: file.stat().st_mtime_ns for file in files}
    assert len(files) == 6
    (tmp_path / "in" / "wav.scp").write_text(f"a {tmp_path}/a.mp4\nb {tmp_path}/c.mp4\n")
    run(tmp_path, *bright)
    assert [file.stem for file in files if before[file] == file.stat().st_mtime_ns] == ["a"] * 3


def test_utterances_of_another_speaker_now_are_dumped_again(tmp_path):
    make_sounds(tmp_path, 2)
    run(tmp_path)
    (tmp_path / "in" / "utt2spk").write_text("u000 u0\nu001 other\n")
    assert run(tmp_path) == 0
    files = table(tmp_path / "out" / "wav.scp")
    assert files["u001"].endswith("out/data/other/u001.flac") and all(Path(file).is_file() for file in files.values())


def test_sources_that_change_while_a_run_is_unfinished(tmp_path, bright):
    """Moved files: what the killed run did is done again, and the journals are read rightly afterwards."""
    for name in "abcd":
        make_clip(tmp_path / f"{name}.mp4", level=90)
    write_tables(tmp_path / "in", {name: tmp_path / f"{name}.mp4" for name in "abcd"})
    assert run(tmp_path, *bright, "--nj", 2, "--job", 1) == 0 and run(tmp_path, *bright, "--nj", 1, "--job", 1) == 0
    for name in "abcd":
        (tmp_path / f"{name}.mp4").rename(tmp_path / f"moved_{name}.mp4")
    write_tables(tmp_path / "in", {name: tmp_path / f"moved_{name}.mp4" for name in "abcd"})
    for job in (1, 2):
        assert run(tmp_path, *bright, "--nj", 2, "--job", job) == 0
    assert run(tmp_path, *bright, "--finish") == 0 and list(table(tmp_path / "out" / "text")) == list("abcd")


def test_other_settings_are_not_mixed_in(tmp_path, bright):
    make_clip(tmp_path / "a.mp4", level=90)
    write_tables(tmp_path / "in", {"a": tmp_path / "a.mp4"})
    run(tmp_path, *bright)
    with pytest.raises(SystemExit, match="'crop': 'auto_avsr'.*'crop': 'avhubert'"):
        run(tmp_path, *bright, "--crop", "avhubert")


@pytest.mark.parametrize("stride, black", [(26, 0), (27, None), (0, None), (-1, None)])
def test_strides_that_would_leave_frames_black_are_refused(tmp_path, bright, capsys, stride, black):
    make_clip(tmp_path / "a.mp4", 80, 0, level=90)
    write_tables(tmp_path / "in", {"a": tmp_path / "a.mp4"}, names=["video.scp"])
    if black is None:
        with pytest.raises(SystemExit):
            run(tmp_path, *bright, "--landmark_stride", stride)
        assert f"argument --landmark_stride: invalid choice: {stride}" in capsys.readouterr().err
    else:
        assert run(tmp_path, *bright, "--landmark_stride", stride) == 0
        assert json.loads((tmp_path / "out/report.json").read_text())["frames_left_black"] == black


@pytest.mark.parametrize("change, message", [("missing", "different ids in line 2, {'wav.scp': '', 'video.scp': 'b'"), ("slash", "no slash"), ("dots", "no slash")])
def test_tables_that_disagree_and_ids_that_are_no_file_names(tmp_path, change, message):
    utt = {"missing": "b", "slash": "x/y", "dots": "..x"}[change]
    write_tables(tmp_path / "in", dict(sorted({"a": "a.wav", utt: "b.wav"}.items())))
    if change == "missing":
        (tmp_path / "in" / "wav.scp").write_text("a a.wav\n")
    with pytest.raises(ValueError, match=message):
        run(tmp_path)


def make_sounds(folder, n):
    rng = np.random.default_rng(0)
    for i in range(n):
        soundfile.write(folder / f"u{i:03}.wav", 0.1 * rng.standard_normal((24000, 2)), 44100)
    write_tables(folder / "in", {f"u{i:03}": folder / f"u{i:03}.wav" for i in range(n)}, names=["wav.scp"])


@pytest.mark.parametrize("parts", [1, 2, 7, 20])
def test_parts_in_any_order_equal_one_run(tmp_path, monkeypatch, parts):
    make_sounds(tmp_path, 10)
    monkeypatch.chdir(tmp_path)
    assert dump.main(["--in_dir", "in", "--out_dir", "whole"]) == 0
    for job in reversed(range(1, parts + 1)):
        with pytest.raises(SystemExit, match="not in out yet"):
            dump.main(["--in_dir", "in", "--out_dir", "out", "--finish"])
        assert dump.main(["--in_dir", "in", "--out_dir", "out", "--nj", str(parts), "--job", str(job)]) == 0
    assert dump.main(["--in_dir", "in", "--out_dir", "out", "--finish"]) == 0
    assert {name: content.replace(b"out/", b"whole/") for name, content in contents(Path("out")).items()} == contents(Path("whole"))


def test_half_written_journals_and_other_numbers_of_parts(tmp_path, monkeypatch):
    make_sounds(tmp_path, 10)
    monkeypatch.chdir(tmp_path)
    dump.main(["--in_dir", "in", "--out_dir", "out"])
    expected = contents(Path("out"))
    lines = Path("out/done.jsonl").read_bytes().splitlines(keepends=True)
    Path("out/journal").mkdir()
    Path("out/journal/0001of0003.001.jsonl").write_bytes(b"".join(lines[::3]) + lines[1][:20])  # torn
    Path("out/done.jsonl").unlink()
    times = {file: file.stat().st_mtime_ns for file in Path("out/data").rglob("*.flac")}
    dump.main(["--in_dir", "in", "--out_dir", "out", "--nj", "2"])
    assert contents(Path("out")) == expected
    assert sum(times[file] == file.stat().st_mtime_ns for file in times) == 4  # those of the first part


def environment():
    return dict(os.environ, PYTHONPATH=str(Path(dump.__file__).parents[2]), OMP_NUM_THREADS="1")


def kill_and_finish(command, out, size, moments):
    """Start again and again, kill when the output has so many files more each time, then while it finishes; then finish."""
    for fewest in moments:
        process = subprocess.Popen([*command, out], env=environment(), start_new_session=True, stderr=subprocess.DEVNULL)
        while process.poll() is None and size() < fewest:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    killed = not Path(out, "text").exists()
    process = subprocess.Popen([*command, out], env=environment(), start_new_session=True, stderr=subprocess.DEVNULL)
    while process.poll() is None and not Path(out, "report.json").exists():  # the picture is still to come
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run([*command, out], env=environment(), check=True, stderr=subprocess.DEVNULL)
    return killed


def make_talkers(folder, n):
    """Clips with published landmarks, so that no face model is needed; the options to dump them."""
    rng, face = np.random.default_rng(0), np.random.default_rng(5).uniform((10, 10), (50, 40), (68, 2))
    (folder / "landmarks").mkdir()
    for i in range(n):
        make_clip(folder / f"u{i:03}.mp4", 15, 0.6)
        (folder / "landmarks" / f"u{i:03}.pkl").write_bytes(pickle.dumps([face + rng.normal(0, 1, (68, 2)) for _ in range(15)]))
    write_tables(folder / "in", {f"u{i:03}": folder / f"u{i:03}.mp4" for i in range(n)})
    return ["--landmarks", "precomputed:landmarks", "--in_dir", "in", "--out_dir"]


def test_killed_runs_end_like_an_undisturbed_one(tmp_path, monkeypatch):
    """Ten kills while files are being written."""
    monkeypatch.chdir(tmp_path)
    options = make_talkers(tmp_path, 24)
    moments = np.random.default_rng(1).integers(1, 70, 10)
    size = lambda: len([file for file in Path("out/data").rglob("*") if file.is_file()])  # noqa: E731
    assert kill_and_finish([sys.executable, "-m", "espnet2_avsr_llm.bin.dump", *options], "out", size, sorted(moments))
    assert dump.main([*options, "undisturbed"]) == 0
    first, second = ({name: c.replace(b"undisturbed/", b"out/") for name, c in contents(Path(f)).items()} for f in ("out", "undisturbed"))
    del first["report.png"], second["report.png"]  # its title names the folder
    assert first == second and len(first) == 24 * 3 + 11


def killed_at(replacement, arguments):
    """Run the program in a process that kills itself before its nth file takes its place; whether it came that far."""
    process = os.fork()
    if not process:
        replace, left = os.replace, iter(range(replacement - 1))

        def counted(*paths):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*paths)

        os.replace = counted
        os._exit(dump.main(arguments))
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def test_a_kill_at_any_file_of_start_run_or_finish_leaves_nothing_behind(tmp_path, monkeypatch):
    make_sounds(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    arguments = ["--in_dir", "in", "--out_dir"]
    assert dump.main([*arguments, "undisturbed"]) == 0
    expected = {name: content.replace(b"undisturbed/", b"out/") for name, content in contents(Path("undisturbed")).items()}
    moments, left = 0, set()
    while killed_at(moments + 1, [*arguments, "out"]):
        moments += 1
        left |= {name.split(".")[1] for name in os.listdir("out") if name.endswith(".tmp")}
        assert dump.main([*arguments, "out"]) == 0 and contents(Path("out")) == expected
        shutil.rmtree("out")
    assert moments >= 1 + 2 * 2 + 8 and left >= {"settings", "text", "done", "failed", "report", "spk2utt"}


def test_a_full_disk_stops_the_run_and_leaves_no_half_file(tmp_path, monkeypatch):
    """The sound has room, the crops have none; with more room, the run ends like an undisturbed one."""
    monkeypatch.chdir(tmp_path)
    options = make_talkers(tmp_path, 3)
    program = (
        "import resource, runpy\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5700, 5700))\n"
        "runpy.run_module('espnet2_avsr_llm.bin.dump', run_name='__main__')"
    )
    full = subprocess.run([sys.executable, "-c", program, *options, "out"], env=environment(), capture_output=True, text=True)
    assert full.returncode == 1 and "File too large" in full.stderr.splitlines()[-1]
    assert not [file for file in Path("out").rglob("*") if file.suffix in (".mp4", ".flac", ".npz")]
    assert dump.main([*options, "out"]) == dump.main([*options, "undisturbed"]) == 0
    assert contents(Path("out/data")) == contents(Path("undisturbed/data"))


@pytest.mark.parametrize("crop", ["auto_avsr", "avhubert"])
def test_damaged_landmarks_of_one_clip_do_not_end_the_run(tmp_path, monkeypatch, crop):
    monkeypatch.chdir(tmp_path)
    options = make_talkers(tmp_path, 3)
    damaged = np.zeros((68, 2))
    damaged[0] = 7
    Path("landmarks/u001.pkl").write_bytes(pickle.dumps([damaged] * 15))
    assert dump.main([*options, "out", "--crop", crop]) == 3 and list(table(Path("out/utt2num_frames"))) == ["u000", "u002"]
    assert "u001.mp4: found the stable face landmarks of a frame in one point" in failures(Path("out"))["u001"]


ODD = ["a b  c", "$(touch pwned)", "; touch pwned #", "it's \"quoted\"", "-rf", "é漢\u200d", "%d{}\\", "concat:x|y"]


def test_odd_file_names_reach_no_shell(tmp_path, bright, monkeypatch):
    monkeypatch.chdir(tmp_path)
    media = {f"u{i}": f"{name}.mp4" for i, name in enumerate(ODD)}
    for path in media.values():
        make_clip(tmp_path / path, level=90)
    write_tables(tmp_path / "in", media)
    assert run(tmp_path, *bright) == 0 and list(table(tmp_path / "out" / "text")) == list(media)
    assert sorted(os.listdir(tmp_path)) == sorted([*media.values(), "in", "out"])


def test_help_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from espnet2_avsr_llm.bin import dump, noise_list, roi_models\n"
        "[m.get_parser().format_help() for m in (dump, noise_list, roi_models)]\n"
        "sys.exit(', '.join({'torch', 'av', 'cv2', 'soundfile', 'tqdm'} & set(sys.modules)) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert (found.stderr.strip(), found.returncode) == ("", 0)


def test_real_clips_killed_while_they_are_written_end_the_same(tmp_path, monkeypatch):
    if not os.environ.get("AVSR_REAL_DATA"):
        pytest.skip("AVSR_REAL_DATA is not set")
    if not (models.model_dir() / models.MESH).is_file():
        pytest.skip("the face models are not fetched: python -m espnet2_avsr_llm.bin.roi_models")
    clips = sorted(Path(os.environ["AVSR_REAL_DATA"], "grid_raw").glob("*.mpg"))[:3]
    write_tables(tmp_path / "in", {clip.stem: clip for clip in clips})
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "espnet2_avsr_llm.bin.dump", "--in_dir", "in", "--out_dir"]
    size = lambda: len([file for file in Path("out").rglob("*") if file.is_file()])  # noqa: E731
    assert kill_and_finish(command, "out", size, [3, 5])  # in the workplace of the first, then among its last files
    assert dump.main([*command[3:], "undisturbed"]) == 0
    assert contents(Path("out/data")) == contents(Path("undisturbed/data"))
    assert set(table(Path("out/utt2num_frames")).values()) == {"75"}
    assert Path("out/report.png").read_bytes()[:4] == b"\x89PNG"
