"""Adapters: what is trained inside the frozen LLM."""

from espnet2_avsr_llm.adapter.lora import LoRA

ADAPTERS = {"lora": LoRA}
