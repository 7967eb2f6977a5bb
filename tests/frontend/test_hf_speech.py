"""WavLM, HuBERT, wav2vec 2.0 and data2vec: the hub's own numbers, the folders they come in, public sizes."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModel, HubertForCTC

from espnet2_avsr_llm.frontend.hf_speech import HFSpeechFrontend
from espnet2_avsr_llm.hub.resolve import SourceError

TINY = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, conv_dim=[16] * 7, initializer_range=0.3)
POSITIONS = dict(num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4)
GROUP, LAYER = ({"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"} for norm in ("group", "layer"))
DATA2VEC = dict(num_conv_pos_embeddings=3, conv_pos_kernel_size=5, num_conv_pos_embedding_groups=4)
MODELS = [(family, POSITIONS | norm) for family in ("wavlm", "hubert", "wav2vec2") for norm in (GROUP, LAYER)] + [("data2vec-audio", DATA2VEC)]


def save(folder, family, model_class=AutoModel, **options):
    """A model folder, and the model."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(family, **TINY | options)
    model = model_class.from_config(config) if model_class is AutoModel else model_class(config)
    model.save_pretrained(folder)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("family, options", MODELS, ids=[f"{f}-{o.get('feat_extract_norm', '')}" for f, o in MODELS])
def test_numbers_of_the_hub(tmp_path, family, options):
    model = save(tmp_path, family, **options)
    wave = torch.randn(2, 8000)
    frontend = HFSpeechFrontend(str(tmp_path))
    features, lengths = frontend(speech=(wave, torch.tensor([8000, 5000])))["audio"]
    assert lengths.tolist() == model._get_feat_extract_output_lengths(torch.tensor([8000, 5000])).tolist() == [24, 15]
    for row, (n, t) in enumerate([(8000, 24), (5000, 15)]):
        torch.testing.assert_close(features[row, :t], model(wave[row : row + 1, :n]).last_hidden_state[0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_released_use_without_mask_depends_on_padding(tmp_path):
    """What is done differently here: Llama-AVSR gives WavLM the padded batch and no mask."""
    model = save(tmp_path, "wavlm", **POSITIONS, **LAYER)
    wave = torch.randn(1, 5000)
    alone, padded = (model(x).last_hidden_state[0, :15] for x in (wave, torch.nn.functional.pad(wave, (0, 3000))))
    assert (alone - padded).abs().max() > 0.01
    features, _ = HFSpeechFrontend(str(tmp_path))(speech=(torch.nn.functional.pad(wave, (0, 3000)), torch.tensor([5000])))["audio"]
    torch.testing.assert_close(features[0], alone, atol=1e-4, rtol=0)


def test_a_fine_tuned_model_with_a_head(tmp_path):
    """The encoder lies under a prefix there; a mask embedding, which only training needs, may be missing."""
    from safetensors.torch import load_file, save_file

    model = save(tmp_path, "hubert", HubertForCTC, **POSITIONS, **GROUP)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "masked_spec" not in k}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    first, second = HFSpeechFrontend(str(tmp_path)), HFSpeechFrontend(str(tmp_path))
    assert first.provenance == second.provenance
    for name, tensor in first.encoder.state_dict().items():
        assert torch.equal(tensor, model.hubert.state_dict()[name]), name


def test_missing_tensors_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    save(tmp_path, "wavlm", **POSITIONS, **GROUP)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "q_proj" not in k}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match="lacks 4 tensors of its WavLMModel, such as .*q_proj"):
        HFSpeechFrontend(str(tmp_path))


@pytest.mark.parametrize(
    "change, message",
    [({"model_type": "bert"}, "model_type 'bert', expected one of wavlm, hubert"), ({"add_adapter": True}, "add_adapter: true")],
)
def test_other_models_are_refused(tmp_path, change, message):
    save(tmp_path, "wav2vec2", **POSITIONS, **GROUP)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(SourceError, match=message):
        HFSpeechFrontend(str(tmp_path))


@pytest.mark.parametrize(
    "arch, millions",
    [("wavlm-base-plus", 94.4), ("wavlm-large", 315.5), ("hubert-base", 94.4), ("hubert-large", 315.4)]
    + [("wav2vec2-base", 94.4), ("wav2vec2-large", 315.4), ("data2vec-audio-large", 313.3)],
)
def test_public_sizes_build_on_meta(arch, millions):
    with torch.device("meta"):
        frontend = HFSpeechFrontend(init="random", arch=arch)
    assert sum(p.numel() for p in frontend.parameters()) / 1e6 == pytest.approx(millions, rel=2e-3)
    assert frontend.num_frames("audio", {"speech": 16000}) == 49
