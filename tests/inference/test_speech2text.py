"""Decoding as users call it: single and list, arrays and files, windows, limits, n-best, passes, packed models."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from decoding import LIMIT, MIXED, call, ids, load, load_batched, utterance

from espnet2_avsr_llm import checkpoint
from espnet2_avsr_llm.data.media import NoStreamError, read_roi, write_roi
from espnet2_avsr_llm.data.roi import NoFaceError, landmarks
from espnet2_avsr_llm.inference import speech2text as module
from espnet2_avsr_llm.inference.speech2text import Speech2Text
from espnet2_avsr_llm.inference.windows import window_cuts


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
        text = torch.tensor([token_ids]), torch.tensor([len(token_ids)])
        logits, *_ = model.predict(model.encode(model.inputs(inputs)), model.plan.all_passes()[0], text)
    scored = token_ids + ([] if hypothesis.truncated else [model.llm.tokens.eos_id])  # the limit's EOS is forced, at no cost
    logp = logits[0].log_softmax(-1)[range(len(scored)), scored].sum().item()
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


def test_merged_adapters_give_the_same_text(experiment):
    merged, plain = (load(experiment, beam_size=2, merge_adapter=m, batch_size=2) for m in (True, False))
    weights = [p.clone() for p in merged.model.parameters()]
    for request in ({}, {"task": "asr"}, {"audio_rate": 16}):
        first, second = (call(decoder, MIXED[:4], **request) for decoder in (merged, plain))
        assert ids(first) == ids(second)
        np.testing.assert_allclose([r[0][3].score for r in first], [r[0][3].score for r in second], atol=1e-3)
    assert all(torch.equal(p, w) for p, w in zip(merged.model.parameters(), weights))


@pytest.mark.parametrize("adapter,found", [(None, "NoneType"), ("mome", "MoME")])
def test_what_cannot_be_merged_is_refused_at_construction(tiny_config, tmp_path, adapter, found):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_config("asr", adapter=adapter)))
    with pytest.raises(ValueError, match=f"{found} cannot be merged"):
        Speech2Text(tmp_path / "config.yaml", merge_adapter=True, **LIMIT)


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


def test_no_utterances_give_no_results(greedy):
    assert greedy(speech=[]) == greedy(speech=[], video=[]) == []


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


def faces(monkeypatch, frames, count):
    """Any video file has these pictures, all of ``count`` faces in the same place."""

    class Track:
        faces, free = count, False

        def __call__(self, frame):
            return np.random.default_rng(0).uniform((10, 10), (50, 40), (68, 2)) if count else None

    monkeypatch.setattr(module, "video_frames", lambda path: iter(frames))
    monkeypatch.setattr(landmarks, "get_backend", lambda name: SimpleNamespace(track=lambda path, first: Track()))


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
    faces(monkeypatch, np.zeros((25, 48, 64, 3), np.uint8), 0)
    (faceless,) = greedy(sound, mouth)
    assert faceless[2] == blind[2] and "mouth.mp4: found no face in any of 25 frames" in caplog.text
    with pytest.raises(NoFaceError, match="mouth.mp4: found no face"):
        greedy(video=mouth)


def test_landmarks_of_no_face_are_no_face(greedy, tmp_path, monkeypatch, caplog):
    """All in one point: the sound is decoded without them."""
    soundfile.write(tmp_path / "sound.wav", utterance(0, 25)[0] / 10, 16000)
    faces(monkeypatch, np.zeros((25, 48, 64, 3), np.uint8), 1)
    track = SimpleNamespace(track=lambda path, first: Point())
    monkeypatch.setattr(landmarks, "get_backend", lambda name: track)
    (blind,) = greedy(tmp_path / "sound.wav", tmp_path / "clip.mp4")
    assert blind[2] == greedy(tmp_path / "sound.wav")[0][2] and "clip.mp4: found the stable face landmarks of a frame in one point" in caplog.text


class Point:
    """A track whose landmarks coincide."""

    faces, free = 1, False

    def __call__(self, frame):
        return np.ones((68, 2))


class Frame(np.ndarray):
    """A picture that counts how many are alive."""

    alive = most = 0

    def __array_finalize__(self, source):
        Frame.alive += 1
        Frame.most = max(Frame.most, Frame.alive)

    def __del__(self):
        Frame.alive -= 1


@pytest.mark.parametrize("count", [1, 3])
def test_faces_of_a_long_video_are_cropped_as_they_come_and_several_are_told(greedy, monkeypatch, caplog, count):
    faces(monkeypatch, (np.full((48, 64, 3), t % 250, np.uint8).view(Frame) for t in range(1000)), count)
    assert module._read_video("clip.mp4").shape == (1000, 96, 96)
    assert 0 < Frame.most < 2 * 100  # an array and a view of it each
    told = "clip.mp4: 3 faces are seen at once; the largest of the first frame is followed"
    assert [record.message for record in caplog.records] == ([told] if count > 1 else [])


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
