"""GRID in its two layouts and three protocols."""

from collections import Counter
from pathlib import Path

import pytest

from espnet2_avsr_llm.bin import prepare
from espnet2_avsr_llm.data.corpora.grid import sentence
from espnet2_avsr_llm.data.tables import read_dir

LIST = Path(__file__).parents[3] / "egs2/grid/avsr_llm1/local/s1.list"


def names(n):
    """The first n file names of sentences, in the order of the alphabet."""
    digits, adverbs = "123456789z", "anps"
    return [f"bb{'abiw'[i % 4]}{'abcdefghij'[i // 4 % 10]}{digits[i // 40 % 10]}{adverbs[i // 400 % 4]}" for i in range(n)]


def prepared(root, out, *options):
    prepare.main(["grid", str(root), "--out_dir", str(out), *map(str, options)])
    return {folder.name: read_dir(folder) for folder in out.iterdir()}


def zenodo(root, speakers, n=3):
    for speaker in speakers:
        (root / speaker).mkdir(parents=True)
        for name in names(n):
            (root / speaker / f"{name}.mpg").touch()
    (root / "alignments" / "s1").mkdir(parents=True)  # not a speaker
    (root / "s1.zip").touch()
    return root


def test_sentences_of_names():
    assert sentence("bbaf2n") == "bin blue at f two now" and sentence("pwizzp") == "place white in z zero please"
    for wrong in ("bbaf2", "bbaf2nn", "bbaw2n", "xbaf2n", "bbaf2x", ""):  # w is no letter of GRID
        assert sentence(wrong) is None


def test_unseen_speakers(tmp_path):
    found = prepared(zenodo(tmp_path / "grid", [f"s{i}" for i in (1, 2, 3, 4, 5, 20, 22, 34)]), tmp_path / "data")
    speakers = {dset: sorted(set(tables["utt2spk"].values())) for dset, tables in found.items()}
    assert speakers == {"test": ["s1", "s2", "s20", "s22"], "valid": ["s3", "s4"], "train": ["s34", "s5"]}
    assert found["train"]["text"]["s5_bbba1a"] == "bin blue by a one again"
    assert found["train"]["wav.scp"]["s5_bbba1a"] == str(tmp_path / "grid/s5/bbba1a.mpg") == found["train"]["video.scp"]["s5_bbba1a"]


def test_overlapped_speakers(tmp_path):
    found = prepared(zenodo(tmp_path / "grid", ["s1", "s5"], 300), tmp_path / "data", "--split", "overlapped")
    sizes = {dset: Counter(tables["utt2spk"].values()) for dset, tables in found.items()}
    assert sizes == {"test": {"s1": 255, "s5": 255}, "valid": {"s1": 20, "s5": 20}, "train": {"s1": 25, "s5": 25}}


def flat(root, n):
    root.mkdir()
    for name in names(n):
        (root / f"{name}.mp4").touch()
    (root / "text").write_text("".join(f"{name} {sentence(name)}\n" for name in names(n)))
    return root


def test_one_speaker_by_a_list(tmp_path):
    utts = [f"s1_{name}" for name in names(5)]
    (tmp_path / "list").write_text(f"{utts[0]} train\n{utts[2]} test\ns1_pwizzp train\n")
    found = prepared(flat(tmp_path / "grid_s1", 5), tmp_path / "data", "--split", tmp_path / "list")
    assert {dset: list(tables["text"]) for dset, tables in found.items()} == {"train": [utts[0]], "test": [utts[2]]}
    assert "s1_pwizzp" in (tmp_path / "data/train/dropped.jsonl").read_text()


def test_other_files_and_folders_are_named(tmp_path):
    root = flat(tmp_path / "grid_s1", 3)
    (root / "oops.mp4").touch()
    prepared(root, tmp_path / "data")
    assert "spells no sentence" in (tmp_path / "data/test/dropped.jsonl").read_text()
    with pytest.raises(SystemExit, match="expected .*/s1/bbaf2n.mpg"):
        prepared(flat(tmp_path / "clips", 3), tmp_path / "again")
    with pytest.raises(SystemExit, match="no split absent: expected unseen, overlapped, or a file"):
        prepared(root, tmp_path / "again", "--split", "absent")


def test_the_committed_list():
    rows = [line.split() for line in LIST.read_text().splitlines()]
    assert Counter(dset for _, dset in rows) == {"train": 700, "valid": 50, "test": 50}
    assert len({utt for utt, _ in rows}) == 800 and all(sentence(utt.removeprefix("s1_")) for utt, _ in rows)
    words = {dset: {w for utt, of in rows if of == dset for w in sentence(utt[3:]).split()} for dset in ("train", "test")}
    assert words["test"] <= words["train"] and len(words["train"]) == 51
