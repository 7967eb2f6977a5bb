"""Losses beside the cross-entropy that read the LLM's hidden states: ``loss(hidden_states, roles)`` is one weighted term."""

from espnet2_avsr_llm.loss.decorrelation import Decorrelation

LOSSES = {"decorrelation": Decorrelation}
