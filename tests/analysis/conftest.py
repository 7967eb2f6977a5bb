"""Tiny LLMs of several architectures, and prefixes to run them on."""

from types import SimpleNamespace

import pytest
import torch

from espnet2_avsr_llm.sequence import Role, lay_out

SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2)
ARCHITECTURES = {
    "llama": SIZES,
    "mistral": SIZES,
    "qwen2": SIZES,
    "gemma2": {**SIZES, "head_dim": 8},
    "phi3": SIZES,
    "gpt2": dict(n_embd=32, n_layer=4, n_head=4),
    "opt": dict(hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=4, num_attention_heads=4),
    "falcon": dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=4),
    "gpt_neox": dict(hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4),
}


@pytest.fixture(scope="session")
def make_llm(tmp_path_factory):
    """``make_llm(model_type, **config)``: a model with nothing but an LLM of random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from espnet2_avsr_llm.llm.causal_lm import CausalLM
    from espnet2_avsr_llm.llm.tokens import byte_tokenizer

    def make(model_type="llama", **config):
        folder, tokenizer = tmp_path_factory.mktemp(model_type), byte_tokenizer()
        torch.manual_seed(0)
        ids = dict(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, pad_token_id=None)
        facts = {**ARCHITECTURES[model_type], **ids, "initializer_range": 0.1, **config}
        AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **facts)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        attention = "eager" if model_type == "gemma2" else "sdpa"  # Gemma 2 has no other here
        llm = CausalLM(source=str(folder), dtype="float32", attn_implementation=attention).eval()
        return SimpleNamespace(llm=llm, use=lambda pass_, mask=None: torch.no_grad(), device=llm.model.device)

    return make


@pytest.fixture(scope="session")
def make_prefix():
    """``make_prefix(model, tokens, seed)``: a random input of one utterance: BOS, audio, video, prompt."""

    def make(model, tokens=20, seed=0, scale=1.0):
        third = tokens // 3
        x = torch.randn(tokens, model.llm.width, generator=torch.Generator().manual_seed(seed)) * scale
        parts = x.split([1, third, third, tokens - 1 - 2 * third])
        return lay_out([[(role, part, None) for role, part in zip((Role.BOS, Role.AUDIO, Role.VIDEO, Role.PROMPT), parts)]])

    return make
