"""AV-HuBERT as ears: sound alone, two passes and the joint stream, from data to text (Llama-AVSR, arXiv 2409.12319)."""

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet2_avsr_llm.bin import make_shape
from espnet2_avsr_llm.data.batching import read_lengths
from espnet2_avsr_llm.data.collate import collate
from espnet2_avsr_llm.data.filterbank import stacked_filterbanks
from espnet2_avsr_llm.data.media import write_roi
from espnet2_avsr_llm.data.preprocess import Augmentation, Preprocessor, eval_inputs
from espnet2_avsr_llm.frontend.avhubert import AVHubertFrontend
from espnet2_avsr_llm.inference.speech2text import Speech2Text
from espnet2_avsr_llm.pass_plan import Pass
from espnet2_avsr_llm.sequence import IGNORE, Role
from espnet2_avsr_llm.summary import summarise

MODES = {
    "audio": ("asr", ["audio"], {"audio": 3}),
    "two passes": ("avsr", ["audio", "video"], {"audio": 3, "video": 2}),
    "joint": ("avsr", ["audiovisual"], {"audiovisual": 2}),
}
FRAMES = (25, 13, 20)


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture
def config(tiny_config, sources, mode):
    """Configuration with AV-HuBERT as the only frontend."""
    task, streams, rates = MODES[mode]
    frontends = {f"{part}_frontend": None for part in ("audio", "video")} | {f"{part}_frontend_conf": {} for part in ("audio", "video")}
    part = "audio_frontend" if task == "asr" else "video_frontend"
    frontends |= {part: "avhubert", f"{part}_conf": {"source": sources["avhubert"], "streams": streams}}
    return tiny_config(task) | frontends | {"plan_conf": {"passes": [{"task": task, "rates": rates}]}}


@pytest.fixture
def model(config):
    from espnet2_avsr_llm.build import build
    from espnet2_avsr_llm.espnet_model import ESPnetAVSRLLMModel

    torch.manual_seed(0)
    model = build(config, ESPnetAVSRLLMModel)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.normal_(0, 0.3)
    return model.train()


def utterance(row, frames, only=None):
    """Sound and pictures of one clip, or one of them."""
    rng = np.random.default_rng(row)
    speech = rng.standard_normal(frames * 640).astype(np.float32) if only != "video" else np.zeros(0, np.float32)
    video = rng.integers(0, 256, (frames if only != "speech" else 0, 96, 96), dtype=np.uint8)
    return speech, video


def make_batch(model, utterances):
    names = {name for f in model.frontends.values() for name in f.inputs}
    samples = []
    for i, (speech, video) in enumerate(utterances):
        inputs = {n: x for n, x in eval_inputs(speech, video, filterbanks=True).items() if n in names}
        samples.append((str(i), inputs | {"text": np.arange(2, 5 + i)}))
    return collate(samples)[1]


def logits(model, batch):
    (pass_,) = model.plan.passes()
    return model.predict(model.encode(model.inputs(batch)), pass_, (batch["text"], batch["text_lengths"]))[0]


@torch.no_grad()
def test_alone_equals_in_batch(model):
    utterances = [utterance(i, n) for i, n in enumerate(FRAMES)]
    batch = make_batch(model, utterances)
    together = logits(model, batch)
    for i in range(3):
        alone = {name: x[i : i + 1] for name, x in batch.items()}
        alone = {n: x[:, : alone[f"{n}_lengths"]] if f"{n}_lengths" in alone else x for n, x in alone.items()}
        torch.testing.assert_close(logits(model, alone)[0, -4 - i :], together[i, -4 - i :], atol=1e-4, rtol=0)
    assert (together[0, -4:] - together[1, -4:]).abs().max() > 0.1


def test_layout_and_gradients(model, mode):
    batch = make_batch(model, [utterance(0, 25), utterance(1, 13)])
    (pass_,) = model.plan.passes()
    inputs, _ = model.prepare(model.encode(model.inputs(batch)), pass_, (batch["text"], batch["text_lengths"]))
    roles = [Role(r).name for r in dict.fromkeys(inputs.roles[0].tolist())]
    order = {"audio": ["AUDIO"], "two passes": ["AUDIO", "VIDEO"], "joint": ["AUDIOVISUAL"]}[mode]
    assert roles == ["BOS", *["DELIMITER"] * (mode != "joint"), *order, "PROMPT", "TEXT"]
    counts = {"audio": {"AUDIO": 8}, "two passes": {"AUDIO": 8, "VIDEO": 12}, "joint": {"AUDIOVISUAL": 12}}[mode]
    assert {name: (inputs.roles[0] == Role[name]).sum().item() for name in counts} == counts
    assert (inputs.labels[0] != IGNORE).sum() == 4
    model(**batch)[0].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters() if p.requires_grad)


