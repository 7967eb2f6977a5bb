"""Data directories: what is checked, repaired and dropped."""

import json

import pytest

from espnet2_avsr_llm.bin import datadir


@pytest.fixture
def data(tmp_path):
    """Three utterances of two speakers: of 1 s, of 0.05 s, and one without text."""
    for utt in ("s1_a", "s1_b", "s2_c"):
        (tmp_path / f"{utt}.wav").write_bytes(b"x")
    folder = tmp_path / "data"
    datadir.write_dir(
        folder,
        {
            "wav.scp": {utt: str(tmp_path / f"{utt}.wav") for utt in ("s2_c", "s1_a", "s1_b")},
            "text": {"s1_a": "bin blue", "s1_b": "set white", "s2_c": ""},
            "utt2spk": {"s1_a": "s1", "s1_b": "s1", "s2_c": "s2"},
            "utt2num_samples": {"s1_a": "16000", "s1_b": "800", "s2_c": "16000"},
        },
    )
    return folder


def test_written_tables_are_sorted_and_speakers_inverted(data):
    assert [line.split()[0] for line in (data / "wav.scp").read_text().splitlines()] == ["s1_a", "s1_b", "s2_c"]
    assert (data / "spk2utt").read_text() == "s1 s1_a s1_b\ns2 s2_c\n"
    assert datadir.problems(data) == []


def test_filter_keeps_the_usable_and_says_why_not_the_others(data, tmp_path):
    datadir.main(["filter", "--in_dir", str(data), "--out_dir", str(tmp_path / "out")])
    assert (tmp_path / "out" / "text").read_text() == "s1_a bin blue\n"
    assert (tmp_path / "out" / "spk2utt").read_text() == "s1 s1_a\n"
    rows = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert rows == [
        {"utt": "s1_b", "reason": "0.05 s by utt2num_samples is outside 0.1 to 20 s"},
        {"utt": "s2_c", "reason": "empty text"},
    ]


def test_filter_uses_frames_where_there_is_no_sound(data, tmp_path):
    (data / "utt2num_samples").unlink()
    (data / "utt2num_frames").write_text("s1_a 24\ns1_b 25\ns2_c 25\n")
    datadir.main(["filter", "--in_dir", str(data), "--out_dir", str(tmp_path / "out"), "--min_wav_duration", "1"])
    assert (tmp_path / "out" / "utt2num_frames").read_text() == "s1_b 25\n"


def test_filter_refuses_to_drop_everything(data, tmp_path):
    with pytest.raises(SystemExit, match="all 3 utterances would be dropped"):
        datadir.main(["filter", "--in_dir", str(data), "--out_dir", str(tmp_path / "out"), "--min_wav_duration", "9"])


def test_validate_lists_every_problem(data, caplog):
    (data / "text").write_text("s2_c x\ns1_a y\n")
    (data / "utt2spk").unlink()
    (data.parent / "s1_b.wav").unlink()
    with pytest.raises(SystemExit, match="4 problems"):
        datadir.main(["validate", str(data)])
    for part in ("utt2spk is missing", "text is not sorted", "text lacks 1 of 3 ids: s1_b", "wav.scp: s1_b: no file"):
        assert part in caplog.text


@pytest.mark.parametrize("bad", ["a/b", "-a", ".a"])
def test_ids_that_cannot_be_file_names_are_problems(data, bad):
    tables = datadir.read_dir(data)
    for table in tables.values():
        table[bad] = table["s1_a"]
    datadir.write_dir(data, tables)
    assert any(repr(bad) in problem for problem in datadir.problems(data))


def test_duplicate_ids_are_named_with_their_line(data):
    (data / "text").write_text("s1_a x\ns1_b y\ns1_a z\n")
    with pytest.raises(ValueError, match=r"text: 1 ids occur more than once: s1_a \(line 3\)"):
        datadir.read_dir(data)


def test_fix_sorts_and_intersects(data):
    (data / "text").write_text("s2_c x\ns1_a  y z \n")
    datadir.main(["fix", str(data)])
    assert (data / "text").read_text() == "s1_a y z\ns2_c x\n"
    assert set(datadir.read_table(data / "wav.scp")) == {"s1_a", "s2_c"}
    assert datadir.problems(data) == []


@pytest.fixture
def audiovisual(data):
    """The data with video of the same files; s1_a lacks sound, s1_b lacks both."""
    table = datadir.read_table(data / "wav.scp")
    frames = {"s1_a": "25", "s1_b": "0", "s2_c": "25"}
    datadir.write_dir(data, {"video.scp": {**table, "s1_b": "-"}, "wav.scp": {**table, "s1_a": "-", "s1_b": "-"}, "utt2num_frames": frames})
    datadir.write_dir(data, {"utt2num_samples": {"s1_a": "0", "s1_b": "0", "s2_c": "16000"}, "text": dict.fromkeys(table, "x")})
    return data


def test_a_dash_is_no_missing_file(audiovisual):
    assert datadir.problems(audiovisual) == [f"{audiovisual}: s1_b has neither sound nor video"]


def test_what_is_missing_has_no_duration(audiovisual, tmp_path):
    datadir.main(["filter", "--in_dir", str(audiovisual), "--out_dir", str(tmp_path / "out")])
    assert (tmp_path / "out" / "wav.scp").read_text().splitlines()[0] == "s1_a -" and len((tmp_path / "out" / "text").read_text().splitlines()) == 2
    assert json.loads((tmp_path / "out" / "dropped.jsonl").read_text()) == {"utt": "s1_b", "reason": "neither sound nor video"}
