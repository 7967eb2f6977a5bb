"""Large language models: loading, tokenizer, prompts and added tokens."""

from espnet2_avsr_llm.llm.causal_lm import CausalLM

LLMS = {"causal_lm": CausalLM}
