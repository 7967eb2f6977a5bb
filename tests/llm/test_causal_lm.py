"""The LLM: added rows, formats, context of gradient checkpointing, folders it refuses."""

from contextlib import contextmanager

import pytest
import torch

from espnet2_avsr_llm.hub.resolve import SourceError
from espnet2_avsr_llm.llm.causal_lm import CausalLM


@pytest.fixture(scope="module")
def llm(sources):
    return CausalLM(source=sources["llama"], dtype="float32")


def test_added_rows_are_in_place_and_the_others_are_the_sources(llm, sources):
    from transformers import AutoModelForCausalLM

    original = AutoModelForCausalLM.from_pretrained(sources["llama"], dtype=torch.float32)
    for name in ("input", "output"):
        mine, theirs = (getattr(m, f"get_{name}_embeddings")().weight for m in (llm.model, original))
        assert mine.shape[0] == 263 and torch.equal(mine[:258], theirs)
        rows = getattr(llm, f"added_{name}_rows")
        assert torch.equal(mine[258:], rows) and not mine.requires_grad
        assert 0.1 < rows.std() < 0.3  # initializer_range
    assert not torch.equal(llm.added_input_rows, llm.added_output_rows)


def test_added_rows_are_the_same_in_every_experiment(llm, sources):
    torch.manual_seed(99)
    assert torch.equal(CausalLM(source=sources["llama"]).added_input_rows, llm.added_input_rows)


def test_a_vocabulary_with_spare_rows_is_not_resized(make_source, tmp_path):
    llm = CausalLM(source=make_source["llama"](tmp_path, vocab_size=320), dtype="float32")
    weight = llm.model.get_input_embeddings().weight
    assert weight.shape[0] == 320 and torch.equal(weight[258:263], llm.added_input_rows)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_embeddings_leave_as_float32_and_weights_keep_their_format(sources, dtype):
    llm = CausalLM(source=sources["llama"], dtype=dtype)
    assert llm.embed(torch.tensor([1, 2])).dtype == torch.float32
    assert {p.dtype for p in llm.parameters()} == {getattr(torch, dtype)}


def test_generation_defaults_of_the_source_do_not_leak(make_source, tmp_path):
    """Chat models ship sampling and penalties; a transcript must not depend on them."""
    import json

    folder = make_source["llama"](tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"repetition_penalty": 9.0, "do_sample": True, "max_length": 5}))
    config = CausalLM(source=folder).model.generation_config
    assert config.repetition_penalty is None and not config.do_sample


def test_context_is_restored(llm):
    trace = []

    @contextmanager
    def named(name):
        trace.append(f"+{name}")
        yield
        trace.append(f"-{name}")

    with llm.within(lambda: named("a")):
        with llm.within(lambda: named("b")):
            with llm._checkpoint_contexts()[1]:
                pass
        with llm._checkpoint_contexts()[1]:
            pass
    assert trace == ["+a", "+b", "+b", "-b", "-b", "+a", "-a", "-a"]


def test_spread_over_devices_it_stays_there(sources):
    """On a machine without GPU all layers are spread over the CPU."""
    assert CausalLM(source=sources["llama"], device="auto").to("meta").device.type == "cpu"


@pytest.mark.parametrize("device, found", [("cpu", "cpu"), (None, "meta")])
def test_random_weights_stay_where_they_are_put(device, found):
    assert CausalLM(init="random", arch="tiny-llama", device=device).to("meta").device.type == found


def test_a_folder_without_llm_is_refused(sources, tmp_path, make_source):
    make_source["llama"](tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(SourceError, match="cannot be loaded"):
        CausalLM(source=str(tmp_path))
