"""LRS3 and LRS2: transcripts, cutting, sets; random layouts against an oracle that knows what was generated."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from espnet2_avsr_llm.bin import prepare
from espnet2_avsr_llm.data.corpora import drawn, lrs
from espnet2_avsr_llm.data.corpora.lrs import Segment, Word
from espnet2_avsr_llm.data.tables import read_dir
from layouts import FACES, make_lrs2, make_lrs3, write_clip

def prepared(root, out, *options):
    prepare.main([options[0] if options else "lrs3", str(root), "--out_dir", str(out), *map(str, options[1:])])
    found = {}
    for folder in out.iterdir():
        dropped = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
        found[folder.name] = read_dir(folder), Counter(row["reason"].partition(":")[0] for row in dropped)
    return found


def test_transcripts_with_and_without_tables(tmp_path):
    write_clip(tmp_path / "a", "IT'S  SO", [("IT'S", 0.1, 0.3), ("SO", 0.3, 0.5)], FACES)
    assert lrs.read_transcript(tmp_path / "a.txt") == ("IT'S  SO", [Word("IT'S", 0.1, 0.3), Word("SO", 0.3, 0.5)])
    write_clip(tmp_path / "b", "AND: SO", None)
    assert lrs.read_transcript(tmp_path / "b.txt") == ("AND: SO", [])


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "line 1 is ''"),
        ("WORDS\n", "expected 'Text:  WORDS'"),
        ("Text:  A\nConf:  5\n\nWORD START END ASDSCORE\nA 0.1\n", "line 5 is 'A 0.1'"),
        ("Text:  A\nConf:  5\n\nWORD START END ASDSCORE\nA 0.1 x 3\n", "line 5 is 'A 0.1 x 3'"),
        ("Text:  A\n\nWORD START END ASDSCORE\nA 0.3 0.2 3\n", "the times of 'A' are out of order"),
        ("Text:  A\n\nWORD START END ASDSCORE\nA 0.3 0.4 3\nB 0.1 0.5 3\n", "line 5, the times of 'B'"),
        ("Text:  A\n\nWORD START END ASDSCORE\nA nan 0.4 3\n", "out of order"),
        ("Text:  A\n\nWORD START END ASDSCORE\nA 0.1 inf 3\n", "out of order"),
    ],
)
def test_damaged_transcripts_are_named(tmp_path, content, message):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        lrs.read_transcript(tmp_path / "a.txt")


def test_cutting_as_auto_avsr():
    words = [Word(f"W{i}", 2.0 * i, 2.0 * i + 1.5) for i in range(12)]
    assert lrs.cut("ALL", words[:8], 16) == [Segment("ALL", 0.0, -1.0)]  # ends at 15.5 s
    assert lrs.cut("ALL", words, 16) == [Segment("W0 W1 W2 W3 W4 W5 W6 W7", 0.0, 15.5), Segment("W8 W9 W10 W11", 16.0, 23.5)]
    assert len(lrs.cut("ALL", [Word("A", 0.0, 15.99)], 16)) == 1 and len(lrs.cut("ALL", [Word("A", 0.0, 1.0), Word("B", 2.0, 16.0)], 16)) == 2
    assert lrs.cut("ALL", [], 16) == [Segment("ALL", 0.0, -1.0)]
    long = [Word("A", 1.0, 40.0), Word("B", 41.0, 42.0)]  # a word of 39 s
    assert lrs.cut("ALL", long, 16) == [Segment("A", 0.0, 40.0), Segment("B", 41.0, 42.0)]


WORDS = st.lists(
    st.tuples(st.sampled_from(["IT'S", "THAT", "SIMPLE", "{LG}", "OK", "WHY"]), st.integers(0, 300), st.integers(4, 900)), min_size=1, max_size=12
)
CLIP = st.tuples(WORDS, st.sampled_from(["good"] * 6 + ["no txt", "no mp4", "no table", "empty", "broken"]))
VIDEO = st.dictionaries(st.integers(0, 99), CLIP, min_size=1, max_size=4)
NAMES = st.text("abXY01-_", min_size=3, max_size=5)


def oracle(clip, partition, longest):
    """What is to come of a generated clip: its segments as (words, start, end), or why it is left out."""
    gaps, state = clip
    time, words = 0, []
    for word, pause, length in gaps:
        words.append((word, time + pause, time + pause + length))  # in hundredths of a second
        time += pause + length
    if state in ("no txt", "no mp4"):
        return state + (" file" if "file" not in state else ""), words
    if state == "broken":
        return "no transcript", words
    if state == "no table" and partition == "pretrain":
        return "no word table", words
    spoken = [word.lower() for word, *_ in words if word != "{LG}"] if state != "empty" else []
    if state in ("no table", "empty") or words[-1][2] < 100 * longest:
        return [(spoken, 0, -100)], words
    segments, rest, start = [], words, 0
    while rest:
        n = next((i for i, word in enumerate(rest) if i and word[2] >= start + 100 * longest), len(rest))
        segments.append(([word.lower() for word, *_ in rest[:n] if word != "{LG}"], start, rest[n - 1][2]))
        rest, start = rest[n:], rest[n][1] if n < len(rest) else 0
    return segments, words


def valid_video(videos, expected, reasons, found):
    """The one video that is drawn for validation out of at most 20 clips, of which 3.75 % are less than one.

    Where nothing of it can be used there is no such set; then it is told by what is missing from the others.
    """
    if "valid" in found:
        (video,) = set(found["valid"][0]["utt2video"].values())
        return video
    unusable = sorted(videos.keys() - {row[3] for row in expected.values()})
    assert unusable, "no validation set, though every video has a usable clip"
    if "train_433h" not in found:
        return unusable[0]
    lost = lambda video: Counter(reason for other, reason in reasons["trainval"] if other != video) + Counter(r for _, r in reasons["pretrain"])  # noqa: E731
    (video, *_) = (video for video in unusable if lost(video) == found["train_433h"][1])
    return video


@settings(max_examples=60)
@given(layout=st.fixed_dictionaries({name: st.dictionaries(NAMES, VIDEO, min_size=1, max_size=5) for name in ("pretrain", "trainval", "test")}))
def test_random_layouts_of_lrs3(layout, tmp_path_factory):
    root, out = tmp_path_factory.mktemp("lrs3"), tmp_path_factory.mktemp("data")
    expected = {name: {} for name in layout}  # utterance: (text, start, end, video)
    reasons = {name: [] for name in layout}
    for partition, videos in layout.items():
        longest = 16 if partition == "pretrain" else 24
        for video, clips in videos.items():
            for number, clip in clips.items():
                segments, words = oracle(clip, partition, longest)
                text = "" if clip[1] == "empty" else " ".join(w for w, *_ in words)
                table = None if clip[1] in ("no table", "empty") and partition != "pretrain" or clip[1] == "no table" else words
                if clip[1] == "empty" and partition == "pretrain":
                    table, segments = [("{LG}", 0, 50)], [([], 0, -100)]
                stem = root / partition / video / f"{number:05}"
                table = table and [(w, a / 100, b / 100) for w, a, b in table]
                write_clip(stem, None if clip[1] == "no txt" else text, table, FACES, clip[1] != "no mp4")
                if clip[1] == "broken":
                    stem.with_suffix(".txt").write_text("nothing")
                if isinstance(segments, str):
                    reasons[partition].append((video, segments))
                    continue
                for k, (spoken, start, end) in enumerate(segments):
                    utt = f"lrs3_{video}_{partition}_{number:05}" + (f"_{k:02}" if len(segments) > 1 else "")
                    if not spoken:
                        reasons[partition].append((video, "empty text"))
                    elif 0 <= end < start + 4:
                        reasons[partition].append((video, "shorter than a frame"))
                    else:
                        expected[partition][utt] = " ".join(spoken), start, end, video
    try:
        found = prepared(root, out)
    except SystemExit as error:
        assert "found no utterance" in str(error) and not any(expected.values())
        return
    valid = valid_video(layout["trainval"], expected["trainval"], reasons, found)
    in_valid = {utt: row for utt, row in expected["trainval"].items() if row[3] == valid}
    rest = {utt: row for utt, row in expected["trainval"].items() if row[3] != valid}
    sets = {"train_30h": rest, "train_433h": {**rest, **expected["pretrain"]}, "valid": in_valid, "test": expected["test"]}
    assert set(found) == {name for name, rows in sets.items() if rows}
    for name, rows in sets.items():
        if not rows:
            continue
        tables, dropped = found[name]
        assert tables["text"] == {utt: text for utt, (text, *_) in rows.items()}
        times = {utt: tuple(round(100 * float(value)) for value in span.split()) for utt, span in tables["utt2segment"].items()}
        assert times == {utt: (start, end) for utt, (_, start, end, _) in rows.items()}
        assert sum(b - a for a, b in times.values() if b >= 0) == sum(b - a for _, a, b, _ in rows.values() if b >= 0)
        assert tables["utt2video"] == {utt: video for utt, (*_, video) in rows.items()}
        assert tables["utt2spk"] == {utt: f"lrs3_{video}" for utt, (*_, video) in rows.items()}
        assert tables["wav.scp"] == tables["video.scp"]
        assert all(path.endswith(".mp4") and path.split("/")[-2] == rows[utt][3] for utt, path in tables["wav.scp"].items())
        lost = {True: [], False: []}  # from trainval, by whether the video is the one for validation
        for video, reason in reasons["trainval"]:
            lost[video == valid].append(reason)
        other = {name: [reason for _, reason in rows] for name, rows in reasons.items()}
        reasons_of = {"train_30h": lost[False], "train_433h": lost[False] + other["pretrain"], "valid": lost[True], "test": other["test"]}
        assert dropped == Counter(reasons_of[name])


def test_validation_is_drawn_by_videos_and_no_part_of_test(tmp_path):
    make_lrs3(tmp_path / "lrs3")
    found = prepared(tmp_path / "lrs3", tmp_path / "data")
    videos = {name: set(tables["utt2video"].values()) for name, (tables, _) in found.items()}
    assert {name: len(tables["text"]) for name, (tables, _) in found.items()} == {"train_30h": 27, "train_433h": 36, "valid": 3, "test": 6}
    assert not videos["valid"] & videos["train_30h"] and not videos["test"] & (videos["valid"] | videos["train_433h"])
    again = prepared(tmp_path / "lrs3", tmp_path / "again")
    assert {name: tables for name, (tables, _) in again.items()} == {name: tables for name, (tables, _) in found.items()}


def test_at_most_1200_utterances_are_drawn():
    videos = [f"v{i // 80}" for i in range(80000)]
    chosen = drawn(videos)
    assert len(drawn(videos[:4000:20])) == 2  # 8 of 200 clips, by fours
    assert len(chosen) == 15 and drawn(list(reversed(videos))) == chosen != drawn(videos[:40000])


def test_validation_of_a_list(tmp_path):
    make_lrs3(tmp_path / "lrs3")
    (tmp_path / "valid.id").write_text("trainval/a/00001\ntrainval/b/00002\n")
    found = prepared(tmp_path / "lrs3", tmp_path / "data", "lrs3", "--valid_list", tmp_path / "valid.id")
    assert sorted(found["valid"][0]["text"]) == ["lrs3_a_trainval_00001", "lrs3_b_trainval_00002"] and len(found["train_30h"][0]["text"]) == 28
    (tmp_path / "valid.id").write_text("trainval/a/00001\ntrainval/b/99999\n")
    with pytest.raises(SystemExit, match="1 of its 2 clips are not in trainval, such as .*b/99999"):
        prepared(tmp_path / "lrs3", tmp_path / "data", "lrs3", "--valid_list", tmp_path / "valid.id")


def test_tables_hold_for_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(make_lrs3(tmp_path / "lrs3"))
    tables, _ = prepared(Path("."), tmp_path / "data")["test"]
    assert tables["wav.scp"]["lrs3_y_test_00000"] == str(tmp_path / "lrs3/test/y/00000.mp4")


def test_a_corpus_elsewhere_is_named(tmp_path):
    with pytest.raises(SystemExit, match="no folder .*its README says how to obtain it"):
        prepared(tmp_path / "nowhere", tmp_path / "data")
    (tmp_path / "lrs3").mkdir()
    with pytest.raises(SystemExit, match="no clips in trainval, test; expected .*/trainval/<recording>/<clip>.mp4"):
        prepared(tmp_path / "lrs3", tmp_path / "data")


@pytest.mark.parametrize("root, lists", [("mvlrs_v1", "."), ("mvlrs_v1", "mvlrs_v1"), (".", ".")])
def test_lrs2_with_its_lists_in_either_place(tmp_path, root, lists):
    make_lrs2(tmp_path / "mvlrs_v1", tmp_path / lists)
    found = prepared(tmp_path / root, tmp_path / "data", "lrs2")
    assert sorted(found["train_28h"][0]["text"].items()) == [("lrs2_1_main_a", "words of 1"), ("lrs2_1_main_b", "words of 1")]
    assert sorted(found["train_223h"][0]["text"]) == ["lrs2_1_main_a", "lrs2_1_main_b", *(f"lrs2_5_pretrain_a_0{k}" for k in range(3)), "lrs2_6_pretrain_a"]
    assert sorted(found["test"][0]["text"]) == ["lrs2_3_main_a", "lrs2_4_main_a"] and found["valid"][1] == {"no mp4 file": 1}
    (tmp_path / lists / "val.txt").unlink()
    with pytest.raises(SystemExit, match="no list val.txt"):
        prepared(tmp_path / root, tmp_path / "again", "lrs2")
