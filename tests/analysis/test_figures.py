"""Numbers and tables of sinks over a set, of models with one stream or a fused one, and names of tokens."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from espnet2_avsr_llm.analysis.modality_figures import write_modalities
from espnet2_avsr_llm.analysis.report import plain
from espnet2_avsr_llm.analysis.shap import Explanation
from espnet2_avsr_llm.analysis.sink_figures import Seen, _attention, layer_means, sink_counts, write_sinks
from espnet2_avsr_llm.analysis.sinks import Trace
from espnet2_avsr_llm.analysis.utterances import read, spread, token_names
from espnet2_avsr_llm.sequence import Role

ROLES = [Role.BOS, Role.DELIMITER, Role.AUDIO, Role.AUDIO, Role.DELIMITER, Role.PROMPT]
NAMES = ["<s>", "<audio>", "audio 0", "audio 1", "</audio>", "T*"]


def traced(sinks, layers=4, maps=False):
    """A trace in which some tokens have a massive feature 7 in layers 2 and 3."""
    n = len(ROLES)
    massive = [{i: [7] for i in sinks} if layer in (1, 2) else {} for layer in range(layers)]
    cosine = np.full((layers, n), 0.5)
    cosine[:, 0] = 1.0
    peak = np.array([[2000.0 if i in massive[layer] else 3.0 for i in range(n)] for layer in range(layers)])
    attention = np.tile(np.arange(n, 0, -1) / 10, (layers, 1))
    largest = [[(i, 7, -2000.0) for i in sinks] or [(2, 1, 3.0)]] * layers
    return Trace(attention, cosine, peak, massive, largest, np.tri(n)[None].repeat(layers, 0) if maps else None)


@pytest.fixture
def seen():
    return [Seen("utt_1", traced([0, 1], maps=True), ROLES, NAMES), Seen("utt_2", traced([0, 3]), ROLES, NAMES)]


def test_means_by_layer_and_group(seen):
    layers = layer_means(seen)
    assert [n["massive"] for n in layers] == [0, 2, 2, 0] and [n["layer"] for n in layers] == [1, 2, 3, 4]
    assert layers[1]["peak"] == {"token 0": 2000.0, "delimiters": (2000 + 3) / 2, "audio": (3 + 2000) / 2, "prompt": 3.0}
    assert layers[0]["attention"]["delimiters"] == pytest.approx((0.5 + 0.2) / 2) and layers[0]["cosine_squared"] == 0.25


def test_counts_by_token(seen):
    assert sink_counts(seen) == {"<s> (bos)": {"sink": 2, "there": 2}, "<audio> (delimiter)": {"sink": 1, "there": 2}, "audio": {"sink": 1, "there": 2}}


def test_sinks_are_written(seen, tmp_path):
    origin = {"layer": 2, "feature": 7, "inner": [{"feature": 3, "weight": 0.5, **dict.fromkeys(("gate", "up", "contribution"), {"sinks": 9.0, "others": -1.0})}]}
    rotations = {
        "remove": {"layer": 2, "onto": {1: 2}, "peak": [2000.0, 5.0], "attention": [0.5, 0.1], "sinks_after": [0]},
        "create": {"none": "no reason"},
    }
    about = {"model": "m.pth", "task": "asr", "condition": "clean", "tau": 1000.0}
    write_sinks(tmp_path / "sinks", about, seen, origin, rotations)
    text = (tmp_path / "sinks" / "section.md").read_text()
    assert "|&#60;audio&#62; (delimiter)|1|2|" in text and "|remove|&#60;audio&#62; onto audio 0|2e+03 → 5|0.5 → 0.1|&#60;s&#62;|" in text
    assert "made by these inner features of the MLP of layer 2" in text and "token 0 receives 1.7 times" in text and "it is 0.2500" in text
    results = json.loads((tmp_path / "sinks" / "results.json").read_text())
    assert results["by_utterance"][1]["sinks"][1] == {"position": 3, "token": "audio 1", "layers": [2, 3], "features": [7]}
    assert results["rotations"]["remove"]["onto"] == {"1": 2}
    token = results["example"][4]
    assert (token["position"], token["token"], token["attention"]) == (4, "</audio>", [0.2] * 4) and token["cosine"] == [0.5] * 4


def test_layers_without_attention_are_left_out_of_the_maps(seen, tmp_path):
    seen[0].trace.attention[1] = seen[0].trace.maps[1] = np.nan
    figure = _attention(seen[0])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["layer 1", "layer 3", "layer 4"]
    write_sinks(tmp_path / "sinks", {"tau": 1000.0}, seen[:1], {"none": ""}, {"none": ""})
    assert json.loads((tmp_path / "sinks" / "results.json").read_text())["example"][0]["attention"][:2] == [0.6, None]


@pytest.mark.parametrize("streams, shares", [(["audio"] * 12, False), (["audiovisual"] * 12, False), (["audio"] * 6 + ["video"] * 6, True)])
def test_any_streams(tmp_path, streams, shares):
    rng = np.random.default_rng(0)

    def explanation():
        phi = rng.normal(size=(12, 4))
        return Explanation(phi, np.abs(phi) / 10, np.array(streams), np.arange(4), phi.sum(0), np.zeros(4), 9)

    found = {c: {"a": explanation(), "b": explanation()} for c in ("babble_-5dB", "clean", "babble_10dB")}
    write_modalities(tmp_path, {"model": "m"}, found, type("Tokenizer", (), {"decode": lambda self, ids: f"t{ids[0]}"})())
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["conditions"]) == ["clean", "babble_10dB", "babble_-5dB"]
    assert list(results["conditions"]["clean"]["alignment"]) == sorted(set(streams))
    assert (tmp_path / "share.png").exists() == shares and (tmp_path / "alignment.png").exists()
    share = results["conditions"]["clean"]["audio_share"]
    assert share is None if streams[0] == "audiovisual" else share["value"] == 1.0 if not shares else 0 < share["value"] < 1


def test_names_of_tokens(make_model, make_batch):
    for task, row in (("avsr", (9600, 15, 2)), ("asr", (9600, None, 2)), ("vsr", (None, 15, 2))):
        model = make_model(task).eval()
        inputs, _ = model.prepare(model.encode(model.inputs(make_batch(row))), model.plan.passes()[0])
        roles = inputs.roles[0].tolist()
        names = token_names(model, roles)
        assert len(names) == len(roles) and names[0] == "<s>"
        assert [n for n, r in zip(names, roles) if r == Role.DELIMITER] == [f"<{e}{s}>" for s in ("audio", "video") if s in model.plan.rates() for e in ("", "/")]
        assert [n for n, r in zip(names, roles) if r == Role.VIDEO] == [f"video {n}" for n in range(roles.count(Role.VIDEO))]
        assert "".join(n for n, r in zip(names, roles) if r == Role.PROMPT).startswith("Transcribe")


def test_evenly_spaced():
    assert spread(list("abcdefg"), 3) == ["a", "d", "g"] and spread(["a"], 3) == ["a"] and spread(list("abc"), 5) == list("abc")


def test_what_cannot_be_looked_at_is_left_out(caplog):
    def encode(speech):
        if speech > 30:
            raise ValueError(f"it has {speech} s")
        return f"encoded {speech}"

    model, seconds = SimpleNamespace(names=["speech"], encode=encode), {"a": 2, "b": 40, "c": 3}
    load = lambda utt, name: seconds[utt]
    assert list(read(model, load, ["a", "b", "c"], done={"c"})) == [("a", "encoded 2")]
    assert "b is left out: it has 40 s" in caplog.text
    assert list(read(model, load, ["b", "c"], done={"c"})) == []
    with pytest.raises(ValueError, match="None of the 1 utterances can be looked at"):
        list(read(model, load, ["b"]))


def test_signs_of_markdown_and_html_in_data():
    assert plain("<s> |*|") == "&#60;s&#62; &#124;&#42;&#124;" and plain("audio 3, 'x'_y") == "audio 3, 'x'_y"
