"""4-bit and 8-bit base by bitsandbytes, on its CPU kernels: what is quantised, training, checkpoints, devices. GPU kernels are not tested here."""

import pytest
import torch

from espnet2_avsr_llm.build import build
from espnet2_avsr_llm.hub.resolve import SourceError
from espnet2_avsr_llm.llm import causal_lm
from espnet2_avsr_llm.llm.causal_lm import CausalLM
from espnet2_avsr_llm.summary import on_meta, prefill_flops

SIZES = dict(hidden_size=64, intermediate_size=128)


@pytest.fixture(scope="module")
def folder(make_source, tmp_path_factory):
    return make_source["llama"](tmp_path_factory.mktemp("llama"), **SIZES)


@pytest.fixture(params=["4bit", "8bit"])
def quant(request):
    return request.param


def conf(folder, quant):
    return {"source": folder, "dtype": "float32", "quant": quant}


def test_linear_layers_are_quantised_and_nothing_else(folder, quant):
    import bitsandbytes

    llm, full = CausalLM(**conf(folder, quant)), CausalLM(**conf(folder, None))
    kind = {"4bit": bitsandbytes.nn.Linear4bit, "8bit": bitsandbytes.nn.Linear8bitLt}[quant]
    for name, layer in full.model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            assert isinstance(llm.model.get_submodule(name), kind) == (name != "lm_head"), name
    sizes = [sum(p.numel() * p.element_size() for n, p in m.named_parameters() if "layers" in n and "proj" in n) for m in (llm, full)]
    assert sizes[0] * {"4bit": 7, "8bit": 3.9}[quant] < sizes[1]
    assert torch.equal(llm.model.get_input_embeddings().weight, full.model.get_input_embeddings().weight)
    assert llm.provenance["source"] == f"{folder} in {quant}" and llm.provenance["digest"] != full.provenance["digest"]


@torch.no_grad()
def test_logits_are_near_those_of_the_full_weights(folder, quant):
    ids = torch.arange(2, 40)[None]
    logits = [CausalLM(**conf(folder, q)).model(input_ids=ids).logits for q in (quant, None)]
    error = (logits[0] - logits[1]).std() / logits[1].std()
    assert 0 < error < {"4bit": 0.6, "8bit": 0.05}[quant]


def test_training_saves_what_it_trained_and_reads_it_back(make_model, tiny_config, make_batch, folder, quant):
    model = make_model("asr", llm_conf={**conf(folder, quant), "gradient_checkpointing": True})
    batch = make_batch((16000, None, 5), (6400, None, 3))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    losses = []
    for _ in range(4):
        loss, _, _ = model(**batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and all(p.dtype == torch.float32 and p.grad is not None for p in trained)
    states = model.state_dict()
    assert {n for n in states if n.startswith("llm.model")} == {n for n in states if "lora_" in n}
    again = build(tiny_config("asr", llm_conf=conf(folder, quant)), type(model)).train()
    again.load_state_dict(states)
    torch.testing.assert_close(again(**batch)[0], model(**batch)[0])
    with pytest.raises(RuntimeError, match=rf"trained with llm = .* in {quant} .*but this model has"):
        build(tiny_config("asr", llm_conf=conf(folder, None))).load_state_dict(states)


@torch.no_grad()
def test_alone_equals_in_batch_with_4bit(make_model, make_batch, folder):
    model = make_model("asr", llm_conf=conf(folder, "4bit"))
    (pass_,) = model.plan.passes()
    logits = []
    for sizes in ([(16000, None, 5), (6400, None, 3)], [(6400, None, 3)]):
        batch = make_batch(*sizes)
        logits.append(model.predict(model.encode(model.inputs(batch)), pass_, (batch["text"], batch["text_lengths"]))[0][-1, -4:])
    torch.testing.assert_close(*logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_adapters_are_not_merged_into_it(make_model, folder, quant):
    """PEFT would put weights of its own in the place of the quantised ones."""
    model, ids = make_model("asr", llm_conf=conf(folder, quant)), torch.arange(2, 40)[None]
    (pass_,) = model.plan.passes()
    before = model.llm.model(input_ids=ids).logits
    kind = {"4bit": r"Linear4bit, torch\.uint8", "8bit": r"Linear8bitLt, torch\.int8"}[quant]
    with pytest.raises(ValueError, match=rf"quantised \({kind}\).* decode without merge_adapter"):
        with model.merged(pass_):
            pass
    assert torch.equal(model.llm.model(input_ids=ids).logits, before)


def test_a_quantised_llm_stays_where_it_is(folder, quant):
    assert CausalLM(**conf(folder, quant)).to("meta").device.type == "cpu"
    assert CausalLM(**conf(folder, None), device="cpu").to("meta").device.type == "cpu"


def test_sizes_on_meta_are_those_of_the_full_weights(tiny_config, folder, quant):
    full, quantised = (sum(p.numel() for p in on_meta(tiny_config("asr", llm_conf=conf(folder, q))).parameters()) for q in (None, quant))
    assert full == quantised


def test_flops_are_those_of_the_full_weights(make_model, folder, quant):
    """Packed weights have fewer numbers than products."""
    full, quantised = (make_model("asr", llm_conf=conf(folder, q)) for q in (None, quant))
    (pass_,) = full.plan.passes()
    assert prefill_flops(quantised, pass_, 50) == prefill_flops(full, pass_, 50)


def test_unknown_quantisation(folder):
    with pytest.raises(ValueError, match="llm quant '3bit': choose from 4bit, 8bit, or null"):
        CausalLM(**conf(folder, "3bit"))


def test_random_weights_are_not_quantised(quant):
    with pytest.raises(SourceError, match="quant needs pretrained weights"):
        CausalLM(init="random", arch="tiny-llama", quant=quant)


def test_without_bitsandbytes(folder, quant, monkeypatch):
    monkeypatch.setattr(causal_lm, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"needs bitsandbytes, which is not installed: pip install bitsandbytes"):
        CausalLM(**conf(folder, quant))
