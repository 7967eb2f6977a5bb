"""What is refused: files that are no released checkpoint, checkpoints that contradict themselves, their options or their sources."""

import json
import re
import shutil

import pytest
import torch

from espnet2_avsr_llm.convert import load_released
from espnet2_avsr_llm.convert.released import Options, convert_released
from espnet2_avsr_llm.hub.resolve import SourceError


@pytest.fixture(scope="module")
def files(make_authors, tmp_path_factory):
    """``files(name)``: state dict and options of a small case, as of now unchanged."""
    root, known = tmp_path_factory.mktemp("refused"), {}

    def make(name):
        if name not in known:
            authors = make_authors(name)
            known[name] = authors.state(), authors.options(root / name)
        state, options = known[name]
        return dict(state), dict(options)

    (root / "x").mkdir()
    for case in ("asr_pool16_norm", "mtsk_asr_pool", "omni_t_pool", "avsr_stack_a4v1_norm_untied"):
        (root / case).mkdir()
    return make


def attempt(tmp_path, state, options):
    torch.save(state, tmp_path / "released.pth")
    convert_released(tmp_path / "released.pth", tmp_path / "out", Options(**options))


def drop(name):
    return lambda state, options: state.pop(name)


def put(**tensors):
    return lambda state, options: state.update({name.replace("__", "."): t for name, t in tensors.items()})


def option(**changed):
    return lambda state, options: options.update(changed)


LAYER = "llm.model.layers.1.self_attn"
ASR = [
    (drop("audio_proj.2.bias"), "lacks audio_proj.2.bias"),
    (drop("audio_proj.3.weight"), "lacks audio_proj.3.weight"),
    (drop(f"{LAYER}.lora_up_V.weight"), f"lacks {LAYER}.lora_up_V.weight, unlike its other layers"),
    (drop("audio_encoder.layers.1.fc1.weight"), "lacks audio_encoder.layers.1.fc1.weight"),
    (drop("llm.model.norm.weight"), "lacks llm.model.norm.weight"),
    (drop("llm.model.embed_tokens.weight"), "lacks llm.model.embed_tokens.weight"),
    (put(audio_encoder__surplus=torch.zeros(1)), "has audio_encoder.surplus besides"),
    (put(video_encoder__post_extract_proj__weight=torch.zeros(16, 32)), "has video_encoder, but no projector for it"),
    (put(optimizer=torch.zeros(1)), "tensor 'optimizer', which no released system has"),
    (put(audio_proj__0__weight=torch.zeros(12, 17)), "audio_proj.0.weight reads 17 features: expected a multiple of the encoder's 16"),
    (put(audio_proj__2__weight=torch.zeros(5, 12)), "size mismatch for projector.streams.audio.2.weight"),
    (put(audio_encoder__layers__1__fc2__weight=torch.zeros(16, 3)), r"has audio_encoder.layers.1.fc2.weight of \[16, 3\], not \[16, 32\]"),
    (lambda s, o: s.update({f"{LAYER}.lora_down_Q.weight": torch.zeros(7, 16)}), "LoRA rank of llm is 3 and 7"),
    (lambda s, o: s.update({f"{LAYER}.lora_down_Q_shared.weight": torch.zeros(3, 16)}), "lacks llm.*_shared.weight, unlike its other layers"),
    (put(audio_proj__0__bias=torch.full((12,), float("nan"))), "audio_proj.0.bias holds NaN"),
    (put(audio_proj__0__bias=torch.zeros(12, dtype=torch.float16)), "audio_proj.0.bias is of torch.float16"),
    (option(rates=None), "pooled at a rate that no tensor tells.*option rates, such as audio=4"),
    (option(rates={"audio": 4, "video": 2}), "rates are given for.*video"),
    (option(rates={"audio": 0}), "different integers from 1"),
    (option(audio_encoder={"encoder_attention_heads": 2, "encoder_layers": 3}), "encoder_layers is 3, but the checkpoint has 2"),
    (option(audio_encoder=None), "No public whisper is 16 wide"),
    (option(audio_encoder={"encoder_attention_heads": 3}), "audio_encoder of the checkpoint cannot be built"),
    (option(llm=None), "which tokenizer"),
    (option(llm={"num_attention_heads": 4}, tokenizer="{llm}"), "tensors do not tell rms_norm_eps, rope_theta"),
    (option(llm="{absent}"), "No folder"),
    (option(rope_frequency_dtype="float16"), "expected float32 or bfloat16"),
]