def test_length_files_equal_what_is_laid_out(model, config, corpus, tmp_path):
    from espnet2_avsr_llm.data.media import read_audio, read_roi

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    make_shape.main(["--config", str(tmp_path / "config.yaml"), "--data_dirs", str(corpus / "valid"), "--outs", str(tmp_path / "shape")])
    texts = dict(line.split(maxsplit=1) for line in (corpus / "valid" / "text").read_text().splitlines())
    names = {name for f in model.frontends.values() for name in f.inputs}
    for utt, (tokens, frames) in read_lengths(tmp_path / "shape").items():
        data = {"speech": read_audio(corpus / "valid" / "data" / f"{utt}.flac"), "video": read_roi(corpus / "valid" / "data" / f"{utt}.mp4")}
        data = {n: x for n, x in data.items() if n in names} | {"text": texts[utt]}
        batch = collate([(utt, Preprocessor(model.llm.tokens, None, 0, filterbanks=True)(utt, data))])[1]
        (pass_,) = model.plan.passes()
        laid_out = model.prepare(model.encode(model.inputs(batch)), pass_, (batch["text"], batch["text_lengths"]))[0]
        assert (tokens, frames) == (laid_out.attention_mask.sum(), int(next(iter(batch[f"{n}_lengths"] for n in names))))


def test_decoding_reads_files(model, config, tmp_path, mode):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    speech, video = utterance(3, 30)
    speech = (speech / 8).clip(-1, 1)
    soundfile.write(tmp_path / "a.wav", speech, 16000, subtype="FLOAT")
    write_roi(tmp_path / "a.mp4", video)
    decoder = Speech2Text(tmp_path / "config.yaml", tmp_path / "model.pth", max_tokens_per_second=5, min_tokens=3)
    given = {"speech": tmp_path / "a.wav"} | ({"video": tmp_path / "a.mp4"} if mode != "audio" else {})
    (result,) = decoder(**given)
    inputs = eval_inputs(speech, video if mode != "audio" else None, filterbanks=True)
    assert result[2] and inputs["speech"].shape == (30, 104)
    if mode != "audio":
        (partial,) = decoder(speech=given["speech"], video=None)
        assert partial[3].task == result[3].task


def test_summary_counts_the_joint_stream(model, mode):
    (cost,) = summarise(model, None, 2.0, 7)["passes"]
    assert [cost.get(f"{s}_tokens", 0) for s in ("audio", "video", "audiovisual")] == {"audio": [16, 0, 0], "two passes": [16, 25, 0], "joint": [0, 0, 25]}[mode]


@torch.no_grad()
def test_a_missing_modality_equals_the_encoder_without_it(sources):
    """In the joint stream a row without sound (or pictures) is what AV-HuBERT makes of the other alone."""
    joint, video, audio = (AVHubertFrontend(sources["avhubert"], streams=[s]) for s in ("audiovisual", "video", "audio"))
    rows = [utterance(0, 12), utterance(1, 9, "video"), utterance(2, 7, "speech"), utterance(3, 0)]
    inputs = [eval_inputs(*row, filterbanks=True) for row in rows]
    pad = lambda name: (  # noqa: E731
        torch.nn.utils.rnn.pad_sequence([torch.from_numpy(x[name]) for x in inputs], batch_first=True),
        torch.tensor([len(x[name]) for x in inputs]),
    )
    features, lengths = joint(video=pad("video"), speech=pad("speech"))["audiovisual"]
    assert lengths.tolist() == [12, 9, 7, 0]
    torch.testing.assert_close(features[1, :9], video(video=pad("video"))["video"][0][1, :9], atol=1e-4, rtol=0)
    torch.testing.assert_close(features[2, :7], audio(speech=pad("speech"))["audio"][0][2, :7], atol=1e-4, rtol=0)


def test_waveforms_are_refused(sources):
    with pytest.raises(ValueError, match=r"filterbanks \(B, T, 104\), found \[1, 640\]"):
        AVHubertFrontend(sources["avhubert"], streams=["audio"])(speech=(torch.zeros(1, 640), torch.tensor([640])))


def test_unknown_streams():
    with pytest.raises(ValueError, match=r"streams \['sound'\]: choose from \['video'\], \['audio'\], \['audio', 'video'\], \['audiovisual'\]"):
        AVHubertFrontend(streams=["sound"])


@pytest.mark.parametrize("task, rates", [("asr", {"audiovisual": 2}), ("avsr", {"audio": 2, "audiovisual": 2})])
def test_only_avsr_reads_the_joint_stream(task, rates):
    with pytest.raises(ValueError, match="but rates are given for"):
        Pass(task, rates)


def test_training_adds_noise_before_the_filterbanks():
    """The released program gives this mode no augmentation at all."""
    speech, video = utterance(0, 20)
    clean = eval_inputs(speech, video, filterbanks=True)["speech"]
    noisy = Preprocessor(None, Augmentation(time_mask=True), 0, filterbanks=True)("utt", {"speech": speech, "video": video})["speech"]
    assert clean.shape == noisy.shape == (20, 104) and not np.allclose(clean, noisy)


def test_filterbanks_are_those_of_the_official_program(golden):
    inputs = golden.inputs()
    for name in ("s0", "s1", "s2"):
        found = stacked_filterbanks(inputs[name]["wave"][:, 0].numpy())
        np.testing.assert_allclose(found, inputs[name]["fbank"].numpy(), atol=2e-5)


def test_level_matters_in_the_filled_up_frame_alone_and_silence_is_zero():
    speech = np.random.default_rng(0).standard_normal(6400).astype(np.float32)
    found, louder = stacked_filterbanks(speech), stacked_filterbanks(speech * 100)
    np.testing.assert_allclose(found[:-1], louder[:-1], atol=1e-4)
    assert np.abs(found[-1] - louder[-1]).max() > 0.1
    np.testing.assert_allclose(stacked_filterbanks(np.zeros(6400, np.float32))[:-1], 0, atol=1e-6)
