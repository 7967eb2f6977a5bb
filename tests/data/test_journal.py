"""Journals of a long job: what survives a kill, and how several are read as one."""

import json

import pytest

from espnet2_avsr_llm.data.journal import Journal, read, read_all

ENTRIES = [{"utt": f"u{i}", "text": "é\u2028\n" * i} for i in range(5)]


def write(path, entries):
    journal = Journal(path)
    for entry in entries:
        journal.append(entry)
    journal.close()


@pytest.mark.parametrize("cut", [1, 7, 9000])
def test_a_torn_line_is_left_out_and_cut_off(tmp_path, cut):
    path = tmp_path / "new" / "a.jsonl"
    write(path, [*ENTRIES, {"utt": "u5", "text": "x" * 10000}])
    path.write_bytes(path.read_bytes()[:-cut])
    assert list(read(path)) == ENTRIES
    write(path, [{"utt": "u6"}])
    assert list(read(path)) == [*ENTRIES, {"utt": "u6"}]


def test_a_journal_of_nothing_but_a_torn_line(tmp_path):
    (tmp_path / "a").write_bytes(b'{"utt": "u')
    assert list(read(tmp_path / "a")) == []
    write(tmp_path / "a", ENTRIES[:1])
    assert list(read(tmp_path / "a")) == ENTRIES[:1]


def test_an_entry_is_in_the_file_when_append_returns(tmp_path):
    journal = Journal(tmp_path / "a")
    journal.append(ENTRIES[1])
    assert [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()[:1]] == [ENTRIES[1]]


def test_several_are_read_as_one_and_the_last_wins(tmp_path):
    for name, utts in {"old": "acd", "part1": "bc", "part2": "de"}.items():
        write(tmp_path / name, [{"utt": utt, "of": name} for utt in utts])
    found = {entry["utt"]: entry["of"] for entry in read_all(tmp_path / name for name in ("old", "part1", "part2"))}
    assert found == {"a": "old", "b": "part1", "c": "part1", "d": "part2", "e": "part2"} and list(found) == sorted(found)
