"""Damaged, contradictory and malicious sources: every loader refuses them with a reason, and executes nothing."""

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from espnet2_avsr_llm import checkpoint
from espnet2_avsr_llm.frontend import FRONTENDS
from espnet2_avsr_llm.hub.resolve import SourceError
from espnet2_avsr_llm.llm.causal_lm import CausalLM

LOADERS = {
    "whisper": FRONTENDS["whisper"],
    "avhubert": FRONTENDS["avhubert"],
    "wavlm": FRONTENDS["hf_speech"],
    "llama": lambda source: CausalLM(source=source, dtype="float32"),
}


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory):
    from transformers import AutoConfig, AutoModel

    folder = tmp_path_factory.mktemp("wavlm")
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=[8] * 7, num_conv_pos_embedding_groups=2)
    AutoModel.from_config(AutoConfig.for_model("wavlm", **sizes)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=LOADERS)
def source(request, sources, wavlm, tmp_path):
    """A loader and a copy of its source folder."""
    folder = tmp_path / "source"
    shutil.copytree((sources | {"wavlm": wavlm})[request.param], folder)
    LOADERS[request.param](str(folder))  # it is good
    return LOADERS[request.param], folder


def refused(source, message):
    load, folder = source
    with pytest.raises(SourceError, match=message) as error:
        load(str(folder))
    assert str(folder) in str(error.value)


def weights(folder):
    return folder / "model.safetensors"


def change(folder, edit):
    tensors = load_file(weights(folder))
    name = next(n for n in sorted(tensors) if n.endswith("q_proj.weight"))
    edit(tensors, name)
    save_file(tensors, weights(folder), metadata={"format": "pt"})
    return name


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_truncated_weights(source, size):
    content = weights(source[1]).read_bytes()
    weights(source[1]).write_bytes(content[:size])
    refused(source, "cannot be loaded .*fetch them again")


@pytest.mark.parametrize("length", [2**63, 2**40, 10**6])
def test_a_header_longer_than_the_file(source, length):
    content = weights(source[1]).read_bytes()
    weights(source[1]).write_bytes(struct.pack("<Q", length) + content[8:])
    refused(source, "cannot be loaded")


def test_a_tensor_that_points_beyond_the_file(source):
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    weights(source[1]).write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    refused(source, "cannot be loaded")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(source, value):
    def edit(tensors, name):
        tensors[name][0, 0] = value

    change(source[1], edit)
    refused(source, "q_proj.weight holds NaN or infinity")


def test_wrong_shape(source):
    def edit(tensors, name):
        tensors[name] = tensors[name][:, 1:].contiguous()

    change(source[1], edit)
    refused(source, "size mismatch .*q_proj.weight")


def test_missing_tensor(source):
    change(source[1], lambda tensors, name: tensors.pop(name))
    refused(source, "q_proj.weight")


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"model_type": "nonsense"}', '{"model_type": 3}'])
def test_bad_configuration(source, content):
    (source[1] / "config.json").write_text(content)
    with pytest.raises(SourceError):
        source[0](str(source[1]))


def test_missing_files(source):
    weights(source[1]).unlink()
    refused(source, "model.safetensors|no file named")


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return exec, (f"open({str(self.file)!r}, 'w')",)


@pytest.mark.parametrize("format", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_pickled_weights_never_run(source, tmp_path, format):
    """The hub's older form of weights; AV-HuBERT folders have no such form."""
    weights(source[1]).unlink()
    torch.save({"x": Canary(tmp_path / "canary")}, source[1] / "pytorch_model.bin", **format)
    refused(source, "exec|no model.safetensors")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("format", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_a_canary_as_checkpoint_never_runs(tmp_path, format):
    torch.save({"x": Canary(tmp_path / "canary")}, tmp_path / "model.pth", **format)
    with pytest.raises(RuntimeError, match=r"model\.pth.*exec"):
        checkpoint.load(tmp_path / "model.pth")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("size", [0, 10, 500])
def test_a_truncated_checkpoint(tmp_path, size):
    torch.save({"x": torch.zeros(100)}, tmp_path / "model.pth")
    Path(tmp_path / "model.pth").write_bytes((tmp_path / "model.pth").read_bytes()[:size])
    with pytest.raises(RuntimeError, match=r"model\.pth is truncated or no checkpoint"):
        checkpoint.load(tmp_path / "model.pth")


def test_a_checkpoint_with_nan(make_model, tiny_config):
    from espnet2_avsr_llm.build import build

    states = make_model("asr").state_dict()
    states["projector.streams.audio.0.weight"][0, 0] = float("nan")
    with pytest.raises(RuntimeError, match="projector.streams.audio.0.weight holds NaN or infinity"):
        build(tiny_config("asr")).load_state_dict(states)
