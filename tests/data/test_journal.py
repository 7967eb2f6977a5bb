"""Journals of a long job: what survives a kill, and how several are read as one."""

import pytest

from espnet2_avsr_llm.data.journal import Journal, keep_settings, read, read_all, with_entries

ENTRIES = [{"utt": f"u{i}", "text": "é\u2028\n" * i} for i in range(5)]


def write(folder, entries, part=1):
    journal = Journal(folder, part, 9)
    for entry in entries:
        journal.append(entry)
    journal.close()


def path_of(folder):
    return folder / "journal" / "0001of0009.001.jsonl"


@pytest.mark.parametrize("cut", [1, 7, 9000])
def test_a_torn_line_is_left_out_and_cut_off(tmp_path, cut):
    write(tmp_path, [*ENTRIES, {"utt": "u5", "text": "x" * 10000}])
    path_of(tmp_path).write_bytes(path_of(tmp_path).read_bytes()[:-cut])
    assert list(read(path_of(tmp_path))) == ENTRIES
    write(tmp_path, [{"utt": "u6"}])
    assert list(read(path_of(tmp_path))) == [*ENTRIES, {"utt": "u6"}]


def test_a_line_torn_within_a_character_is_left_out(tmp_path):
    write(tmp_path, [*ENTRIES, {"utt": "u5", "text": "é"}])
    path_of(tmp_path).write_bytes(path_of(tmp_path).read_bytes()[:-4])  # the first of its two bytes stays
    assert list(read(path_of(tmp_path))) == ENTRIES


def test_a_journal_of_nothing_but_a_torn_line(tmp_path):
    write(tmp_path, ENTRIES[:1])
    path_of(tmp_path).write_bytes(b'{"utt": "u')
    assert list(read(path_of(tmp_path))) == []
    write(tmp_path, ENTRIES[:1])
    assert list(read(path_of(tmp_path))) == ENTRIES[:1]


def test_an_entry_is_in_the_file_when_append_returns(tmp_path):
    journal = Journal(tmp_path, 1, 9)
    journal.append(ENTRIES[1])
    assert list(read(path_of(tmp_path))) == ENTRIES[1:2]


def test_several_are_read_as_one_and_the_last_wins(tmp_path):
    for part, utts in enumerate(["acd", "bc", "de"], 1):
        write(tmp_path, [{"utt": utt, "of": part} for utt in utts], part)
    found = {entry["utt"]: entry["of"] for entry in read_all(sorted((tmp_path / "journal").iterdir()))}
    assert found == {"a": 1, "b": 2, "c": 2, "d": 3, "e": 3} and list(found) == sorted(found)
    known = {utt: (item, entry and entry["of"]) for utt, item, entry in with_entries(zip("Babcf", range(5)), tmp_path)}
    assert known == {"B": (0, None), "a": (1, 1), "b": (2, 2), "c": (3, 2), "f": (4, None)}


def test_what_is_done_again_wins(tmp_path):
    for parts, utts in ((2, "abc"), (1, "bd"), (2, "ab"), (2, "bc"), (2, "d")):  # parts 2: its second file begins with a, its third with b
        journal = Journal(tmp_path, 1, parts)
        for utt in utts:
            journal.append({"utt": utt, "of": (parts, utts)})
        journal.close()
    found = {utt: tuple(entry["of"]) for utt, _, entry in with_entries(zip("abcd", "abcd"), tmp_path)}
    assert found == {"a": (2, "ab"), "b": (2, "bc"), "c": (2, "bc"), "d": (2, "d")}
    assert len(list((tmp_path / "journal").iterdir())) == 4


def test_settings_are_written_once_and_kept(tmp_path):
    keep_settings(tmp_path, {"crop": "a"})
    before = (tmp_path / "settings.json").stat()
    keep_settings(tmp_path, {"crop": "a"})
    after = (tmp_path / "settings.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    with pytest.raises(SystemExit, match="made with {'crop': 'a'}, asked for is {'crop': 'b'}"):
        keep_settings(tmp_path, {"crop": "b"})
