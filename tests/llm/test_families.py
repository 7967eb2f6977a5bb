"""LLM families: tokens, prompts, one EOS, batch invariance, decoding and training of each architecture with its own kind of tokenizer."""

from dataclasses import dataclass, field

import pytest
import torch
from tokenizers import pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, GemmaTokenizer, GPT2Tokenizer, LlamaTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

from espnet2_avsr_llm.hub.resolve import SourceError
from espnet2_avsr_llm.inference.generate import Search, generate
from espnet2_avsr_llm.llm.causal_lm import CausalLM
from espnet2_avsr_llm.llm.tokens import ADDED_TOKENS, PROMPTS, byte_tokenizer
from espnet2_avsr_llm.sequence import IGNORE, Role

SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, initializer_range=0.2)
LETTERS = [chr(i) for i in range(33, 127)]
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def numbered(*entries):
    return {entry: i for i, entry in enumerate(entries)}


def word_pieces(*special):
    """Vocabulary of a SentencePiece model: bytes to fall back on, the space, letters."""
    return numbered(*special, *(f"<0x{i:02X}>" for i in range(256)), "▁", *LETTERS)


def llama3():
    """Byte-level, and its post-processor puts BOS in front."""
    tokenizer = byte_tokenizer()._tokenizer
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    ids = [(t, tokenizer.token_to_id(t)) for t in ("<|begin_of_text|>",)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")


def llama2(**options):
    return LlamaTokenizer(vocab=word_pieces("<unk>", "<s>", "</s>"), merges=[], **options)


def qwen():
    """No BOS; padding is EOS, and there are more special tokens."""
    return Qwen2Tokenizer(vocab=numbered(*BYTES, "<|endoftext|>"), merges=[], extra_special_tokens=["<|im_start|>", "<|im_end|>"])


def gpt2():
    """One token is BOS and EOS."""
    return GPT2Tokenizer(vocab=numbered(*BYTES, "<|endoftext|>"), merges=[])


def gemma():
    """Has a <pad> of its own."""
    return GemmaTokenizer(vocab=word_pieces("<pad>", "<eos>", "<bos>", "<unk>"), merges=[])


@dataclass
class Family:
    """An architecture and its tokenizer: ``specials`` are the texts of BOS and EOS."""

    model_type: str
    tokenizer: object
    specials: tuple
    options: dict = field(default_factory=dict)
    targets: tuple = ("q_proj", "v_proj")


GPT2 = dict(n_embd=32, n_layer=2, n_head=4, n_inner=48, initializer_range=0.2)
FAMILIES = {
    "llama-2": Family("llama", llama2, ("<s>", "</s>")),
    "llama-3": Family("llama", llama3, ("<|begin_of_text|>", "<|end_of_text|>"), dict(tie_word_embeddings=True)),
    "tinyllama": Family("llama", lambda: llama2(add_bos_token=True), ("<s>", "</s>"), dict(num_key_value_heads=1)),
    "mistral": Family("mistral", llama2, ("<s>", "</s>"), dict(sliding_window=16)),
    "qwen2.5": Family("qwen2", qwen, (None, "<|endoftext|>"), dict(tie_word_embeddings=True, vocab_size=300)),
    "qwen3": Family("qwen3", qwen, (None, "<|endoftext|>"), dict(vocab_size=300)),
    "gemma": Family("gemma", gemma, ("<bos>", "<eos>"), dict(pad_token_id=0)),
    "gemma-2": Family("gemma2", gemma, ("<bos>", "<eos>"), dict(pad_token_id=0, query_pre_attn_scalar=8, attn_logit_softcapping=5.0)),
    "gemma-3": Family("gemma3_text", gemma, ("<bos>", "<eos>"), dict(pad_token_id=0, query_pre_attn_scalar=8)),
    "smollm": Family("llama", gpt2, ("<|endoftext|>", "<|endoftext|>"), dict(tie_word_embeddings=True)),
    "gpt-2": Family("gpt2", gpt2, ("<|endoftext|>", "<|endoftext|>"), GPT2, ("c_attn",)),
}
each_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model folder of each family."""
    found = {}
    for name, family in FAMILIES.items():
        folder = tmp_path_factory.mktemp(name)
        tokenizer = family.tokenizer()
        sizes = {} if family.model_type == "gpt2" else SIZES
        ids = dict(vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(AutoConfig.for_model(family.model_type, **sizes | ids | family.options)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[name] = str(folder)
    return found


@pytest.fixture(scope="module")
def llms(folders):
    """The LLM of each family."""
    return {name: CausalLM(source=folder, dtype="float32") for name, folder in folders.items()}


@pytest.fixture(scope="module")
def make(folders, make_model):
    """``make(name, task, llm options)``: a whole model over an LLM."""

    def build(name, task="asr", **options):
        targets = list(FAMILIES[name].targets)
        return make_model(task, llm_conf={"source": folders[name], "dtype": "float32", **options}, adapter_conf={"target_modules": targets})

    return build


def batch_for(model, make_batch, *sizes):
    """A batch whose texts are letters of the model's own vocabulary."""
    batch = make_batch(*sizes)
    words = ["set blue", "a", "place it now"][: len(sizes)]
    rows = [torch.tensor(model.llm.tokens.encode(w)) for w in words]
    return batch | {"text": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), "text_lengths": torch.tensor([len(r) for r in rows])}


