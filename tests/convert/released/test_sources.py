"""Pretrained parts: named where they are the user's source, written beside the experiment where they differ from it."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import save_file

from espnet2_avsr_llm.convert.released import Options, convert_released, to_released
from espnet2_avsr_llm.convert.released.facts import under
from espnet2_avsr_llm.convert.released.sources import public_llm
from espnet2_avsr_llm.hub.resolve import arch

CASE = "vsr_pool5_norm_encoderlora"


@pytest.fixture(scope="module")
def released(make_authors, tmp_path_factory):
    """State dict and options of a video model, whose sources here have weights: the very ones of the state dict."""
    authors, root = make_authors(CASE), tmp_path_factory.mktemp("sources")
    state, options = authors.state(), authors.options(root)
    public = root / "avhubert"
    public.mkdir()
    unused = ("lora", "mask_emb", "final_proj", "label_embs")
    save_file({n: t for n, t in under(state, "video_encoder").items() if not any(word in n for word in unused)}, public / "model.safetensors")
    sizes = dict(encoder_embed_dim=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_embed_dim=32, trunk_widths=[4, 4, 8, 8])
    (public / "config.json").write_text(json.dumps({"model_type": "avhubert", **sizes, "conv_pos": 8, "conv_pos_groups": 2}))
    llm = {n: t for n, t in under(state, "llm").items() if "lora" not in n and n != "lm_head.weight"}
    save_file(llm | {"model.embed_tokens.weight": llm["model.embed_tokens.weight"][: authors.own].clone()}, root / "llm.safetensors")
    shutil.move(root / "llm.safetensors", f"{options['llm']}/model.safetensors")
    return state, options | {"video_encoder": str(public)}


def convert(state, options, tmp_path):
    torch.save(state, tmp_path / "released.pth")
    model = convert_released(tmp_path / "released.pth", tmp_path / "out", Options(**options))
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    back = to_released(tmp_path / "out")
    assert list(back) == list(state) and all(torch.equal(back[n], t) for n, t in state.items())
    return model, {part: config[f"{part}_conf"]["source"] for part in ("video_frontend", "llm")}


def test_parts_equal_to_their_source_are_not_copied(released, tmp_path):
    state, options = released
    _, sources = convert(state, options, tmp_path)
    assert sources == {"video_frontend": options["video_encoder"], "llm": options["llm"]}
    assert not (tmp_path / "out" / "sources").exists()


def test_changed_batch_norm_is_kept_beside_the_experiment(released, tmp_path):
    """The released trainers updated the running statistics of the frozen encoder (system specification, section 10, item 16)."""
    state, options = released
    name = "feature_extractor_video.resnet.frontend3D.1.running_var"
    changed = state | {f"video_encoder.{name}": state[f"video_encoder.{name}"] * 2}
    model, sources = convert(changed, options, tmp_path)
    assert sources == {"video_frontend": str(tmp_path / "out/sources/video_frontend"), "llm": options["llm"]}
    assert torch.equal(model.frontends["video_frontend"].encoder.state_dict()[name], changed[f"video_encoder.{name}"])


def test_without_a_source_everything_is_kept(released, tmp_path):
    state, options = released
    _, sources = convert(state, options | {"video_encoder": {"encoder_attention_heads": 2}}, tmp_path)
    assert sources["video_frontend"] == str(tmp_path / "out/sources/video_frontend")


def test_llm_by_configuration_and_tokenizer(released, tmp_path):
    state, options = released
    config = dict(num_attention_heads=4, rms_norm_eps=1e-5, rope_theta=500000.0)
    model, sources = convert(state, options | {"llm": config, "tokenizer": options["llm"]}, tmp_path)
    assert sources["llm"] == str(tmp_path / "out/sources/llm") and model.llm.model.config.num_key_value_heads == 2
    assert model.llm.model.config.rope_parameters["rope_theta"] == 500000.0


@pytest.mark.parametrize("name", ["llama-2-7b", "llama-3.1-8b", "llama-3.2-1b", "tinyllama-1.1b"])
def test_public_llm_is_known_by_its_sizes(name):
    facts = arch(name)
    tensors = {f"model.layers.{i}.mlp.gate_proj.weight": torch.empty(facts["intermediate_size"], 1, device="meta") for i in range(facts["num_hidden_layers"])}
    tensors["model.embed_tokens.weight"] = torch.empty(facts["vocab_size"] + 5, facts["hidden_size"], device="meta")
    assert public_llm(tensors)["_name_or_path"] == facts["_name_or_path"]
