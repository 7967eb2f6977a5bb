"""Tasks, rates and budgets asked of a decoder."""

import pytest
import yaml
from decoding import LIMIT, MIXED, call, ids, load, load_batched, utterance

from espnet2_avsr_llm.inference import speech2text as module
from espnet2_avsr_llm.inference.choose import Request
from espnet2_avsr_llm.inference.speech2text import Speech2Text
from espnet2_avsr_llm.pass_plan import Pass
from espnet2_avsr_llm.summary import prefill_flops


def picked(results):
    return [(r[0][3].task, *r[0][3].rates.values()) for r in results]


def test_the_finest_rates_of_the_fullest_task_by_default(omni):
    assert picked([omni(*MIXED[0])]) == [("avsr", 4, 2)] and omni(*MIXED[0])[0][3].note == ""


@pytest.mark.parametrize(
    "request_,expected",
    [
        (dict(task="asr"), ("asr", 4)),
        (dict(task="vsr", video_rate=5), ("vsr", 5)),
        (dict(audio_rate=16), ("avsr", 16, 2)),
        (dict(audio_rate=16, video_rate=5), ("avsr", 16, 5)),
        (dict(task="asr", audio_rate=16, video_rate=5), ("asr", 16)),  # speaks of a stream that the task does not read
    ],
)
def test_task_and_rates_by_call_or_at_construction(omni, request_, expected):
    by_call = omni(*MIXED[0], **request_)
    fixed = load_batched(omni, 1)
    fixed.request = Request(**request_)
    assert picked([by_call]) == picked([fixed(*MIXED[0])]) == [expected]
    assert by_call[0][:3] == fixed(*MIXED[0])[0][:3]
    assert picked([fixed(*MIXED[0], task="vsr", video_rate=2)]) == [("vsr", 2)]


def test_only_what_the_task_reads_is_encoded(omni):
    runs = []
    hooks = [f.register_forward_hook(lambda *_, name=name: runs.append(name)) for name, f in omni.model.frontends.items()]
    omni(*MIXED[0], task="vsr")
    omni(*MIXED[0], task="asr")
    omni(*MIXED[0])
    for hook in hooks:
        hook.remove()
    assert runs == ["video_frontend", "audio_frontend", "audio_frontend", "video_frontend"]


@pytest.mark.parametrize(
    "request_,message",
    [
        (dict(audio_rate=8), "not trained for avsr, audio_rate=8. It was trained for: asr, audio_rate=4; asr, audio_rate=16; avsr, "),
        (dict(task="vsr", video_rate=3), "not trained for vsr, video_rate=3"),
        (dict(task="avsr", audio_rate=4, video_rate=3), "not trained for avsr, audio_rate=4, video_rate=3"),
        (dict(task="tts"), "not trained for tts"),
    ],
)
def test_what_was_not_trained_is_refused(omni, request_, message):
    with pytest.raises(ValueError, match=message):
        omni(*MIXED[0], **request_)


def test_an_untrained_rate_is_refused_at_construction(experiment):
    with pytest.raises(ValueError, match="not trained for avsr, audio_rate=4, video_rate=5. It was trained for: avsr, audio_rate=4, video_rate=2; avsr"):
        load(experiment, audio_rate=4, video_rate=5)


def test_without_a_stream_the_task_that_fits_is_taken(omni):
    both, deaf, blind = MIXED[0], MIXED[4], MIXED[3]
    found = call(omni, [both, deaf, blind])
    assert picked(found) == [("avsr", 4, 2), ("vsr", 2), ("asr", 4)]
    assert [r[0][3].note for r in found] == ["", "no audio: vsr instead of avsr", "no video: asr instead of avsr"]
    assert ids(found)[1:] == [omni(*deaf, task="vsr")[0][2], omni(*blind, task="asr")[0][2]]
    (other,) = call(omni, [blind], task="vsr", audio_rate=16)
    assert picked([other]) == [("asr", 16)] and other[0][3].note == "no video: asr instead of vsr"


def test_a_model_of_one_task_reads_what_there_is_and_says_so(greedy):
    (found,) = call(greedy, [MIXED[4]])  # trained for ASR and AVSR, not for VSR
    assert picked([found]) == [("avsr", 4, 2)] and found[0][3].note == "no audio"


@pytest.mark.parametrize("utterances", [MIXED, [utterance(6, 175)]], ids=["short", "windows"])
def test_recorded_costs_are_those_of_the_input(omni, monkeypatch, utterances):
    """LLM tokens as laid out, and FLOPs as `avsr-llm summary` counts them."""
    read, prepare = [], omni.model.prepare
    monkeypatch.setattr(omni.model, "prepare", lambda *args: read.append(prepare(*args)) or read[-1])
    for speech, video in utterances:
        read.clear()
        hypothesis = omni(speech, video)[0][3]
        lengths = [int(inputs.attention_mask.sum()) for inputs, _ in read]
        pass_ = Pass(hypothesis.task, hypothesis.rates)
        assert hypothesis.llm_tokens == sum(lengths) and len(lengths) == (3 if len(utterances) == 1 else 1)
        assert hypothesis.tflops == pytest.approx(sum(prefill_flops(omni.model, pass_, n) for n in lengths) / 1e12)


