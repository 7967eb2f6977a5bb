"""Decoding as users call it: single and list, arrays and files, windows, limits, n-best, passes, packed models."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet2_avsr_llm import checkpoint
from espnet2_avsr_llm.bin import avsr_llm_inference
from espnet2_avsr_llm.data.media import NoStreamError, read_roi, write_roi
from espnet2_avsr_llm.data.noise import NoiseEntry, write_noise_list
from espnet2_avsr_llm.data.roi import NoFaceError, landmarks
from espnet2_avsr_llm.inference import speech2text as module
from espnet2_avsr_llm.inference.choose import Request
from espnet2_avsr_llm.inference.speech2text import Speech2Text
from espnet2_avsr_llm.inference.windows import window_cuts
from espnet2_avsr_llm.pass_plan import Pass
from espnet2_avsr_llm.summary import prefill_flops

LIMIT = dict(max_tokens_per_second=5, min_tokens=3)


@pytest.fixture(scope="module")
def experiment(tiny_config, make_model, tmp_path_factory):
    """Folder with ``config.yaml`` and ``model.pth`` of a model with three passes and random weights."""
    passes = [{"task": "avsr", "rates": {"audio": 4, "video": 2}}, {"task": "avsr", "rates": {"audio": 16, "video": 5}}]
    passes += [{"task": "asr", "rates": {"audio": 4}}]
    kwargs = dict(compression="avg_pool", passes=passes, adapter_conf={"sets": ["shared", "scale"]})
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_config(**kwargs)))
    checkpoint.save(make_model(**kwargs).state_dict(), folder / "model.pth")
    return folder


def load(experiment, **options):
    return Speech2Text(experiment / "config.yaml", experiment / "model.pth", **{**LIMIT, **options})


@pytest.fixture(scope="module")
def greedy(experiment):
    return load(experiment)


def utterance(seed, frames, only=None):
    rng = np.random.default_rng(seed)
    speech = rng.standard_normal(frames * 640).astype(np.float32)
    video = rng.integers(0, 256, (frames, 96, 96), dtype=np.uint8)
    return (speech if only != "video" else None), (video if only != "speech" else None)


MIXED = [utterance(0, 25), utterance(1, 50), utterance(2, 12), utterance(3, 30, "speech"), utterance(4, 20, "video")]


def call(decoder, utterances, **request):
    speech, video = zip(*utterances)
    return decoder(speech=list(speech), video=list(video), **request)


def ids(results):
    return [r[0][2] for r in results]


@pytest.mark.parametrize("options", [{}, {"beam_size": 3, "nbest": 2}], ids=["greedy", "beam"])
def test_single_and_list_and_any_batch_size_agree(experiment, options):
    single = load(experiment, **options)
    alone = [single(speech=s, video=v) for s, v in MIXED]
    for size in (1, 2, 5):
        together = call(load(experiment, batch_size=size, **options), MIXED)
        for a, b in zip(alone, together):
            assert [h[:3] for h in a] == [h[:3] for h in b]
            np.testing.assert_allclose([h[3].score for h in a], [h[3].score for h in b], atol=1e-3)
    assert len({tuple(i) for i in ids(alone)}) == len(MIXED)


def test_what_is_returned(greedy):
    ((text, tokens, token_ids, hypothesis),) = greedy(*MIXED[0])
    assert text == hypothesis.text == greedy.model.llm.tokens.decode(token_ids).strip()
    assert tokens == greedy.model.llm.tokens.tokenizer.convert_ids_to_tokens(token_ids) and token_ids == hypothesis.token_ids
    assert (hypothesis.task, hypothesis.rates) == ("avsr", {"audio": 4, "video": 2})


def test_files_equal_arrays(greedy, tmp_path):
    speech, video = utterance(5, 25)
    soundfile.write(tmp_path / "a b.wav", speech / 10, 16000, subtype="FLOAT")
    write_roi(tmp_path / "a b.mp4", video)
    from_files = greedy(speech=tmp_path / "a b.wav", video=str(tmp_path / "a b.mp4"))
    assert from_files[0][2] == greedy(speech=speech / 10, video=read_roi(tmp_path / "a b.mp4"))[0][2]


def test_long_recordings_are_windows_whose_texts_are_joined(greedy):
    """7 s and a 3-s encoder: three windows, each decoded as an utterance."""
    speech, video = utterance(6, 175)
    ((text, _, token_ids, hypothesis),) = greedy(speech, video)
    cuts = window_cuts(175, 75, speech)
    parts = [greedy(speech[a * 640 : b * 640], video[a:b])[0] for a, b in zip(cuts, cuts[1:])]
    assert len(parts) == 3
    assert token_ids == [t for p in parts for t in p[2]]
    assert text == " ".join(p[0] for p in parts) == hypothesis.text
    assert hypothesis.score == pytest.approx(sum(p[3].score for p in parts), abs=1e-3)
    mixed = call(load_batched(greedy, 4), [MIXED[0], (speech, video), MIXED[2]])
    assert ids(mixed) == [greedy(*MIXED[0])[0][2], token_ids, greedy(*MIXED[2])[0][2]]


def load_batched(decoder, size):
    """The same model with another batch size."""
    clone = object.__new__(Speech2Text)
    clone.__dict__ = {**decoder.__dict__, "batch_size": size}
    return clone


def test_exactly_the_window_is_one_utterance(greedy, monkeypatch):
    assert len(greedy._windows(dict(zip(("speech", "video"), utterance(7, 75))))) == 1
    assert len(greedy._windows(dict(zip(("speech", "video"), utterance(7, 76))))) == 2


def test_no_row_exceeds_its_own_limit(greedy):
    results = call(load_batched(greedy, 5), MIXED)
    limits = [max(3, round(frames / 25 * 5)) for frames in (25, 50, 12, 30, 20)]
    assert all(len(i) <= n for i, n in zip(ids(results), limits))
    assert any(len(i) == n and r[0][3].truncated for i, n, r in zip(ids(results), limits, results))
    assert len({len(i) for i in ids(results)}) > 1  # a common limit would give equal lengths


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_nbest_is_sorted(experiment, penalty):
    (results,) = [load(experiment, beam_size=4, nbest=4, length_penalty=penalty)(*MIXED[1])]
    assert len(results) == 4 and len({tuple(r[2]) for r in results}) == 4
    normalised = [r[3].score / (len(r[2]) + 1) ** penalty for r in results]
    assert normalised == sorted(normalised, reverse=True)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_score_is_the_log_probability_of_the_text(experiment, beam_size):
    decoder = load(experiment, beam_size=beam_size)
    model = decoder.model
    ((_, _, token_ids, hypothesis),) = decoder(*MIXED[0])
    batch = {n: x for n, x in zip(("speech", "video"), MIXED[0])}
    inputs = module.collate([("a", module.eval_inputs(**batch))])[1]
    with torch.no_grad():
        out = model.run_pass(model.encode(model.inputs(inputs)), model.plan.all_passes()[0], (torch.tensor([token_ids]), torch.tensor([len(token_ids)])))
    scored = token_ids + ([] if hypothesis.truncated else [model.llm.tokens.eos_id])  # the limit's EOS is forced, at no cost
    logp = out.logits[0].log_softmax(-1)[range(len(scored)), scored].sum().item()
    assert hypothesis.score == pytest.approx(logp, abs=1e-3)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_eos_counts_where_it_pads_too(experiment, monkeypatch, beam_size):
    """Released models of Qwen have no padding token of their own."""
    decoder = load(experiment, batch_size=2, beam_size=beam_size, length_penalty=0.0)
    tokens = decoder.model.llm.tokens
    monkeypatch.setattr(tokens, "eos_id", call(decoder, MIXED[:2])[0][0][2][1])  # so the first row ends early
    scores = []
    for pad in (tokens.pad_id, tokens.eos_id):
        monkeypatch.setattr(tokens, "pad_id", pad)
        results = call(decoder, MIXED[:2])
        assert not results[0][0][3].truncated
        scores.append([r[0][3].score for r in results])
    assert scores[0] == scores[1]


def test_a_wider_beam_finds_no_worse_text(experiment):
    scores = [load(experiment, beam_size=n, length_penalty=0.0)(*MIXED[1])[0][3].score for n in (1, 8)]
    assert scores[1] >= scores[0]


@pytest.mark.parametrize("options", [{}, {"beam_size": 3}])
def test_deterministic_by_default(experiment, options):
    decoder = load(experiment, **options)
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(ids(call(decoder, MIXED[:2])))
    assert found[0] == found[1]


def test_sampling_is_explicit_and_repeatable_by_seed(experiment):
    decoder = load(experiment, beam_size=3, sample=True, temperature=5.0, top_p=1.0)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(ids(call(decoder, MIXED[:2])))
    assert found[0] == found[1] != found[2]


# ---- task, rates, budgets ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def omni_experiment(make_model, tiny_config, tmp_path_factory):
    """A model of three tasks at two rates of each stream."""
    plan = ("random_rates", {"rates": {"audio": [4, 16], "video": [2, 5]}, "tasks": {"asr": 1, "vsr": 1.5, "avsr": 1}})
    kwargs = dict(compression="avg_pool", projector="mlp_bank", plan=plan, adapter_conf={"sets": ["shared", "task"]})
    folder = tmp_path_factory.mktemp("omni")
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_config(**kwargs)))
    checkpoint.save(make_model(**kwargs).state_dict(), folder / "model.pth")
    return folder


@pytest.fixture(scope="module")
def omni(omni_experiment):
    return load(omni_experiment)


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
    assert (fits.rates, fits.note) == ({"audio": 16, "video": 5}, "") and fits.llm_tokens <= 60
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


def test_merged_adapters_give_the_same_text(experiment):
    merged, plain = (load(experiment, beam_size=2, merge_adapter=m, batch_size=2) for m in (True, False))
    weights = [p.clone() for p in merged.model.parameters()]
    for request in ({}, {"task": "asr"}, {"audio_rate": 16}):
        first, second = (call(decoder, MIXED[:4], **request) for decoder in (merged, plain))
        assert ids(first) == ids(second)
        np.testing.assert_allclose([r[0][3].score for r in first], [r[0][3].score for r in second], atol=1e-3)
    assert all(torch.equal(p, w) for p, w in zip(merged.model.parameters(), weights))


def test_a_model_without_adapter_cannot_merge_one(tiny_config, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_config("asr", adapter=None)))
    with pytest.raises(ValueError, match="NoneType cannot be merged"):
        Speech2Text(tmp_path / "config.yaml", merge_adapter=True, **LIMIT)(*MIXED[0])


@pytest.mark.parametrize(
    "speech,video,message",
    [
        ([None, None], [None], r"reads speech and video; found \{'speech': 2, 'video': 1\}"),
        (None, None, "found none of them"),
        ([np.zeros(16000), np.zeros(0)], None, "Utterance 1: no audio and no video"),
    ],
)
def test_bad_calls(greedy, speech, video, message):
    with pytest.raises(ValueError, match=message):
        greedy(speech=speech, video=video)


@pytest.mark.parametrize("options", [{"beam_size": 2, "nbest": 3}, {"nbest": 0}])
def test_nbest_beyond_the_beam_is_refused(experiment, options):
    with pytest.raises(ValueError, match="nbest is from 1 to beam_size"):
        load(experiment, **options)


def test_very_short_inputs_have_no_text(experiment, greedy, caplog):
    """Below 0.1 s, and below one step of a coarse rate; the others of the call are decoded."""
    short, other = utterance(5, 2), utterance(0, 25)
    found = call(load_batched(greedy, 2), [short, other, utterance(5, 2, "speech")])
    assert [(r[0][0], r[0][2], r[0][3].note) for r in (found[0], found[2])] == [("", [], "shorter than 0.1 s")] * 2
    assert found[1][0][2] == greedy(*other)[0][2] and caplog.text.count("is given no text: shorter than 0.1 s") == 2
    (coarse,) = load(experiment, audio_rate=16, video_rate=5)(*utterance(6, 4))
    assert coarse[0] == "" and "shorter than one rate step" in coarse[3].note
    with pytest.raises(ValueError, match="shorter than 0.1 s"):
        greedy.encode(*short)


def test_files_that_lack_a_stream_or_a_face(experiment, greedy, tmp_path, monkeypatch, caplog):
    speech, video = utterance(0, 25)
    soundfile.write(tmp_path / "sound.wav", speech / 10, 16000)
    write_roi(tmp_path / "mouth.mp4", video)
    sound, mouth = tmp_path / "sound.wav", tmp_path / "mouth.mp4"
    (blind,), (deaf,) = greedy(sound, sound), greedy(mouth, mouth)
    assert blind[3].note == "no video: asr instead of avsr" and deaf[3].note == "no audio"
    assert blind[2] == greedy(sound)[0][2] and deaf[2] == greedy(video=mouth)[0][2]
    assert "sound.wav: found no video" in caplog.text and "mouth.mp4: found no audio" in caplog.text and caplog.text.count("decoded without") == 2
    with pytest.raises(NoStreamError, match="mouth.mp4: found no audio"):
        greedy(speech=mouth)
    with pytest.raises(NoStreamError, match="sound.wav: found no video"):
        greedy(video=sound)
    monkeypatch.setattr(module, "read_video", lambda path: np.zeros((25, 48, 64, 3), np.uint8))
    monkeypatch.setitem(landmarks.BACKENDS, "litert", lambda _: SimpleNamespace(track=lambda path, first: lambda frame: None))
    landmarks.get_backend.cache_clear()
    (faceless,) = greedy(sound, mouth)
    assert faceless[2] == blind[2] and "mouth.mp4: found no face in any of 25 frames" in caplog.text
    with pytest.raises(NoFaceError, match="mouth.mp4: found no face"):
        greedy(video=mouth)
    landmarks.get_backend.cache_clear()


def test_sound_and_video_of_different_lengths_are_warned_of(greedy, caplog):
    speech, video = utterance(0, 25)
    cut = greedy(np.concatenate([speech, speech]), video)
    assert "sound of 2.00 s is made as long as the video of 1.00 s" in caplog.text and cut[0][2] == greedy(speech, video)[0][2]
    caplog.clear()
    greedy(speech[:-2000], video)
    assert caplog.text == ""


def test_the_sources_generation_defaults_change_nothing(experiment, greedy, make_source, tmp_path):
    expected = ids(call(greedy, MIXED))
    folder = make_source["llama"](tmp_path / "llama")
    defaults = {"suppress_tokens": sorted({i[0] for i in expected}), "repetition_penalty": 9.0, "do_sample": True}
    (tmp_path / "llama" / "generation_config.json").write_text(json.dumps(defaults))
    config = yaml.safe_load((experiment / "config.yaml").read_text())
    config["llm_conf"]["source"] = folder
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    other = Speech2Text(tmp_path / "config.yaml", experiment / "model.pth", **LIMIT)
    assert ids(call(other, MIXED)) == expected


def test_from_pretrained_folder_with_parts_inside(experiment, greedy, make_source, tmp_path, monkeypatch):
    """Sources that the configuration names relative to the packed folder are found there."""
    config = yaml.safe_load((experiment / "config.yaml").read_text())
    make_source["llama"](tmp_path / "packed" / "parts" / "llama")
    config["llm_conf"]["source"] = "parts/llama"
    (tmp_path / "packed" / "exp").mkdir()
    (tmp_path / "packed" / "exp" / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "packed" / "exp" / "model.pth").write_bytes((experiment / "model.pth").read_bytes())
    meta = {"files": {"asr_model_file": "exp/model.pth"}, "yaml_files": {"asr_train_config": "exp/config.yaml"}, "espnet": "202511"}
    (tmp_path / "packed" / "meta.yaml").write_text(yaml.safe_dump(meta))
    monkeypatch.chdir(tmp_path)
    decoder = Speech2Text.from_pretrained(str(tmp_path / "packed"), **LIMIT)
    assert decoder(*MIXED[0])[0][2] == greedy(*MIXED[0])[0][2]


def test_model_of_one_modality_ignores_the_other(tiny_config, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_config("asr")))
    decoder = Speech2Text(tmp_path / "config.yaml", **LIMIT)
    assert decoder.names == ["speech"] and decoder.max_seconds == 3.0
    speech, video = MIXED[0]
    assert decoder(speech=speech, video=video)[0][:3] == decoder(speech=speech)[0][:3]


def test_half_precision_of_the_pretrained_parts(experiment):
    decoder = load(experiment, dtype="bfloat16")
    assert decoder.model.llm.model.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in decoder.model.projector.parameters())
    assert len(decoder(*MIXED[0])[0][2]) > 0


def test_another_models_file_is_refused(experiment, make_model, tmp_path):
    checkpoint.save(make_model("asr").state_dict(), tmp_path / "other.pth")
    with pytest.raises(RuntimeError, match="trained with|another model"):
        Speech2Text(experiment / "config.yaml", tmp_path / "other.pth")


# ---- the program ------------------------------------------------------------------------------------------------------


FINEST = "avsr_audio4_video2"


def decode(experiment, corpus, out, *options):
    args = ["--asr_train_config", experiment / "config.yaml", "--asr_model_file", experiment / "model.pth"]
    args += ["--data_dir", corpus / "valid", "--output_dir", out, "--batch_size", 2, "--max_tokens_per_second", 5, *options]
    avsr_llm_inference.main([str(a) for a in args])
    return dict(line.partition(" ")[::2] for line in (out / FINEST / "clean" / "1best_recog" / "token_int").read_text().splitlines())


def test_program_writes_what_speech2text_finds(experiment, corpus, tmp_path):
    found = decode(experiment, corpus, tmp_path, "--beam_size", 2, "--nbest", 2)
    decoder = Speech2Text(experiment / "config.yaml", experiment / "model.pth", beam_size=2, max_tokens_per_second=5)
    for utt, value in found.items():
        expected = decoder(speech=str(corpus / "valid" / "data" / f"{utt}.flac"), video=str(corpus / "valid" / "data" / f"{utt}.mp4"))
        assert value == " ".join(map(str, expected[0][2]))
    assert sorted(found) == ["valid00", "valid01", "valid02"]
    assert {p.name for p in (tmp_path / FINEST / "clean").iterdir()} == {"1best_recog", "2best_recog", "text", "log.json"}


def test_program_decodes_every_trained_pass_and_noise_only_where_it_is_heard(omni_experiment, corpus, tmp_path):
    entry = NoiseEntry(str(corpus / "valid" / "data" / "valid00.flac"), 100, 0.0)
    write_noise_list(tmp_path / "noise" / "babble_0dB.txt", dict.fromkeys(["valid00", "valid01", "valid02"], entry))
    decode(omni_experiment, corpus, tmp_path, "--conditions", "clean", "babble_0dB", "blur", "--noise_dir", tmp_path / "noise")
    pairs = [f"avsr_audio{a}_video{v}" for a in (4, 16) for v in (2, 5)]
    heard = {f"{name}/{c}" for name in ["asr_audio4", "asr_audio16", *pairs] for c in ("clean", "babble_0dB")}
    seen = {f"{name}/{c}" for name in ["vsr_video2", "vsr_video5", *pairs] for c in ("clean", "blur")}
    assert {str(p.relative_to(tmp_path).parent) for p in tmp_path.glob("*/*/text")} == heard | seen
    frames = dict(line.split() for line in (corpus / "valid" / "utt2num_frames").read_text().splitlines())
    for pass_ in ("asr_audio16", "avsr_audio4_video5"):
        log = json.loads((tmp_path / pass_ / "clean" / "log.json").read_text())
        assert log["speech_seconds"] == pytest.approx(sum(map(int, frames.values())) / 25)
        assert log["llm_tokens"] == sum(p["llm_tokens"] for p in log["picked"].values()) and log["tflops"] > 0 and log["notes"] == {}


def test_program_takes_requests_and_missing_files(omni_experiment, corpus, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("wav.scp", "video.scp"):
        lines = (corpus / "valid" / name).read_text().splitlines(keepends=True)
        (data / name).write_text("".join(["valid00 -\n", *lines[1:]] if name == "wav.scp" else lines))
    decode(omni_experiment, corpus, tmp_path / "out", "--data_dir", data, "--requests", "task=avsr,audio_rate=4,video_rate=2", "max_llm_tokens=60")
    log = json.loads((tmp_path / "out" / FINEST / "clean" / "log.json").read_text())
    assert log["notes"] == {"valid00": "no audio: vsr instead of avsr"}
    assert log["picked"]["valid00"]["task"] == "vsr" and log["picked"]["valid01"]["task"] == "avsr"
    log = json.loads((tmp_path / "out" / "avsr_tokens60" / "clean" / "log.json").read_text())
    assert all(p["llm_tokens"] <= 60 or log["notes"][u] for u, p in log["picked"].items())


def test_program_refuses_what_was_not_trained_before_it_decodes(omni_experiment, corpus, tmp_path):
    with pytest.raises(ValueError, match="not trained for asr, audio_rate=8"):
        decode(omni_experiment, corpus, tmp_path, "--requests", "task=asr", "task=asr,audio_rate=8")
    with pytest.raises(ValueError, match="no option .rate.; its options: task, audio_rate"):
        decode(omni_experiment, corpus, tmp_path, "--requests", "rate=8")
    assert not list(tmp_path.iterdir())


def test_complete_conditions_are_not_decoded_again(experiment, corpus, tmp_path, monkeypatch):
    decode(experiment, corpus, tmp_path)
    monkeypatch.setattr(avsr_llm_inference, "decode", lambda *_: pytest.fail("decoded again"))
    decode(experiment, corpus, tmp_path)
    (tmp_path / FINEST / "clean" / "text").write_text("valid00 a\n")
    with pytest.raises(pytest.fail.Exception):
        decode(experiment, corpus, tmp_path)


def test_options_from_a_file_and_unknown_ones(tmp_path, capsys):
    (tmp_path / "good.yaml").write_text("beam_size: 7\nnbest: 2\n")
    needed = ["--asr_train_config", "c", "--asr_model_file", "m", "--data_dir", "d", "--output_dir", "o"]
    args = avsr_llm_inference.parse([*needed, "--config", str(tmp_path / "good.yaml"), "--nbest", "3"])
    assert (args.beam_size, args.nbest) == (7, 3)
    (tmp_path / "bad.yaml").write_text("beam_sise: 7\n")
    with pytest.raises(SystemExit):
        avsr_llm_inference.parse([*needed, "--config", str(tmp_path / "bad.yaml")])
    assert "unknown option 'beam_sise' (did you mean 'beam_size'?)" in capsys.readouterr().err


def test_speech2text_is_where_espnet_users_look_for_it():
    assert avsr_llm_inference.Speech2Text is Speech2Text
