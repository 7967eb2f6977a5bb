"""Files of a scored condition and the tables made from them."""

import json

import pytest

from espnet2_avsr_llm.scoring.files import read_result, score_condition
from espnet2_avsr_llm.scoring.report import collect, condition_order, error_table, results_markdown

REFS = {"s1_a": "bin blue at f two now", "s2_b": "set white by z nine soon"}


@pytest.fixture
def exp(tmp_path):
    """An experiment with two conditions: one perfect, one with a substitution and a deletion."""
    exp = tmp_path / "llama_avsr_asr"
    score_condition(REFS, REFS, exp / "greedy" / "test" / "clean")
    noisy = {**REFS, "s1_a": "bin green at f two"}
    score_condition(REFS, noisy, exp / "greedy" / "test" / "babble_-5dB")
    return exp


def test_files_of_a_condition(exp):
    where = exp / "greedy" / "test" / "babble_-5dB" / "score_wer"
    assert (where / "ref.trn").read_text() == "bin blue at f two now (s1_a)\nset white by z nine soon (s2_b)\n"
    assert (where / "hyp.trn").read_text().startswith("bin green at f two (s1_a)\n")
    text = (where / "result.txt").read_text()
    assert "| Sum/Avg | 2 12 | 83.3 8.3 8.3 0.0 16.7 50.0 |" in text
    assert "REF:  bin BLUE  at f two NOW\nHYP:  bin GREEN at f two ***\nEval:     S              D\n" in text
    assert json.loads((where / "result.json").read_text())["percent"] == pytest.approx(100 / 6)


def test_result_survives_its_file(exp):
    result = collect(exp, "wer")[1]
    assert result.rate == read_result(exp / "greedy/test/babble_-5dB/score_wer/result.json")
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
    assert "|greedy/test/clean|2|12|100.0|0.0|0.0|0.0|0.0|0.0|0.0–0.0|" in text
    assert "|greedy/test/babble_-5dB|2|12|83.3|8.3|8.3|0.0|16.7|50.0|" in text


def test_table_over_experiments(exp):
    other = exp.parent / "llama_avsr_vsr"
    score_condition(REFS, {**REFS, "s2_b": ""}, other / "greedy" / "test" / "clean")
    header, _, first, second = error_table([exp, other]).splitlines()
    assert header.split() == ["WER", "(%)", "greedy", "test", "clean", "babble_-5dB"]
    assert first.split() == ["llama_avsr_asr", "0.0", "16.7"]
    assert second.split() == ["llama_avsr_vsr", "50.0", "-"]


def test_experiment_without_scores_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="run stages 12 and 13"):
        results_markdown([tmp_path])
