"""Mean and deviation over seeds, from the folders of experiments."""

import json

import pytest

from espnet2_avsr_llm.bin import compare
from espnet2_avsr_llm.scoring.compare import comparison
from espnet2_avsr_llm.scoring.files import score_condition
from espnet2_avsr_llm.scoring.plot import plot_wer_by_tokens

WORDS = [str(i) for i in range(10)]


def score(exp, pass_, errors, condition="clean"):
    """Ten words, so many of them wrong."""
    where = exp / "greedy" / "test" / pass_ / condition
    score_condition({"u": " ".join(WORDS)}, {"u": " ".join(["x"] * errors + WORDS[errors:])}, where)
    (where / "log.json").write_text(json.dumps({"llm_tokens": 30, "tflops": 0.1, "speech_seconds": 3.0, "seconds": 1.0}))


@pytest.fixture
def expdir(tmp_path):
    """A system of two models, and one of one that does both rates; two seeds."""
    (tmp_path / "stats").mkdir()
    for seed, errors in ((1, 1), (2, 3)):
        score(tmp_path / f"separate.1_seed{seed}", "asr_audio4", errors)
        score(tmp_path / f"separate.2_seed{seed}", "asr_audio16", 4)
        score(tmp_path / f"elastic.1_seed{seed}", "asr_audio4", 2)
        score(tmp_path / f"elastic.1_seed{seed}", "asr_audio16", errors)
        score(tmp_path / f"elastic.1_seed{seed}", "vsr_video2", 5)
    score(tmp_path / "elastic.1_seed1", "asr_audio4", 6, "babble_0dB")
    return tmp_path


def test_table(expdir, capsys):
    compare.main([str(expdir)])
    clean, noise = capsys.readouterr().out.rstrip().split("### ")[1:]
    assert clean.strip().splitlines() == [
        "WER (%): test, clean, greedy",
        "",
        "|system|seeds|asr_audio4|asr_audio16|mean asr|vsr_video2|mean vsr|",
        "|---|---|---|---|---|---|---|",
        "|elastic|2|20.0 ± 0.0|20.0 ± 14.1|20.0 ± 7.1|50.0 ± 0.0|50.0 ± 0.0|",
        "|separate|2|20.0 ± 14.1|40.0 ± 0.0|30.0 ± 7.1|-|-|",
    ]
    assert noise.strip().splitlines()[2:] == ["|system|seeds|asr_audio4|mean asr|", "|---|---|---|---|", "|elastic|1|60.0|60.0|"]


def test_table_and_picture_of_all_are_left_in_the_folder(expdir, capsys):
    """Whole, whatever a training left there that ended beside others."""
    (expdir / "wer.txt").write_text("elastic.1_seed1 alone\n")
    compare.main([str(expdir)])
    rows = (expdir / "wer.txt").read_text().splitlines()
    assert {row.split()[0] for row in rows[2:]} == {exp.name for exp in expdir.glob("*_seed*")}
    assert (expdir / "wer_by_tokens.png").read_bytes().endswith(b"IEND\xaeB`\x82")
    assert not list(expdir.glob(".*"))


def test_unfinished_seeds_count_for_none_of_a_systems_passes(expdir):
    score(expdir / "separate.1_seed3", "asr_audio4", 9)
    assert "|separate|2|20.0 ± 14.1|" in comparison(sorted(expdir.glob("*_seed*")))


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a folder SYSTEM.NUMBER_seedN"):
        comparison([tmp_path / "llama_avsr_asr"])


def test_plot_draws_systems_not_seeds(expdir, monkeypatch):
    drawn = {}
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda self, x, y, label, **_: drawn.setdefault(label, []).append(list(zip(x, y))))
    plot_wer_by_tokens(sorted(expdir.glob("*_seed*")), expdir / "wer.png")
    assert drawn == {"elastic": [[(10.0, 20.0), (10.0, 20.0)], [(10.0, 50.0)]], "separate": [[(10.0, 20.0), (10.0, 40.0)]]}