@pytest.mark.parametrize("streams", [["audiovisual"], ["audio", "video"]], ids=["fused", "both"])
def test_one_encoder_for_sound_and_lips(tiny_config, tmp_path, monkeypatch, streams):
    """AV-HuBERT's two audio-visual modes: what is missing, the length of what is there, rates by name."""
    config = tiny_config("avsr", "avg_pool", plan=("fixed", {"passes": [{"task": "avsr", "rates": dict.fromkeys(streams, r)} for r in (2, 5)]}))
    config |= {"audio_frontend": None, "video_frontend": "avhubert", "video_frontend_conf": {**config["video_frontend_conf"], "streams": streams}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    decoder, read = Speech2Text(tmp_path / "config.yaml", video_rate=5, **LIMIT), []
    assert picked([decoder(*MIXED[0])])[0] == ("avsr", *[5] * len(streams))
    prepare = decoder.model.prepare
    monkeypatch.setattr(decoder.model, "prepare", lambda *args: read.append(prepare(*args)[0]) or prepare(*args))
    notes = {"fused": ["", "", ""], "both": ["", "no video", "no audio"]}["fused" if len(streams) == 1 else "both"]
    for (speech, video), note in zip((MIXED[0], MIXED[3], MIXED[4]), notes):
        hypothesis = decoder(speech, video, video_rate=2)[0][3]
        assert (hypothesis.llm_tokens, hypothesis.note) == (int(read[-1].attention_mask.sum()), note)


def test_an_analysis_sees_whole_utterances_of_the_task_asked_for(omni):
    encoded = omni.encode(*MIXED[0])
    assert encoded.pass_.task == "avsr" and set(encoded.features) == {"audio", "video"}
    with pytest.raises(ValueError, match="no video: asr instead of avsr"):
        omni.encode(*MIXED[3])


@pytest.mark.parametrize("name", ["max_llm_tokens", "max_tflops"])
def test_a_budget_takes_the_finest_rates_that_fit_each_utterance(omni, name):
    def plan(utterance, **request):
        choice = omni._plan(0, dict(zip(("speech", "video"), utterance)), Request(**request))[1]
        return tuple(choice.pass_.rates.values()), (choice.llm_tokens if name == "max_llm_tokens" else choice.tflops), choice.note

    known = [{(a, v): plan(u, audio_rate=a, video_rate=v)[1] for a in (4, 16) for v in (2, 5)} for u in MIXED[:3]]
    seen = set()
    for budget in sorted({cost for table in known for cost in table.values()} | {0}):
        for utterance, table in zip(MIXED[:3], known):
            pair, cost, note = plan(utterance, **{name: budget})
            fitting = [c for c in table.values() if c <= budget]
            assert cost == table[pair] == max(fitting, default=min(table.values()))
            assert (cost <= budget and note == "") if fitting else f"exceeds {name}={budget:g}" in note
            seen.add(pair)
    assert len(seen) == 4


def test_the_hypothesis_says_what_the_budget_did(omni):
    fits, exceeds = (omni(*MIXED[0], max_llm_tokens=n)[0][3] for n in (50, 20))
    assert (fits.rates, fits.note) == ({"audio": 16, "video": 5}, "") and fits.llm_tokens <= 50
    assert (exceeds.rates, exceeds.note) == (fits.rates, f"{fits.llm_tokens} exceeds max_llm_tokens=20")


def test_a_tie_goes_to_audio(make_model, tiny_config, tmp_path):
    """(4, 5) and (10, 2): 12 audio and 5 video tokens against 5 and 12, at one second."""
    passes = [{"task": "avsr", "rates": {"audio": 10, "video": 2}}, {"task": "avsr", "rates": {"audio": 4, "video": 5}}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_config(compression="avg_pool", passes=passes)))
    assert picked([Speech2Text(tmp_path / "config.yaml", **LIMIT)(*MIXED[0])]) == [("avsr", 4, 5)]


def test_utterances_of_one_call_are_grouped_by_pass(omni, monkeypatch):
    """A budget that sends long and short utterances to different rates, and one without video to another task."""
    utterances, budget = [MIXED[0], MIXED[1], MIXED[2], MIXED[3], MIXED[1]], 70
    expected = [omni(*u, max_llm_tokens=budget) for u in utterances]
    groups, generate = [], module.generate
    monkeypatch.setattr(module, "generate", lambda model, features, p, *rest: groups.append(p.name) or generate(model, features, p, *rest))
    results = call(load_batched(omni, 8), utterances, max_llm_tokens=budget)
    assert ids(results) == ids(expected) and picked(results) == picked(expected)
    assert len(groups) == len(set(groups)) == len(set(picked(results))) > 2
