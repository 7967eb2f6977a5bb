"""AV-HuBERT frontend: lengths, batch invariance, frozen behaviour, LoRA, folders it reads, sizes, and the official program's numbers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from espnet2_avsr_llm.frontend.avhubert import AVHubertFrontend
from espnet2_avsr_llm.frontend.avhubert_model import AVHubert, AVHubertConfig
from espnet2_avsr_llm.hub.resolve import SourceError

TINY = {"init": "random", "arch": "tiny-avhubert"}


@pytest.fixture(scope="module")
def frontend():
    return AVHubertFrontend(**TINY)


def _batch(*lengths):
    rng = torch.Generator().manual_seed(1)
    rows = [torch.randint(0, 256, (n, 88, 88), dtype=torch.uint8, generator=rng) for n in lengths]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(lengths)


def test_alone_equals_in_batch_whatever_the_padding_holds(frontend):
    video, lengths = _batch(12, 0, 7, 1)
    dirty = torch.where((torch.arange(12) < lengths[:, None])[..., None, None], video, torch.tensor(200, dtype=torch.uint8))
    features, frames = frontend(video=(dirty, lengths))["video"]
    assert features.shape == (4, 12, 32) and frames.tolist() == [12, 0, 7, 1]
    for row, n in enumerate(lengths.tolist()):
        alone, _ = frontend(video=(video[row : row + 1, :n], torch.tensor([n])))["video"]
        torch.testing.assert_close(features[row, :n], alone[0], atol=1e-4, rtol=0)
        assert not features[row, n:].any()
    assert features[0].std() > 0.1


def test_bytes_equal_normalised_floats(frontend):
    video, lengths = _batch(5, 3)
    floats = (video.float() / 255 - 0.421) / 0.165
    torch.testing.assert_close(frontend(video=(video, lengths))["video"], frontend(video=(floats, lengths))["video"])


def test_only_empty_rows(frontend):
    features, lengths = frontend(video=(torch.zeros(2, 0, 88, 88, dtype=torch.uint8), torch.tensor([0, 0])))["video"]
    assert features.shape == (2, 0, 32) and features.dtype == torch.float32 and lengths.tolist() == [0, 0]


def test_frozen_stays_in_eval_mode_and_keeps_its_buffers(frontend):
    frontend.train()
    assert not any(m.training for m in frontend.modules())
    before = {k: v.clone() for k, v in frontend.state_dict().items()}
    video, lengths = _batch(6, 6)
    first, second = (frontend(video=(video, lengths))["video"][0] for _ in range(2))
    assert torch.equal(first, second) and not first.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in frontend.state_dict().items())
    assert all(frontend.is_external(name) for name in before)


def test_lora_alone_is_trained_and_alone_is_saved(frontend):
    lora = AVHubertFrontend(**TINY, lora={"rank": 4, "scale": 2.0})
    assert lora.provenance == frontend.provenance
    trained = {n for n, p in lora.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2 and all("lora_" in n for n in trained)
    assert {n for n in lora.state_dict() if not lora.is_external(n)} == trained
    assert lora.encoder.encoder.layers[0].self_attn.q_proj.scaling["default"] == 2.0
    video, lengths = _batch(6, 4)
    features = lora.train()(video=(video, lengths))["video"][0]
    torch.testing.assert_close(features, frontend(video=(video, lengths))["video"][0])  # LoRA starts as nothing
    features.square().mean().backward()
    assert all(p.grad is not None for n, p in lora.named_parameters() if n in trained)


def test_large_with_lora_has_the_published_number_of_trained_parameters():
    with torch.device("meta"):
        lora = AVHubertFrontend(init="random", arch="avhubert-large", lora={"rank": 64, "scale": 2.0})
    assert sum(p.numel() for p in lora.parameters() if p.requires_grad) == 6_291_456


@pytest.mark.parametrize("size, millions", [("base", 103), ("large", 325)])
def test_public_sizes_build_on_meta(size, millions):
    with torch.device("meta"):
        frontend = AVHubertFrontend(init="random", arch=f"avhubert-{size}")
    assert sum(p.numel() for p in frontend.parameters()) / 1e6 == pytest.approx(millions, rel=5e-3)


def _save(folder: Path, config: dict, frontend: AVHubertFrontend) -> str:
    (folder / "config.json").write_text(json.dumps(config))
    save_file(frontend.encoder.state_dict(), folder / "model.safetensors")
    return str(folder)


def _config(frontend: AVHubertFrontend) -> dict:
    return {"model_type": "avhubert", **vars(frontend.encoder.config)}


def test_folder_round_trip(tmp_path, frontend):
    loaded = AVHubertFrontend(_save(tmp_path, _config(frontend), frontend))
    assert loaded.provenance["digest"] == frontend.provenance["digest"]
    assert loaded.encoder.config == frontend.encoder.config


@pytest.mark.parametrize(
    "change, message",
    [
        ({"encoder_layers": 3}, "does not fit config.json"),
        ({"model_type": "hubert"}, "expected 'avhubert'"),
        ({"widths": [1]}, "Unknown AV-HuBERT configuration keys: widths"),
    ],
)
def test_folder_that_contradicts_itself_is_refused(tmp_path, frontend, change, message):
    with pytest.raises(SourceError, match=message):
        AVHubertFrontend(_save(tmp_path, _config(frontend) | change, frontend))


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match="has no config.json"):
        AVHubertFrontend(str(tmp_path))


def test_module_names_are_those_of_fairseq(frontend):
    names = set(frontend.encoder.state_dict())
    assert {
        "feature_extractor_audio.proj.weight",
        "feature_extractor_video.proj.bias",
        "feature_extractor_video.resnet.frontend3D.0.weight",
        "feature_extractor_video.resnet.frontend3D.1.running_var",
        "feature_extractor_video.resnet.frontend3D.2.weight",
        "feature_extractor_video.resnet.trunk.layer2.0.downsample.1.running_mean",
        "feature_extractor_video.resnet.trunk.layer4.1.relu2.weight",
        "layer_norm.weight",
        "post_extract_proj.weight",
        "encoder.pos_conv.0.weight_g",
        "encoder.pos_conv.0.weight_v",
        "encoder.layers.1.self_attn.out_proj.bias",
        "encoder.layers.1.self_attn_layer_norm.weight",
        "encoder.layers.1.fc2.weight",
        "encoder.layers.1.final_layer_norm.weight",
        "encoder.layer_norm.bias",
    } <= names


def _official(golden, tag) -> tuple[AVHubert, dict]:
    model = AVHubert(AVHubertConfig(32, 2, 4, 64, layer_norm_first=tag == "prenorm")).eval()
    unused = {"mask_emb", "label_embs_concat", "final_proj.weight", "final_proj.bias"}
    model.load_state_dict({k: v for k, v in golden.avhubert_state_dict(tag).items() if k not in unused})
    return model, golden._load("avhubert.pt")[tag]


@torch.no_grad()
@pytest.mark.parametrize("tag", ["prenorm", "postnorm"])
@pytest.mark.parametrize("streams", ["video", "audio", "both"])
def test_numbers_of_the_official_program(golden, tag, streams):
    model, expected = _official(golden, tag)
    pad = torch.nn.utils.rnn.pad_sequence
    valid = torch.arange(26) < torch.tensor([[26], [19]])
    given = {}
    if streams != "audio":
        pictures = [(golden.inputs()[s]["video_u8"] / 255 - 0.421) / 0.165 for s in ("s0", "s1")]
        given["video"] = pad(pictures, batch_first=True), valid
    if streams != "video":
        given["audio"] = pad([expected["audio_fbank"][s] for s in ("s0", "s1")], batch_first=True), valid
    features = model(**given)
    torch.testing.assert_close(features[0], expected[streams][0], atol=1e-4, rtol=0)
    if streams != "audio":
        torch.testing.assert_close(features[1, :19], expected[f"{streams}_masked"][1, :19], atol=1e-4, rtol=0)
    if streams == "video":
        torch.testing.assert_close(features[1, :19], expected["video_single_s1"][0], atol=1e-4, rtol=0)
