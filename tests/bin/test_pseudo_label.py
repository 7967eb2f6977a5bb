"""Transcribing a data directory: segments, parts, what is left out, killed runs; a stand-in for Whisper says how long it hears."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from espnet2_avsr_llm.bin import pseudo_label
from espnet2_avsr_llm.data import transcriber
from espnet2_avsr_llm.data.tables import read_dir, write_dir


@pytest.fixture
def heard(monkeypatch):
    """Lengths of the batches that were transcribed, in seconds; 3 s are another language, 5 s kill the run."""

    class Batches(list):
        loaded = 0

    batches = Batches()

    class Stub:
        def __init__(self, source, revision, language, device):
            assert (source, revision, language, device) == ("whisper", None, "en", "cpu")
            batches.loaded += 1

        def __call__(self, waves):
            seconds = [len(wave) / 16000 for wave in waves]
            if 5 in seconds:
                raise KeyboardInterrupt
            batches.append(seconds)
            return [(f"{s:g} seconds", "another language: de" if s == 3 else None) for s in seconds]

    monkeypatch.setattr(transcriber, "Transcriber", Stub)
    return batches


@pytest.fixture
def data(tmp_path):
    """Parts of a file of 10 s, one utterance without sound and one of a damaged file; video for all."""
    soundfile.write(tmp_path / "a.wav", np.zeros(160000), 16000)
    (tmp_path / "bad.wav").write_text("nothing")
    segments = {"s_a": "0 1", "s_b": "1 3.4", "s_c": "2 5", "s_d": "6 -1", "s_e": "0 -1", "s_f": "0 -1"}
    files = dict.fromkeys(segments, str(tmp_path / "a.wav")) | {"s_e": "-", "s_f": str(tmp_path / "bad.wav")}
    empty, other = dict.fromkeys(segments, ""), dict.fromkeys(segments, "s")
    write_dir(tmp_path / "in", {"wav.scp": files, "video.scp": other, "text": empty, "utt2spk": other, "utt2segment": segments})
    return tmp_path / "in"


def run(data, *options):
    out = data.parent / "out"
    pseudo_label.main(["--in_dirs", str(data), "--out_dirs", str(out), "--whisper", "whisper", "--batch_size", "2", *map(str, options)])
    return out


def check(data, out):
    tables = read_dir(out)
    assert tables["text"] == {"s_a": "1 seconds", "s_b": "2.4 seconds", "s_d": "4 seconds"}
    assert tables["utt2segment"] == {"s_a": "0 1", "s_b": "1 3.4", "s_d": "6 -1"} and set(tables) == set(read_dir(data))
    dropped = {row["what"]: row["reason"] for row in map(json.loads, (out / "dropped.jsonl").read_text().splitlines())}
    assert dropped.pop("s_f").startswith("not readable: ")
    assert dropped == {"s_c": "another language: de", "s_e": "no sound"}


def test_whole(data, heard):
    check(data, run(data))
    assert heard == [[1, 2.4], [3, 4]]


def test_several_directories_by_one_whisper(data, heard, tmp_path):
    shutil.copytree(data, tmp_path / "more")
    with pytest.raises(SystemExit):
        run(data, "--in_dirs", data, tmp_path / "more")
    run(data, "--in_dirs", data, tmp_path / "more", "--out_dirs", tmp_path / "out", tmp_path / "out2")
    check(data, tmp_path / "out")
    check(data, tmp_path / "out2")
    assert heard == [[1, 2.4], [3, 4]] * 2 and heard.loaded == 1


def test_parts_of_a_job_array(data, heard):
    for job in (2, 1):
        with pytest.raises(SystemExit, match="are not in .* yet"):
            run(data, "--finish")
        out = run(data, "--nj", 2, "--job", job)
    check(data, run(data, "--finish"))
    assert heard == [[2.4, 4], [1, 3]] and not (out / "journal").exists()


def test_a_killed_run_goes_on_where_it_was(data, heard):
    (data / "utt2segment").write_text((data / "utt2segment").read_text().replace("s_d 6 -1", "s_d 5 10"))
    with pytest.raises(KeyboardInterrupt):
        run(data)
    (data / "utt2segment").write_text((data / "utt2segment").read_text().replace("s_d 5 10", "s_d 6 -1"))
    check(data, run(data))
    assert heard == [[1, 2.4], [3, 4]]
    check(data, run(data))
    assert len(heard) == 2  # all was there


def change(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def test_changed_sources_are_transcribed_again(data, heard, tmp_path):
    out = run(data)
    change(data / "utt2segment", "s_b 1 3.4", "s_b 1 5.4")
    soundfile.write(tmp_path / "b.wav", np.zeros(32000), 16000)
    change(data / "wav.scp", f"s_d {tmp_path}/a.wav", f"s_d {tmp_path}/b.wav")
    change(data / "utt2segment", "s_d 6 -1", "s_d 0 -1")
    run(data)
    assert heard[2:] == [[4.4], [2]] and read_dir(out)["text"] == {"s_a": "1 seconds", "s_b": "4.4 seconds", "s_d": "2 seconds"}


def test_files_that_were_not_readable_are_tried_again(data, heard, tmp_path):
    run(data)
    soundfile.write(tmp_path / "bad.wav", np.zeros(32000), 16000)
    out = run(data)
    assert heard[2:] == [[2]] and read_dir(out)["text"]["s_f"] == "2 seconds"


@pytest.mark.parametrize("other", [("--language", "de"), ("--whisper", "larger"), ("--revision", "v2")])
def test_transcripts_of_other_settings_are_not_mixed_in(data, heard, other):
    out = run(data)
    before = (out / "text").read_bytes()
    with pytest.raises(SystemExit, match=f"out was made with .*'en'.*, asked for is .*'{other[1]}'"):
        run(data, *other)
    assert (out / "text").read_bytes() == before
