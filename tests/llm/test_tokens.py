"""Tokenizer: added tokens, prompts, and text that is data."""

import pytest

from espnet2_avsr_llm.hub.resolve import SourceError
from espnet2_avsr_llm.llm.causal_lm import CausalLM
from espnet2_avsr_llm.llm.tokens import ADDED_TOKENS, PROMPTS, Tokens, byte_tokenizer, load_tokens, tokens_of


@pytest.fixture(scope="module")
def tokens():
    return Tokens(byte_tokenizer())


def test_added_tokens_follow_the_vocabulary(tokens):
    assert tokens.added_ids == [258, 259, 260, 261, 262] and len(tokens) == 263
    assert tokens.pad_id == 258 and tokens.delimiter_ids("audio") == (259, 260) and tokens.delimiter_ids("video") == (261, 262)


def test_a_tokenizer_that_has_the_delimiters_is_taken_as_it_is():
    """Released models of Qwen: four added tokens, and EOS pads."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(ADDED_TOKENS[1:])})
    tokens = Tokens(tokenizer)
    assert len(tokens) == 262 and tokens.added_ids == [258, 259, 260, 261] and tokens.pad_id == tokens.eos_id
    assert tokens.delimiter_ids("audio") == (258, 259) and tokens.delimiter_ids("video") == (260, 261)


@pytest.mark.parametrize("text", ["bin blue at f two now", "Ünïcode — naïve ☃", "", "  spaces  "])
def test_text_comes_back(tokens, text):
    assert tokens.decode(tokens.encode(text)) == text


@pytest.mark.parametrize("special", ["</s>", "<s>", *ADDED_TOKENS])
def test_names_of_special_tokens_are_spelled_out(tokens, special):
    ids = tokens.encode(f"a {special} b")
    assert not set(ids) & {tokens.bos_id, tokens.eos_id, *tokens.added_ids}
    assert tokens.decode(ids) == f"a {special} b"


def test_neither_bos_nor_eos_is_added_even_where_the_tokenizer_would():
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer()
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    assert tokenizer("a")["input_ids"][0] == 0
    assert len(Tokens(tokenizer).encode("abc")) == 3


def test_special_tokens_are_left_out_of_text(tokens):
    ids = tokens.encode("hi")
    assert tokens.decode([tokens.bos_id, 259, *ids, tokens.pad_id, tokens.eos_id]) == "hi"


def test_rows_beyond_the_tokenizer_have_a_name(tokens):
    assert tokens.pieces([258, 4000]) == ["<pad>", "<4000>"]


def test_prompts(tokens):
    for task, prompt in PROMPTS.items():
        assert tokens.decode(tokens.prompt_ids(task)) == prompt
    assert len(set(PROMPTS.values())) == 3


def test_a_tokenizer_without_eos_is_refused():
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(SourceError, match="no end-of-sequence token"):
        Tokens(tokenizer)


def test_an_own_pad_token_of_the_llm_is_replaced():
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token  # a common habit: EOS would never be learnt or found
    tokens = Tokens(tokenizer)
    assert tokens.pad_id != tokens.eos_id


def test_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(SourceError, match="holds no tokenizer"):
        load_tokens(str(tmp_path))


def test_from_a_folder(sources):
    assert load_tokens(sources["llama"]).added_ids == [258, 259, 260, 261, 262]


def test_tokens_of_a_configuration(sources):
    for conf in ({"source": sources["llama"], "dtype": "float32"}, {"init": "random", "arch": "tiny-llama", "quant": None}):
        assert tokens_of(conf).added_ids == [258, 259, 260, 261, 262]


@pytest.mark.parametrize("conf", [{}, {"arch": "tiny-llama"}, {"source": None, "dtype": "float32"}])
def test_a_configuration_that_names_no_source_is_refused(conf):
    with pytest.raises(SourceError, match="needs source"):
        tokens_of(conf)
    with pytest.raises(SourceError, match="needs source"):
        CausalLM(**conf)
