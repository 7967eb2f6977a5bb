"""Number formats: bfloat16 checkpoints stay so, and bring the rounded rotary frequencies with which their models were trained."""

import pytest
import torch
import yaml

from espnet2_avsr_llm.convert import load_released
from espnet2_avsr_llm.convert.released import Options, convert_released, to_released
from espnet2_avsr_llm.hub.resolve import arch
from espnet2_avsr_llm.llm.causal_lm import round_frequencies

CASE = "asr_avhubert_stack3"


@pytest.fixture(scope="module")
def released(make_authors, tmp_path_factory):
    """``released(dtype)``: state dict, its file, and options."""
    authors, root = make_authors(CASE), tmp_path_factory.mktemp("formats")
    options = authors.options(root)

    def make(dtype):
        state, file = authors.state(dtype=dtype), root / f"{dtype}.pth"
        torch.save(state, file)
        return state, file, options

    return make


def frequencies(model):
    return {n: b for n, b in model.llm.model.named_buffers() if n.endswith("inv_freq")}


def unrounded(head_width=4, theta=500000.0):
    return theta ** -(torch.arange(0, head_width, 2) / head_width)


@pytest.mark.parametrize(
    "stored, asked, rounded",
    [(torch.float32, None, False), (torch.bfloat16, None, True), (torch.bfloat16, "float32", False), (torch.float32, "bfloat16", True)],
)
def test_frequencies_have_the_format_of_the_llm_unless_told(released, stored, asked, rounded):
    _, file, options = released(stored)
    model, _ = load_released(file, rope_frequency_dtype=asked, **options)
    expected = unrounded().bfloat16().float() if rounded else unrounded()
    assert frequencies(model) and not torch.equal(unrounded(), unrounded().bfloat16().float())
    for name, found in frequencies(model).items():
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=0, rtol=1e-6, msg=name)


@pytest.mark.parametrize("name, error", [("llama-3.2-1b", 0.13), ("llama-3.2-3b", 0.45), ("llama-3.1-8b", 0.45)])
def test_rounded_frequencies_at_real_sizes(name, error):
    """Old and new, at position 300: the cosines of the released models are that far from those of unrounded frequencies."""
    from transformers import AutoConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotary = LlamaRotaryEmbedding(AutoConfig.for_model(**arch(name)))
    position = torch.tensor([[300]])
    exact = rotary(torch.zeros(1), position)[0]
    round_frequencies(rotary, torch.bfloat16)
    assert (rotary(torch.zeros(1), position)[0] - exact).abs().max() == pytest.approx(error, abs=0.01)


def test_bfloat16_checkpoint_stays_so_and_comes_back_exactly(released, tmp_path):
    state, file, options = released(torch.bfloat16)
    model = convert_released(file, tmp_path / "out", Options(**options))
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config["llm_conf"]["dtype"] == config["llm_conf"]["rope_frequency_dtype"] == config["audio_frontend_conf"]["dtype"] == "bfloat16"
    assert model.llm.model.dtype == model.frontends["audio_frontend"].dtype == torch.bfloat16
    assert {p.dtype for p in model.projector.parameters()} == {torch.float32}
    back = to_released(tmp_path / "out")
    assert list(back) == list(state) and all(back[n].dtype == t.dtype and torch.equal(back[n], t) for n, t in state.items())


def test_parts_in_another_format_compute_from_the_same_values(released, make_authors):
    state, file, options = released(torch.bfloat16)
    model, _ = load_released(file, dtype="float32", **options)
    assert model.llm.model.dtype == torch.float32
    weight = model.llm.model.get_input_embeddings().weight
    assert torch.equal(weight, state["llm.model.embed_tokens.weight"].float())
    assert not torch.equal(frequencies(model)["model.rotary_emb.inv_freq"], unrounded())  # the file's format still decides


def test_frequencies_of_the_official_program(golden):
    """``precision='bf16-true'`` of the released trainers casts the buffer; its values here are those, kept in float32."""
    rope = golden._load("misc.pt")["rope"]
    exact, rounded = rope["inv_freq_f32"], rope["inv_freq_after_bf16_true"]
    holder = torch.nn.Module()
    holder.register_buffer("inv_freq", exact.clone())
    round_frequencies(holder, torch.bfloat16)
    assert torch.equal(holder.inv_freq, rounded.float()) and not torch.equal(holder.inv_freq, exact)