@each_family
def test_special_tokens(llms, name):
    tokens = llms[name].tokens
    bos, eos = FAMILIES[name].specials
    assert tokens.bos_id == (None if bos is None else tokens.tokenizer.convert_tokens_to_ids(bos))
    assert tokens.eos_id == tokens.tokenizer.convert_tokens_to_ids(eos)
    assert tokens.tokenizer.convert_ids_to_tokens(tokens.added_ids) == list(ADDED_TOKENS) and len(set(tokens.added_ids)) == 5
    assert not {tokens.bos_id, tokens.eos_id} & set(tokens.added_ids)
    if name.startswith("qwen"):  # what was special before still is
        assert tokens.decode(tokens.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])) == ""


@each_family
def test_texts_and_prompts_come_back_and_special_names_are_spelled_out(llms, name):
    tokens = llms[name].tokens
    specials = {tokens.bos_id, tokens.eos_id, *tokens.added_ids}
    for text in [*PROMPTS.values(), "set white at z nine soon", f"say {' '.join(filter(None, FAMILIES[name].specials))} <pad> <audio> wörld"]:
        ids = tokens.encode(text)
        assert tokens.decode(ids).strip() == text and not set(ids) & specials
    assert tokens.prompt_ids("asr") == tokens.encode(PROMPTS["asr"])


@each_family
def test_one_eos_is_trained_and_no_padding(make, make_batch, name):
    model = make(name, "avsr")
    batch = batch_for(model, make_batch, (16000, 25, 1), (6400, 10, 1), (0, 13, 1))
    (pass_,) = model.plan.passes()
    inputs, _ = model.prepare(model.encode(model.inputs(batch)), pass_, (batch["text"], batch["text_lengths"]))
    tokens = model.llm.tokens
    for row, (labels, roles) in enumerate(zip(inputs.labels, inputs.roles)):
        scored = labels[labels != IGNORE].tolist()
        assert scored == [*batch["text"][row, : batch["text_lengths"][row]].tolist(), tokens.eos_id]
        assert scored.count(tokens.eos_id) == 1 and tokens.pad_id not in scored
        assert (roles == Role.BOS).sum() == (tokens.bos_id is not None)
        assert set(labels[roles != Role.TEXT].tolist()) == {IGNORE}


@each_family
@torch.no_grad()
def test_embeddings_give_the_logits_of_ids(llms, name):
    """Scaled embeddings, soft caps and position tables are the LLM's own business."""
    llm = llms[name]
    ids = torch.tensor([llm.tokens.encode("place red in m two again")])
    mask = torch.ones_like(ids)
    logits = llm(llm.embed(ids), mask, mask.cumsum(1) - 1, ids.shape[1]).logits
    torch.testing.assert_close(logits, llm.model(input_ids=ids).logits, atol=1e-4, rtol=0)
    assert logits.std() > 0.1


@each_family
@torch.no_grad()
def test_alone_equals_in_batch(make, make_batch, name):
    model = make(name).eval()
    batch = batch_for(model, make_batch, (16000, None, 1), (6400, None, 1), (31234, None, 1))
    (pass_,) = model.plan.passes()
    search = Search(max_tokens_per_second=6, min_tokens=2)

    def run(rows):
        features = model.encode(model.inputs(rows))
        seconds = [n / 16000 for n in rows["speech_lengths"].tolist()]
        texts = [h[0].token_ids for h in generate(model, features, pass_, seconds, search)]
        return model.predict(features, pass_, (rows["text"], rows["text_lengths"]))[0], texts

    together, texts = run(batch)
    for row, n in enumerate((batch["text_lengths"] + 1).tolist()):
        alone = {k: v[row : row + 1] for k, v in batch.items()}
        alone["speech"], alone["text"] = alone["speech"][:, : alone["speech_lengths"]], alone["text"][:, : alone["text_lengths"]]
        logits, text = run(alone)
        torch.testing.assert_close(together[row, -n:], logits[0, -n:], atol=1e-4, rtol=0)
        assert text == [texts[row]]


@each_family
def test_attention_and_checkpointing_change_nothing(make, make_batch, name, recwarn):
    found = {}
    for case, options in {"default": {}, "eager": {"attn_implementation": "eager"}, "checkpointed": {"gradient_checkpointing": True}}.items():
        model = make(name, **options)
        loss, _, _ = model(**batch_for(model, make_batch, (16000, None, 1), (6400, None, 1)))
        loss.backward()
        found[case] = torch.cat([loss.detach().flatten(), *(p.grad.flatten() for p in model.parameters() if p.grad is not None)])
        assert (model.llm.model.config._attn_implementation == "eager") == (case == "eager" or name == "gemma-2")  # soft caps: eager only
    assert len(found["default"]) > 100 and torch.isfinite(found["default"]).all()
    for case in ("eager", "checkpointed"):
        torch.testing.assert_close(found[case], found["default"], atol=1e-4, rtol=1e-3)
    assert not [w for w in recwarn if issubclass(w.category, FutureWarning)]


def test_an_llm_that_takes_no_embeddings_in_padded_batches_is_refused(tmp_path):
    tokenizer = gpt2()
    config = AutoConfig.for_model("bloom", hidden_size=16, n_layer=1, n_head=2, vocab_size=len(tokenizer))
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SourceError, match="BloomForCausalLM takes no position_ids: such an LLM cannot read sound"):
        CausalLM(source=str(tmp_path))
