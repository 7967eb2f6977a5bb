"""Whisper frontend: lengths, log-mel parity with the hub's extractor, batch invariance, frozen behaviour, folders it reads."""

import logging

import numpy as np
import pytest
import torch

from espnet2_avsr_llm.frontend.whisper import LogMel, WhisperFrontend, released_frames
from espnet2_avsr_llm.hub.resolve import SourceError


@pytest.fixture(scope="module")
def frontend():
    return WhisperFrontend(init="random", arch="tiny-whisper")


def _batch(*lengths):
    rng = torch.Generator().manual_seed(1)
    rows = [torch.randn(n, generator=rng) for n in lengths]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(lengths)


@pytest.mark.parametrize("bands", [80, 128])
def test_log_mel_equals_the_hub_extractor(bands):
    from transformers import WhisperFeatureExtractor

    wave = np.random.default_rng(0).standard_normal(31234).astype(np.float32) * np.linspace(0, 1, 31234, dtype=np.float32)
    expected = WhisperFeatureExtractor(bands, chunk_length=4)(wave, sampling_rate=16000, return_tensors="pt").input_features
    found = LogMel(bands)(torch.nn.functional.pad(torch.from_numpy(wave), (0, 64000 - 31234))[None])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [0, 319, 320, 639, 33920, 480000])