@pytest.mark.parametrize("change, message", ASR, ids=[m[:40] for _, m in ASR])
def test_changed_checkpoint_or_option_is_refused(files, tmp_path, change, message):
    state, options = files("asr_pool16_norm")
    llm = options["llm"]
    change(state, options)
    options = {k: v.format(llm=llm, absent=tmp_path / "absent") if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises((SourceError, ValueError), match=message):
        attempt(tmp_path, state, options)
    assert not (tmp_path / "out").exists()


BANK = [
    (option(rates={"audio": [4, 16]}), "are given for 3 projectors: expected a rate for each"),
    (option(rates={"audio": [4, 4, 16]}), "different integers"),
    (lambda s, o: [s.pop(n) for n in list(s) if n.startswith("audio_proj.1.")], "numbered .0, 2.: expected 0 to 1"),
    (lambda s, o: [s.pop(f"audio_proj.1.3.{k}") for k in ("weight", "bias")], "LayerNorm in audio_proj.0 and its like is False and True"),
    (put(audio_proj__0__weight=torch.zeros(12, 16), audio_proj__0__bias=torch.zeros(12)), "contradicts itself: .*indices in audio_proj"),
]


@pytest.mark.parametrize("change, message", BANK, ids=[m[:40] for _, m in BANK])
def test_changed_bank_is_refused(files, tmp_path, change, message):
    state, options = files("mtsk_asr_pool")
    change(state, options)
    with pytest.raises(SourceError, match=message):
        attempt(tmp_path, state, options)


def test_stacking_against_rates(files, tmp_path):
    state, options = files("avsr_stack_a4v1_norm_untied")
    with pytest.raises(SourceError, match=r"\[3\] are given, but the widths of its projectors show stacking by \[4\]"):
        attempt(tmp_path, state, options | {"rates": {"audio": 3, "video": 1}})


def test_tied_configuration_of_an_untied_head(files, tmp_path):
    state, options = files("avsr_stack_a4v1_norm_untied")
    shutil.copytree(options["llm"], tmp_path / "llm")
    config = json.loads((tmp_path / "llm" / "config.json").read_text())
    (tmp_path / "llm" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(SourceError, match="ties its head.*llm.lm_head.weight differs"):
        attempt(tmp_path, state, options | {"llm": str(tmp_path / "llm")})


def test_another_tokenizer(files, tmp_path):
    state, options = files("asr_pool16_norm")
    state["llm.model.embed_tokens.weight"] = state["llm.lm_head.weight"] = torch.zeros(270, 16)
    with pytest.raises(SourceError, match="tokenizer of .* has 258 tokens, but the checkpoint's LLM has 270 rows: expected a tokenizer of 265.* or of 266"):
        attempt(tmp_path, state, options)


def test_another_prompt(files, tmp_path):
    state, options = files("omni_t_pool")
    state["prompt_video"] = state["prompt_video"] + 1
    with pytest.raises(SourceError, match="prompt_video .* is not the embedding of the prompt of vsr"):
        attempt(tmp_path, state, options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("states", [{"state_dict": {"a": torch.zeros(1)}}, [torch.zeros(1)], {}], ids=["nested", "list", "empty"])
def test_no_flat_state_dict(tmp_path, states):
    with pytest.raises(SourceError, match="expected a flat state dict of tensors"):
        attempt(tmp_path, states, {})


def test_no_projector(tmp_path):
    with pytest.raises(SourceError, match="none of Llama-AVSR's family"):
        attempt(tmp_path, {"conv.weight": torch.zeros(1)}, {})


def test_truncated_file(files, tmp_path):
    state, options = files("asr_pool16_norm")
    torch.save(state, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 10):
        (tmp_path / "cut.pth").write_bytes(whole[:size])
        with pytest.raises(SourceError, match=re.escape(str(tmp_path / "cut.pth"))):
            load_released(tmp_path / "cut.pth", **options)


class Canary:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_canary_is_never_executed(tmp_path):
    torch.save({"audio_proj.0.weight": Canary(tmp_path / "executed")}, tmp_path / "canary.pth")
    with pytest.raises(SourceError, match=r"io\.open"):
        load_released(tmp_path / "canary.pth")
    assert not (tmp_path / "executed").exists()


def test_unknown_option_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="no option 'rate'.*did you mean 'rates'"):
        load_released(tmp_path / "absent.pth", rate=3)


def test_another_system(files, tmp_path):
    state, options = files("asr_pool16_norm")
    torch.save(state, tmp_path / "released.pth")
    with pytest.raises(SourceError, match="holds a model of llama_avsr by its keys, not of mtsk"):
        convert_released(tmp_path / "released.pth", tmp_path / "out", Options(**options), "mtsk")


def test_existing_folder_is_left_alone(files, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(SourceError, match="exists: give a new folder"):
        attempt(tmp_path, *files("asr_pool16_norm"))
    assert (tmp_path / "out" / "mine").read_text() == "x"
