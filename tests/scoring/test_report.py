"""Files of a scored condition and the tables made from them."""

import json
import os
from pathlib import Path

import pytest

from espnet2_avsr_llm.bin import results
from espnet2_avsr_llm.scoring.files import read_result, score_condition
from espnet2_avsr_llm.scoring.plot import plot_wer_by_tokens, scored_experiments
from espnet2_avsr_llm.scoring.report import collect, condition_order, error_table, results_markdown

REFS = {"s1_a": "bin blue at f two now", "s2_b": "set white by z nine soon"}


@pytest.fixture
def exp(tmp_path):
    """An experiment with two conditions: one perfect, one with a substitution and a deletion."""
    exp = tmp_path / "llama_avsr_asr"
    score_condition(REFS, REFS, exp / "greedy" / "test" / "asr_audio4" / "clean")
    noisy = {**REFS, "s1_a": "bin green at f two"}
    score_condition(REFS, noisy, exp / "greedy" / "test" / "asr_audio4" / "babble_-5dB")
    return exp


def test_files_of_a_condition(exp):
    where = exp / "greedy" / "test" / "asr_audio4" / "babble_-5dB" / "score_wer"
    assert (where / "ref.trn").read_text() == "bin blue at f two now (s1_a)\nset white by z nine soon (s2_b)\n"
    assert (where / "hyp.trn").read_text().startswith("bin green at f two (s1_a)\n")
    text = (where / "result.txt").read_text()
    assert "| Sum/Avg | 2 12 | 83.3 8.3 8.3 0.0 16.7 50.0 |" in text
    assert "REF:  bin BLUE  at f two NOW\nHYP:  bin GREEN at f two ***\nEval:     S              D\n" in text
    assert json.loads((where / "result.json").read_text())["percent"] == pytest.approx(100 / 6)


def test_result_survives_its_file(exp):
    result = collect(exp, "wer")[1]
    assert result.rate == read_result(exp / "greedy/test/asr_audio4/babble_-5dB/score_wer/result.json")
    assert result.rate.counts.errors == 2 and isinstance(result.rate.interval, tuple)


def test_conditions_go_from_clean_to_loud_noise():
    names = ["babble_-5dB", "babble_0dB", "clean", "speech_2.5dB", "babble_-10dB", "babble_5dB"]
    expected = ["clean", "babble_5dB", "babble_0dB", "babble_-5dB", "babble_-10dB", "speech_2.5dB"]
    assert sorted(names, key=condition_order) == expected


def test_results_markdown_has_espnets_form(exp):
    text = results_markdown([exp])
    for line in ("# RESULTS", "## Environments", "- espnet version: `espnet 202511`", f"## {exp}", "### WER", "### CER"):
        assert f"\n{line}" in text
    assert "|dataset|Snt|Wrd|Corr|Sub|Del|Ins|Err|S.Err|Err 95%|" in text
    assert "|greedy/test/asr_audio4/clean|2|12|100.0|0.0|0.0|0.0|0.0|0.0|0.0–0.0|" in text
    assert "|greedy/test/asr_audio4/babble_-5dB|2|12|83.3|8.3|8.3|0.0|16.7|50.0|" in text


def test_table_over_experiments(exp):
    other = exp.parent / "llama_avsr_vsr"
    score_condition(REFS, {**REFS, "s2_b": ""}, other / "greedy" / "test" / "vsr_video2" / "clean")
    header, _, first, second = error_table([exp, other]).splitlines()
    assert header.split() == ["WER", "(%)", "greedy", "test", "clean", "babble_-5dB"]
    assert first.split() == ["llama_avsr_asr", "asr_audio4", "0.0", "16.7"]
    assert second.split() == ["llama_avsr_vsr", "vsr_video2", "50.0", "-"]


def test_experiment_without_scores_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="run stages 12 and 13"):
        results_markdown([tmp_path])


# ---- what decoding cost -----------------------------------------------------------------------------------------------


@pytest.fixture
def elastic(exp):
    """The experiment with a second rate, and what each condition cost."""
    score_condition(REFS, {**REFS, "s1_a": "bin green at f two"}, exp / "greedy" / "test" / "asr_audio16" / "clean")
    for name, tokens in (("asr_audio4/clean", 150), ("asr_audio4/babble_-5dB", 150), ("asr_audio16/clean", 45)):
        log = {"llm_tokens": tokens, "tflops": tokens / 1e4, "speech_seconds": 5.0, "seconds": 2.0, "utterances": 2}
        (exp / "greedy" / "test" / name / "log.json").write_text(json.dumps(log))
    return exp


def test_table_of_rates_with_their_cost(elastic):
    table = results_markdown([elastic]).split("### WER and cost of each task and rate\n\n")[1].split("\n\n")[0]
    assert table.splitlines() == [
        "|greedy/test|clean|babble_-5dB|LLM tokens/s|TFLOPs/s|speed|",
        "|---|---|---|---|---|---|",
        "|asr_audio4|0.0|16.7|30.0|0.003|2.5x|",
        "|asr_audio16|16.7|-|9.0|0.0009|2.5x|",
    ]


def test_scores_of_text_from_elsewhere_have_no_cost(exp):
    assert "|asr_audio4|0.0|16.7|-|-|-|" in results_markdown([exp])


def test_a_result_at_another_place_is_refused(exp):
    score_condition(REFS, REFS, exp / "greedy" / "test" / "clean")
    with pytest.raises(ValueError, match="expected .*DECODING/TEST_SET/PASS/CONDITION"):
        collect(exp, "wer")


def test_plot_of_every_experiment_in_a_folder(elastic, monkeypatch):
    (elastic.parent / "stats").mkdir()
    score_condition(REFS, REFS, elastic / "greedy" / "test" / "asr_tokens40" / "clean")
    (elastic / "greedy" / "test" / "asr_tokens40" / "clean" / "log.json").write_text((elastic / "greedy/test/asr_audio16/clean/log.json").read_text())
    assert scored_experiments(elastic.parent) == [elastic]
    drawn = {}
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda self, x, y, label, **_: drawn.setdefault(label, list(zip(x, y))))
    plot_wer_by_tokens([elastic], elastic.parent / "wer.png")
    assert drawn == {"llama_avsr_asr": [(9.0, pytest.approx(100 / 6)), (30.0, 0.0)], "llama_avsr_asr (budget)": [(9.0, 0.0)]}
    assert (elastic.parent / "wer.png").read_bytes().startswith(b"\x89PNG")


def test_table_and_plot_replace_the_old_ones_whole(elastic, capsys, monkeypatch):
    """Several trainings of compare.sh may write them at one time."""
    names, written, replace = ("wer.txt", "wer_by_tokens.png"), {}, os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: written.update({Path(b).name: Path(a).read_bytes()}) or replace(a, b))
    results.main([str(elastic), "--plot_dir", str(elastic.parent)])
    assert written["wer.txt"].decode() == capsys.readouterr().out and written["wer_by_tokens.png"].startswith(b"\x89PNG")
    assert all((elastic.parent / name).read_bytes() == written[name] for name in names)
