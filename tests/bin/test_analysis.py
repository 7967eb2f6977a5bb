"""avsr-llm sinks, shap and report on a tiny model and corpus: files, resuming, the page, the sections of RESULTS.md."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from espnet2_avsr_llm.analysis.report import section_text, sections, write_page
from espnet2_avsr_llm.bin import experts, report, shap, sinks
from espnet2_avsr_llm.inference.choose import Request
from espnet2_avsr_llm.pass_plan import Pass

CONDITION = "babble_0dB"
CONDITIONS = ["clean", CONDITION, "frozen"]


@pytest.fixture(scope="module")
def exp(tiny_config, make_source, corpus, tmp_path_factory):
    """An experiment, analysed before training in two conditions; the folder and the arguments of the programs."""
    import soundfile

    root = tmp_path_factory.mktemp("analysed")
    folder, noise = root / "avsr_exp", root / "noise"
    llama = make_source["llama"](root / "llama", num_hidden_layers=4)
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_config(compression="avg_pool", llm_conf={"source": llama})))
    noise.mkdir()
    soundfile.write(noise / "n.flac", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    utts = [line.split()[0] for line in (corpus / "valid" / "text").read_text().splitlines()]
    (noise / f"{CONDITION}.txt").write_text("".join(f"{utt} {noise / 'n.flac'} 0 0\n" for utt in utts))
    model = ["--asr_train_config", folder / "config.yaml", "--data_dir", corpus / "valid", "--noise_dir", noise, "--num_utts", 2]
    arguments = {name: [*map(str, model), "--output_dir", str(folder / "analysis" / name)] for name in ("shap", "sinks")}
    arguments["shap"] += ["--conditions", CONDITION, "clean", "--max_evals", "70"]
    shap.main(arguments["shap"])
    sinks.main(arguments["sinks"])
    report.main([str(folder)])
    return folder, arguments


def test_results_of_shap(exp):
    folder = exp[0] / "analysis" / "shap"
    results = json.loads((folder / "results.json").read_text())
    assert results["task"] == "avsr" and results["max_evals"] == 70 and results["compared_with"] == "clean"
    assert list(results["conditions"]) == ["clean", CONDITION]
    clean, noisy = results["conditions"].values()
    assert clean["utterances"] == 2 and 0 < clean["audio_share"]["value"] < 1 and clean["change"] is None and noisy["change"]["value"] != 0
    for condition in results["conditions"]:
        for utt in ("valid00", "valid02"):
            with np.load(folder / condition / f"{utt}.npz", allow_pickle=False) as saved:
                np.testing.assert_allclose(saved["phi"].sum(0), saved["full"] - saved["empty"], atol=1e-6)
                assert set(saved["streams"]) == {"audio", "video"} and json.loads(str(saved["about"]))["removal"] == "zero"


def test_results_of_sinks(exp):
    results = json.loads((exp[0] / "analysis" / "sinks" / "results.json").read_text())
    assert len(results["layers"]) == 4 and results["utterances"] == 2 and results["sinks"] == {}
    assert set(results["layers"][0]["attention"]) == {"token 0", "delimiters", "audio", "video", "prompt"}
    assert all(layer["cosine"]["token 0"] == pytest.approx(1.0) for layer in results["layers"])
    assert "none" in results["origin"] and "none" in results["rotations"]


def test_the_model_before_training_is_the_same_each_time(exp):
    before = json.loads((exp[0] / "analysis" / "sinks" / "results.json").read_text())
    sinks.main(exp[1]["sinks"])
    assert json.loads((exp[0] / "analysis" / "sinks" / "results.json").read_text()) == before


def test_a_second_run_reads_back(exp, monkeypatch):
    """And gives the same results; with other settings, or a newer model, it computes again."""
    from espnet2_avsr_llm.analysis import shap as analysis

    folder, arguments = exp
    before = (folder / "analysis" / "shap" / "results.json").read_text()

    def refuse(*_):
        raise RuntimeError("computed again")

    monkeypatch.setattr(analysis, "explain_utterance", refuse)
    shap.main(arguments["shap"])
    assert (folder / "analysis" / "shap" / "results.json").read_text() == before
    shap.main([*arguments["shap"], "--longest", "1"])
    of_one = json.loads((folder / "analysis" / "shap" / "results.json").read_text())
    assert of_one["longest"] == 1 and of_one["conditions"]["clean"]["alignment"] != json.loads(before)["conditions"]["clean"]["alignment"]
    shap.main(arguments["shap"])
    with pytest.raises(RuntimeError, match="computed again"):
        shap.main([*arguments["shap"], "--removal", "mean"])
    file, about = folder / "analysis" / "shap" / "clean" / "valid00.npz", json.loads(before)
    settings = {k: v for k, v in about.items() if k not in ("conditions", "compared_with")}
    assert analysis.read_explanation(file, settings) is not None
    assert analysis.read_explanation(file, settings, newer_than=file.stat().st_mtime + 1) is None


def test_an_utterance_with_too_many_players_is_left_out(exp, tmp_path, caplog):
    """Two of 14 players, whose walk takes 29 evaluations, and one of 18."""
    command = [*exp[1]["shap"], "--output_dir", str(tmp_path / "shap"), "--num_utts", "3", "--conditions", "clean", "--max_evals"]
    shap.main([*command, "30"])
    assert "valid01 is left out: permutation: one walk over 18 players takes 37 evaluations, but max_evals is 30" in caplog.text
    results = json.loads((tmp_path / "shap" / "results.json").read_text())["conditions"]["clean"]
    assert (results["utterances"], results["left_out"]) == (2, 1) and "|clean|2|1|" in (tmp_path / "shap" / "section.md").read_text()
    assert sorted(file.stem for file in (tmp_path / "shap" / "clean").iterdir()) == ["valid00", "valid02"]
    with pytest.raises(ValueError, match="None of the 3 utterances can be explained"):
        shap.main([*command, "5"])


def test_the_page_needs_nothing_but_its_folder(exp, tmp_path):
    folder = exp[0]
    for page in (folder / "analysis" / "index.html", write_page(folder, tmp_path / "results")):
        text = page.read_text()
        assert "Analysis of avsr_exp" in text and text.count("<table>") >= 4
        images = re.findall(r'<img src="([^"]+)"', text)
        assert len(images) == 5 + 4 and "shap/alignment.png" in images and "sinks/attention.png" in images
        assert all((page.parent / image).read_bytes().startswith(b"\x89PNG") for image in images)
        assert all((page.parent / link).is_file() for link in re.findall(r'<a href="([^"]+)"', text))
        assert not re.search(r'(src|href)="(http|/)', text)


def test_sections_without_figures_go_into_results(exp):
    texts = [section_text(section) for section in sections(exp[0])]
    assert [text.splitlines()[0] for text in texts] == ["### Shapley values (shap)", "### Attention sinks (sinks)"]
    assert all("![" not in text and "|---|" in text for text in texts)


def test_a_folder_without_analysis(tmp_path):
    with pytest.raises(FileNotFoundError, match="run stage 16"):
        write_page(tmp_path)


@pytest.mark.parametrize("task, expected", [("asr", ["clean", "babble_0dB"]), ("vsr", ["clean", "frozen"]), ("avsr", CONDITIONS)])
def test_only_conditions_that_concern_the_task(caplog, task, expected):
    trained = [Pass("asr", {"audio": 4}), Pass("vsr", {"video": 2}), Pass("avsr", {"audio": 4, "video": 2})]
    model = SimpleNamespace(trained=trained, request=Request(task=task))
    caplog.set_level("INFO")
    assert shap.concerning(CONDITIONS, model) == expected
    assert all((c in caplog.text) == (c not in expected) for c in CONDITIONS)
    if task == "vsr":
        with pytest.raises(ValueError, match="--conditions babble_0dB: none concerns vsr, which reads video"):
            shap.concerning(["babble_0dB"], model)


def test_an_empty_transcript_is_no_problem(exp, corpus, tmp_path, monkeypatch):
    """Training refuses it; an analysis may meet it."""
    lines = (corpus / "valid" / "text").read_text().splitlines()
    for scp in ("wav.scp", "video.scp"):
        (tmp_path / scp).write_text((corpus / "valid" / scp).read_text())
    (tmp_path / "text").write_text("\n".join([lines[0].split()[0], *lines[1:]]) + "\n")
    monkeypatch.setattr("espnet2_avsr_llm.analysis.experts.observe", lambda model, features, pass_, text: text[1].item())
    monkeypatch.setattr("espnet2_avsr_llm.analysis.expert_figures.write_experts", lambda folder, about, numbers: found.append(about["utterances"]))
    monkeypatch.setattr("espnet2_avsr_llm.analysis.experts.Tally", lambda: SimpleNamespace(add=lambda passes, of: lengths.extend(of), numbers=dict))
    found, lengths = [], []
    experts.main(["--asr_train_config", str(exp[0] / "config.yaml"), "--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")])
    assert found == [3] and lengths[0] == 0 and all(lengths[1:])


def test_task_and_rates_that_were_not_trained(exp):
    with pytest.raises(ValueError, match="This model was not trained for vsr"):
        sinks.main([*exp[1]["sinks"], "--task", "vsr"])
