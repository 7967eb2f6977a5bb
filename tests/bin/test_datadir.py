"""Data directories: what is checked, repaired, dropped and combined."""

import json

import pytest

from espnet2_avsr_llm.bin import datadir
from espnet2_avsr_llm.data.tables import read_dir, read_table, rows, write_dir


@pytest.fixture
def data(tmp_path):
    """Three utterances of two speakers: of 1 s, of 0.05 s, and one without text."""
    for utt in ("s1_a", "s1_b", "s2_c"):
        (tmp_path / f"{utt}.wav").write_bytes(b"x")
    folder = tmp_path / "data"
    write_dir(
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
    for old, new in (("wav.scp", "video.scp"), ("utt2num_samples", "utt2num_frames")):
        (data / old).rename(data / new)
    (data / "utt2num_frames").write_text("s1_a 24\ns1_b 25\ns2_c 25\n")
    datadir.main(["filter", "--in_dir", str(data), "--out_dir", str(tmp_path / "out"), "--min_wav_duration", "1"])
    assert (tmp_path / "out" / "utt2num_frames").read_text() == "s1_b 25\n"


def test_filter_refuses_to_drop_everything(data, tmp_path):
    with pytest.raises(SystemExit, match="all utterances would be dropped, one because: .*empty text"):
        datadir.main(["filter", "--in_dir", str(data), "--out_dir", str(tmp_path / "out"), "--min_wav_duration", "9"])


def test_validate_lists_every_problem_with_its_line(data, caplog):
    (data / "text").write_text("s2_c x\ns1_a y\ns2_c z\n")
    (data / "utt2spk").unlink()
    (data.parent / "s1_b.wav").unlink()
    (data / "utt2num_samples").write_text("s1_a 16000\ns1_b\n\n")
    with pytest.raises(SystemExit, match="8 problems"):
        datadir.main(["validate", str(data)])
    for part in ("utt2spk is missing", "text:3: s2_c is there already in line 1", "text is not sorted", "text lacks 1 ids: s1_b"):
        assert part in caplog.text
    for part in ("wav.scp:2: s1_b: no file", "utt2num_samples:2: s1_b has no value", "utt2num_samples:3: an empty line"):
        assert part in caplog.text


@pytest.mark.parametrize("bad", ["a/b", "-a", ".a"])
def test_ids_that_cannot_be_file_names_are_problems(data, bad):
    tables = read_dir(data)
    for table in tables.values():
        table[bad] = table["s1_a"]
    write_dir(data, tables)
    assert any(f"{bad}: the id holds a slash" in problem for problem in datadir.problems(data))


@pytest.mark.parametrize("good, value", [(1, "0 -1"), (1, "2.5 3"), *((0, v) for v in ("3 2.5", "2 2", "-1 2", "0 -2", "0 nan", "0", "0 x"))])
def test_segments_that_are_none_are_problems(data, good, value):
    (data / "utt2segment").write_text(f"s1_a 0 -1\ns1_b {value}\ns2_c 0 1\n")
    expected = [] if good else [f"{data}/utt2segment:2: utt2segment of s1_b is {value!r}; expected `start end` in seconds"]
    assert [problem.partition(", 0 <=")[0] for problem in datadir.problems(data)] == expected


@pytest.mark.parametrize(
    "line, problem", [("s1 b {}", "wav.scp:2: s1: no file 'b "), ("s1_b a\nb.wav", "wav.scp:3: b.wav has no value"), ("é漢 {}", "lacks 1 ids: s1_b")]
)
def test_spaces_in_ids_and_line_ends_in_paths_are_problems(data, line, problem):
    path = data / "wav.scp"
    first, second, third = path.read_text().splitlines()
    path.write_text("\n".join([first, line.format(second.split()[1]), third]) + "\n")
    assert any(problem in found for found in datadir.problems(data)), datadir.problems(data)
    with pytest.raises(ValueError, match="different ids in line [23]"):
        list(rows(data))


@pytest.fixture
def sets(tmp_path):
    """Directories train, valid and test of two utterances each, with files and recordings of their own."""

    def write(name, **changes):
        utts = [f"{name}{i}" for i in range(2)]
        tables = {table: {utt: f"{utt}{table[4:]}" for utt in utts} for table in ("wav.scp", "text", "utt2spk", "utt2video")}
        tables["wav.scp"] = {utt: str(tmp_path / f"{utt}.wav") for utt in utts}
        for table, (old, new) in changes.items():
            tables[table.replace("_", ".")][old] = new
        for path in tables["wav.scp"].values():
            (tmp_path / path).touch()
        write_dir(tmp_path / name, tables)
        return str(tmp_path / name)

    return write


def test_sets_that_share_nothing_are_valid(sets, caplog):
    datadir.main(["validate", sets("train"), valid := sets("valid"), "--test", sets("test"), valid])  # decoding valid too is no leak
    assert "share" not in caplog.text


@pytest.mark.parametrize("what", ["recording", "file"])
def test_sharing_with_a_test_set_is_an_error_and_with_others_a_warning(sets, caplog, tmp_path, what):
    table, value = ("utt2video", "test1video") if what == "recording" else ("wav_scp", str(tmp_path / "test1.wav"))
    train, test = sets("train", **{table: ("train0", value)}), sets("test")
    if what == "recording":
        test = sets("test", utt2video=("test1", "test1video"))
    datadir.main(["validate", train, test])
    assert f"{test} and {train} share 1" in caplog.text or f"{train} and {test} share 1" in caplog.text
    with pytest.raises(SystemExit, match="1 problems"):
        datadir.main(["validate", train, "--test", test])
    assert "train0 (" in caplog.text or "test1 (" in caplog.text


def test_combine(sets, tmp_path):
    one, other = sets("train"), sets("more")
    (tmp_path / "more" / "utt2video").unlink()
    datadir.main(["combine", one, other, "--out_dir", str(tmp_path / "all")])
    assert list(read_table(tmp_path / "all" / "text")) == ["more0", "more1", "train0", "train1"]
    assert not (tmp_path / "all" / "utt2video").exists() and (tmp_path / "all" / "spk2utt").exists()
    with pytest.raises(SystemExit, match="train0 is in more than one"):
        datadir.main(["combine", one, one, "--out_dir", str(tmp_path / "twice")])
    assert not (tmp_path / "twice" / "text").exists()


def test_combine_leaves_out_recordings_of_the_test_set(sets, tmp_path, caplog):
    one, other, test = sets("train"), sets("more", utt2video=("more1", "test0video")), sets("test")
    datadir.main(["combine", one, other, "--out_dir", str(tmp_path / "all"), "--apart_from", test])
    assert list(read_table(tmp_path / "all" / "text")) == ["more0", "train0", "train1"]
    assert "left out 1 utterances" in caplog.text and "more1" in caplog.text


def test_combine_loses_no_segments(sets, tmp_path):
    one, other = sets("train"), sets("more")
    (tmp_path / "more" / "utt2segment").write_text("more0 0 1\nmore1 0 -1\n")
    with pytest.raises(SystemExit, match="some have utt2segment, others not"):
        datadir.main(["combine", one, other, "--out_dir", str(tmp_path / "all")])


def test_duplicate_ids_are_named_with_their_line(data):
    (data / "text").write_text("s1_a x\ns1_b y\ns1_a z\n")
    with pytest.raises(ValueError, match=r"text: 1 ids occur more than once: s1_a \(line 3\)"):
        read_dir(data)


def test_fix_sorts_and_intersects(data):
    (data / "text").write_text("s2_c x\ns1_a  y z \n")
    datadir.main(["fix", str(data)])
    assert (data / "text").read_text() == "s1_a y z\ns2_c x\n"
    assert set(read_table(data / "wav.scp")) == {"s1_a", "s2_c"}
    assert datadir.problems(data) == []


@pytest.fixture
def audiovisual(data):
    """The data with video of the same files; s1_a lacks sound, s1_b lacks both."""
    table = read_table(data / "wav.scp")
    frames = {"s1_a": "25", "s1_b": "0", "s2_c": "25"}
    write_dir(data, {"video.scp": {**table, "s1_b": "-"}, "wav.scp": {**table, "s1_a": "-", "s1_b": "-"}, "utt2num_frames": frames})
    write_dir(data, {"utt2num_samples": {"s1_a": "0", "s1_b": "0", "s2_c": "16000"}, "text": dict.fromkeys(table, "x")})
    return data


def test_a_dash_is_no_missing_file(audiovisual):
    assert datadir.problems(audiovisual) == [f"{audiovisual}: s1_b has neither sound nor video"]


def test_what_is_missing_has_no_duration(audiovisual, tmp_path):
    datadir.main(["filter", "--in_dir", str(audiovisual), "--out_dir", str(tmp_path / "out")])
    assert (tmp_path / "out" / "wav.scp").read_text().splitlines()[0] == "s1_a -" and len((tmp_path / "out" / "text").read_text().splitlines()) == 2
    assert json.loads((tmp_path / "out" / "dropped.jsonl").read_text()) == {"utt": "s1_b", "reason": "neither sound nor video"}
