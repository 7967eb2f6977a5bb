"""Adapters: what is trained inside the frozen LLM."""

from espnet2_avsr_llm.adapter.lora import LoRA
from espnet2_avsr_llm.adapter.mome import MoME

ADAPTERS = {"lora": LoRA, "mome": MoME}
