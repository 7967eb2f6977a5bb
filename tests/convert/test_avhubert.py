"""AV-HuBERT files of fairseq: the official program's numbers after conversion, fine-tuned files, and files that are refused."""

import argparse
import json

import pytest
import torch

from espnet2_avsr_llm.bin import convert as program
from espnet2_avsr_llm.convert.avhubert import convert_avhubert
from espnet2_avsr_llm.convert.torch_file import read_torch_file
from espnet2_avsr_llm.frontend.avhubert import AVHubertFrontend
from espnet2_avsr_llm.hub.resolve import SourceError

OPTIONS = dict(
    encoder_embed_dim=16,
    encoder_layers=1,
    encoder_attention_heads=2,
    encoder_ffn_embed_dim=32,
    conv_pos=8,
    conv_pos_groups=2,
    audio_feat_dim=104,
    layer_norm_first=True,
    dropout_input=0.2,
    encoder_layerdrop=0.0,
    mask_prob_image=0.3,
)


def encoder(**options):
    torch.manual_seed(3)
    return AVHubertFrontend.random({"model_type": "avhubert", "trunk_widths": [4, 4, 8, 8]} | {k: v for k, v in OPTIONS.items() if "mask" not in k} | options)


def fairseq(tmp_path, tensors=None, cfg=None, prefix="", name="a.pt", **format):
    """A file as fairseq writes it."""
    tensors = encoder().state_dict() if tensors is None else tensors
    model = {prefix + k: v for k, v in tensors.items()} | {f"{prefix}mask_emb": torch.ones(104), f"{prefix}final_proj.weight": torch.ones(2, 16)}
    state = {"args": None, "cfg": {"model": OPTIONS, "task": {"data": "/x"}} if cfg is None else cfg, "model": model, "extra_state": {"epoch": 1}}
    torch.save(state, tmp_path / name, **format)
    return tmp_path / name


def same(folder, tensors):
    loaded = AVHubertFrontend(str(folder)).encoder.state_dict()
    assert loaded.keys() == tensors.keys() and all(torch.equal(loaded[k], tensors[k]) for k in tensors)


def test_program_prints_what_it_kept_and_dropped(tmp_path, capsys):
    program.main(["avhubert", str(fairseq(tmp_path)), str(tmp_path / "out")])
    same(tmp_path / "out", encoder().state_dict())
    out = capsys.readouterr().out
    count = len(encoder().state_dict())
    assert f"kept {count} tensors" in out and "dropped 2 tensors: final_proj.weight (1), mask_emb (1)" in out and "dropped besides: extra_state" in out
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["conv_pos"], config["trunk_widths"], config["layer_norm_first"], config["dropout_input"]) == (8, [4, 4, 8, 8], True, 0.2)


def omega(content):
    from omegaconf import OmegaConf

    return OmegaConf.create(content)


@pytest.mark.parametrize("nested", [dict, omega, lambda c: argparse.Namespace(**c["model"])], ids=["dict", "OmegaConf", "Namespace"])
def test_fine_tuned_files(tmp_path, nested, monkeypatch):
    """The encoder under a prefix, its configuration inside that of the fine-tuned model, a decoder beside it."""
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)  # a training in this process sets it
    cfg = {"model": {"encoder_embed_dim": 999, "decoder_layers": 9, "w2v_args": nested({"model": OPTIONS})}}
    tensors = encoder().state_dict()
    path = fairseq(tmp_path, tensors, cfg, prefix="encoder.w2v_model.", _use_new_zipfile_serialization=False)
    state = torch.load(path, weights_only=False)
    state["model"]["decoder.layers.0.fc1.weight"] = torch.ones(3)
    torch.save(state, path)
    convert_avhubert(path, tmp_path / "out")
    same(tmp_path / "out", tensors)


@pytest.mark.parametrize("options", [{"layer_norm_first": False}, {"modality_fuse": "add"}, {"resnet_relu_type": "relu"}], ids=str)
def test_other_architectures(tmp_path, options):
    tensors = encoder(**options).state_dict()
    convert_avhubert(fairseq(tmp_path, tensors, {"model": OPTIONS | options}), tmp_path / "out")
    same(tmp_path / "out", tensors)
    assert AVHubertFrontend(str(tmp_path / "out")).encoder.config == encoder(**options).config