def test_num_frames_is_what_forward_gives(frontend, samples):
    features, lengths = frontend(speech=(torch.zeros(1, samples), torch.tensor([samples])))["audio"]
    assert lengths.tolist() == [frontend.num_frames("audio", {"speech": samples})] == [samples // 320]
    assert features.shape == (1, samples // 320, 32)


def test_released_number_of_frames(golden):
    """The official program's count, for every length that it was asked for."""
    kept = golden._load("misc.pt")
    assert all(released_frames(samples) == frames for samples, frames in kept["kept_tokens"].items())
    found = {key: value for key, value in kept.items() if key.startswith("kept_tokens_float32_mismatch")}
    assert len(found) == 2
    for key, rows in found.items():
        samples_per_unit = 640 if "frames" in key else 1
        assert all(released_frames(n * samples_per_unit) == old != n * samples_per_unit // 320 for n, old, _ in rows)


def test_alone_equals_in_batch_whatever_the_padding_holds(frontend):
    wave, lengths = _batch(16000, 0, 9000, 200)
    dirty = torch.where(torch.arange(wave.size(1)) < lengths[:, None], wave, torch.tensor(7.0))
    features, frames = frontend(speech=(dirty, lengths))["audio"]
    assert features.shape == (4, 50, 32) and frames.tolist() == [50, 0, 28, 0]
    for row, (n, t) in enumerate(zip(lengths.tolist(), frames.tolist(), strict=True)):
        alone, _ = frontend(speech=(wave[row : row + 1, :n], torch.tensor([n])))["audio"]
        torch.testing.assert_close(features[row, :t], alone[0], atol=1e-4, rtol=0)
        assert not features[row, t:].any()
    assert features[0].abs().max() > 0.1


def test_empty_rows_cost_no_encoder_run(frontend, monkeypatch):
    monkeypatch.setattr(frontend, "_encode_window", lambda *_: pytest.fail("the encoder ran"))
    assert frontend(speech=(torch.zeros(2, 0), torch.tensor([0, 0])))["audio"][0].shape == (2, 0, 32)


def test_longer_than_the_window_is_refused_and_named(frontend):
    with pytest.raises(ValueError, match=r"30\.06 s \(row 1\).*30-s window"):
        frontend(speech=(torch.zeros(2, 481000), torch.tensor([100, 481000])))


def test_frozen_stays_in_eval_mode_without_gradients(frontend):
    frontend.train()
    assert not any(m.training for m in frontend.modules())
    wave, lengths = _batch(3200)
    assert not frontend(speech=(wave, lengths))["audio"][0].requires_grad
    assert all(frontend.is_external(name) for name in frontend.state_dict())


@pytest.mark.parametrize("full", [True, False])
def test_reads_a_full_model_or_an_encoder_alone(tmp_path, frontend, full, caplog, monkeypatch):
    from transformers import WhisperConfig, WhisperModel

    model = WhisperModel(WhisperConfig(**frontend.encoder.config.to_dict() | {"decoder_layers": 1}))
    (model if full else model.encoder).save_pretrained(tmp_path)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        loaded = WhisperFrontend(str(tmp_path))
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(loaded.encoder.state_dict()[name], tensor), name
    assert loaded.provenance["source"] == str(tmp_path)
    assert not caplog.records  # transformers would list the whole decoder


def test_folder_of_another_model_is_refused(tmp_path):
    from transformers import LlamaConfig

    LlamaConfig().save_pretrained(tmp_path)
    with pytest.raises(SourceError, match="'llama'.*expected 'whisper'"):
        WhisperFrontend(str(tmp_path))


def test_random_weights_are_rebuilt_from_their_name_and_disturb_no_other_draw(frontend):
    torch.manual_seed(5)
    again = WhisperFrontend(init="random", arch="tiny-whisper")
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert again.provenance == frontend.provenance


SIZES = [("tiny", 8.21), ("base", 20.59), ("small", 88.15), ("medium", 307.2), ("large-v2", 636.8), ("large-v3", 637.0), ("large-v3-turbo", 637.0)]


@pytest.mark.parametrize("arch, millions", [*SIZES, *((f"{arch}.en", millions) for arch, millions in SIZES[:4])])
def test_public_sizes_build_on_meta(arch, millions):
    with torch.device("meta"):
        frontend = WhisperFrontend(init="random", arch=f"whisper-{arch}")
    assert sum(p.numel() for p in frontend.parameters()) / 1e6 == pytest.approx(millions, rel=2e-3)


@torch.no_grad()
def test_utterance_window_is_an_encoder_of_that_length(sources):
    """The same weights in transformers' own encoder, built for the length of the clip."""
    from transformers.models.whisper.modeling_whisper import WhisperConfig, WhisperEncoder

    frontend = WhisperFrontend(sources["whisper"], window="utterance")
    wave, lengths = _batch(20000)
    features, frames = frontend(speech=(wave, lengths))["audio"]
    size = int(frames)
    assert size == 62
    encoder = WhisperEncoder(WhisperConfig(**frontend.encoder.config.to_dict() | {"max_source_positions": size})).eval()
    state = frontend.encoder.state_dict()
    encoder.load_state_dict(state | {"embed_positions.weight": state["embed_positions.weight"][:size]})
    mel = frontend.log_mel(torch.nn.functional.pad(wave, (0, 48000 - 20000)))[..., : 2 * size]
    torch.testing.assert_close(features, encoder(mel).last_hidden_state, atol=1e-5, rtol=0)


@torch.no_grad()
def test_windows_agree_on_a_clip_that_fills_them_and_differ_on_others(sources):
    whole, cut = (WhisperFrontend(sources["whisper"], window=window) for window in ("30s", "utterance"))
    wave, _ = _batch(48000)
    wave[:, -400:] = 0  # the full window mirrors its last samples
    for samples, bound in ((48000, 1e-4), (16000, None)):
        speech = wave[:, :samples], torch.tensor([samples])
        difference = (whole(speech=speech)["audio"][0] - cut(speech=speech)["audio"][0]).abs().max()
        assert difference < bound if bound else difference > 1e-2


def test_utterance_window_refuses_long_clips_too():
    with pytest.raises(ValueError, match="30-s window"):
        WhisperFrontend(init="random", arch="tiny-whisper", window="utterance")(speech=(torch.zeros(1, 480001), torch.tensor([480001])))


def test_unknown_window():
    with pytest.raises(ValueError, match="whisper window '20s': choose from 30s, utterance"):
        WhisperFrontend(init="random", arch="tiny-whisper", window="20s")
