"""The scoring and results programs on decoded text files."""

import os

import pytest

from espnet2_avsr_llm.bin import results, score


@pytest.fixture
def decoded(tmp_path):
    """Reference text and one experiment with two decoded conditions."""
    (tmp_path / "text").write_text("u1 bin blue at f\nu2 set red\n")
    for condition, line in (("clean", "u1 bin blue at f"), ("babble_0dB", "u1")):
        where = tmp_path / "exp" / "asr" / "greedy" / "test" / "asr_audio4" / condition
        where.mkdir(parents=True)
        (where / "text").write_text(f"{line}\nu2 set red\n")
        (where / "1best_recog").mkdir()
        (where / "1best_recog" / "text").write_text("not scored: the same text once more\n")
    return tmp_path


def test_score_then_results(decoded, capsys):
    exp = decoded / "exp" / "asr"
    score.main(["--ref", str(decoded / "text"), "--decode_dir", str(exp / "greedy" / "test")])
    results.main([str(exp)])
    assert capsys.readouterr().out.splitlines()[-1].split() == ["asr", "asr_audio4", "0.0", "66.7"]
    assert "|greedy/test/asr_audio4/babble_0dB|2|6|33.3|0.0|66.7|0.0|66.7|50.0|" in (exp / "RESULTS.md").read_text()


def test_results_into_one_file(decoded):
    exp = decoded / "exp" / "asr"
    score.main(["--ref", str(decoded / "text"), "--decode_dir", str(exp / "greedy" / "test")])
    results.main([str(exp), "--output", str(decoded / "RESULTS.md")])
    assert f"## {exp}" in (decoded / "RESULTS.md").read_text()
    assert not (exp / "RESULTS.md").exists()


def test_incomplete_decoding_is_refused(decoded):
    (decoded / "exp/asr/greedy/test/asr_audio4/clean/text").write_text("u1 bin\n")
    with pytest.raises(ValueError, match=r"1 without a hypothesis \['u2'\]"):
        score.main(["--ref", str(decoded / "text"), "--decode_dir", str(decoded / "exp/asr/greedy/test")])


def test_conditions_of_an_older_model_are_skipped_and_leave_the_results(decoded, caplog):
    exp, model = decoded / "exp" / "asr", decoded / "model.pth"
    args = ["--ref", str(decoded / "text"), "--decode_dir", str(exp / "greedy" / "test")]
    score.main(args)
    old = exp / "greedy/test/asr_audio4/babble_0dB"
    model.touch()
    os.utime(old / "text", (0, 0))
    os.utime(model, (1, 1))
    score.main([*args, "--asr_model_file", str(model)])
    results.main([str(exp)])
    assert f"{old} is skipped: {model} is newer" in caplog.text
    table = (exp / "RESULTS.md").read_text()
    assert "|greedy/test/asr_audio4/clean|" in table and "babble_0dB" not in table


def test_nothing_decoded_is_refused(decoded, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="run the decoding"):
        score.main(["--ref", str(decoded / "text"), "--decode_dir", str(tmp_path / "empty")])