def changed(**tensors):
    return encoder().state_dict() | tensors


@pytest.mark.parametrize(
    "tensors, cfg, message",
    [
        (changed(**{"layer_norm.bias": torch.ones(3)}), None, r"contradicts its configuration in 1 tensors: layer_norm.bias \[3\], expected \[32\]"),
        (changed(**{"layer_norm.bias": torch.full((32,), torch.nan)}), None, "layer_norm.bias holds NaN or infinity"),
        ({"layer_norm.bias": torch.ones(32)}, None, r"holds 0 AV-HuBERT encoders"),
        ({k: v for k, v in encoder().state_dict().items() if "fc1" not in k}, None, "lacks 2 tensors of its encoder, such as encoder.layers.0.fc1.weight"),
        (None, {"model": OPTIONS | {"encoder_layers": 2}}, "lacks .* encoder.layers.1"),
        (None, {"model": {}}, "does not say the encoder's sizes"),
        (None, {"model": OPTIONS | {"activation_fn": "relu"}}, "activation_fn is 'relu', expected 'gelu'"),
        (None, {"model": OPTIONS | {"encoder_attention_heads": 3}}, "no multiple of encoder_attention_heads 3"),
        (None, {"model": OPTIONS | {"modality_fuse": "mean"}}, "modality_fuse 'mean': expected concat or add"),
    ],
)
def test_refused(tmp_path, tensors, cfg, message):
    with pytest.raises(SourceError, match=message):
        convert_avhubert(fairseq(tmp_path, tensors, cfg), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_of_something_else(tmp_path):
    torch.save([1, 2], tmp_path / "a.pt")
    with pytest.raises(SourceError, match="has no state dict under 'model'"):
        convert_avhubert(tmp_path / "a.pt", tmp_path / "out")


def test_program_ends_with_the_reason(tmp_path):
    with pytest.raises(SystemExit, match="avsr-llm convert avhubert: No file"):
        program.main(["avhubert", str(tmp_path / "absent.pt"), str(tmp_path / "out")])


@pytest.fixture(scope="module", params=[{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def converted(request, golden, tmp_path_factory):
    """The official file, with the convolutions that its copy leaves out, converted."""
    folder = tmp_path_factory.mktemp("golden")
    official = read_torch_file(f"{golden.HERE}/avhubert_fairseq_layout_notrunk.pt")
    state = {"cfg": official["cfg"], "model": golden.avhubert_state_dict("prenorm") | dict(official["model"])}
    torch.save(state, folder / "a.pt", **request.param)
    convert_avhubert(folder / "a.pt", folder / "out")
    return str(folder / "out")


def test_the_official_file_without_its_convolutions_is_refused(golden, tmp_path):
    with pytest.raises(SourceError, match="lacks .* feature_extractor_video.resnet.trunk.layer1.0.conv1.weight"):
        convert_avhubert(f"{golden.HERE}/avhubert_fairseq_layout_notrunk.pt", tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("stream, reference", [("video", "video"), ("audio", "audio"), ("audiovisual", "both")])
def test_numbers_of_the_official_program(golden, converted, stream, reference):
    """Alone and inside a padded batch; the official program, which masks no padding, is right for the longest row only."""
    expected, inputs = golden._load("avhubert.pt")["prenorm"], golden.inputs()
    frontend = AVHubertFrontend(converted, streams=[stream])
    names, frames = ("s0", "s1"), torch.tensor([26, 19])
    pad = torch.nn.utils.rnn.pad_sequence
    batch = {
        "video": (pad([inputs[s]["video_u8"] for s in names], batch_first=True), frames),
        "speech": (pad([inputs[s]["fbank"] for s in names], batch_first=True), frames),
    }
    batch = {name: batch[name] for name in frontend.inputs}
    (features, lengths), = frontend(**batch).values()
    torch.testing.assert_close(features[0], expected[reference][0], atol=1e-4, rtol=0)
    if stream != "audio":
        torch.testing.assert_close(features[1, :19], expected[f"{reference}_masked"][1, :19], atol=1e-4, rtol=0)
    for row, n in enumerate(lengths.tolist()):
        (alone, _), = frontend(**{name: (x[row : row + 1, :n], frames[row : row + 1]) for name, (x, _) in batch.items()}).values()
        torch.testing.assert_close(alone[0], features[row, :n], atol=1e-4, rtol=0)
