"""The report over a dump: counts, histograms, contact sheet."""

import json

import numpy as np

from espnet2_avsr_llm.data.media import write_roi
from espnet2_avsr_llm.data.roi.report import Report, contact_sheet


def entry(utt, **more):
    return {"utt": utt, "samples": 16000, "frames": 25, "without_face": 0, "black": 0, "faces": 1, "scale": 1.0, "degrees": 0.0, **more}


def test_counts_and_histograms():
    report = Report()
    report.add(entry("a", scale=1.2, without_face=3, black=2, notes=["sound cut to the video"]), "a")
    report.add(entry("b", faces=2, scale=0.6, degrees=-12.0), "b")
    report.add(entry("c", scale=100.0, degrees=80.0), "c")  # beyond the axes: in the last bins
    report.add({"utt": "d", "reason": "broken"}, "d")
    report.add({"utt": "e", "samples": 16000, "frames": 0, "notes": ["no face"]}, "e")
    found = report.summary()
    assert (found["utterances"], found["failed"], found["frames"], found["frames_without_face"], found["frames_left_black"]) == (4, 1, 75, 3, 2)
    assert found["utterances_with_several_faces"] == 1 and found["utterances_by_note"] == {"no face": 1, "sound cut to the video": 1}
    for name, values in (("scale_histogram", (1.2, 0.6, 8.0)), ("rotation_histogram", (0.0, -12.0, 45.0))):
        edges, counts = found[name]["edges"], found[name]["utterances"]
        expected = np.histogram(values, [*edges[:-1], edges[-1] + 0.01])[0]
        assert counts == expected.tolist() and sum(counts) == 3


def test_the_sheet_shows_middle_frames_with_a_cross(tmp_path):
    files = []
    for i in range(14):
        frames = np.full((5, 96, 96), 40, np.uint8)
        frames[2] = 100 + 10 * i
        write_roi(tmp_path / f"{i}.mp4", frames)
        files.append(str(tmp_path / f"{i}.mp4"))
    sheet = contact_sheet(files)
    assert sheet.shape == (2 * 96, 12 * 96)
    for i in (0, 11, 12, 13):
        patch = sheet[96 * (i // 12) :, 96 * (i % 12) :][:96, :96]
        assert abs(int(patch[20, 20]) - (100 + 10 * i)) <= 2 and (patch[48, 44:53] == 255).all() and (patch[44:53, 48] == 255).all()
    assert (sheet[96:, 2 * 96 :] == 0).all()


def test_the_sheet_is_a_random_choice_that_repeats(tmp_path):
    write_roi(tmp_path / "x.mp4", np.full((3, 96, 96), 90, np.uint8))
    pictures = []
    for order in (range(100), reversed(range(100))):
        report = Report()
        for i in order:
            report.add(entry(f"u{i:02}"), str(tmp_path / "x"))
        report.write(tmp_path)
        pictures.append((tmp_path / "report.png").read_bytes())
        chosen = {draw for draw, _ in report._chosen}
    assert pictures[0] == pictures[1] and pictures[0][:4] == b"\x89PNG" and len(chosen) == 72
    assert json.loads((tmp_path / "report.json").read_text())["utterances"] == 100


def test_sound_alone_has_no_sheet(tmp_path):
    report = Report()
    report.add({"utt": "a", "samples": 5, "frames": 0}, "a")
    report.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
