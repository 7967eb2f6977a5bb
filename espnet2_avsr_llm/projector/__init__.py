"""Projectors: compressed features of each stream into the LLM's embedding space."""

from espnet2_avsr_llm.projector.mlp import MLPProjector
from espnet2_avsr_llm.projector.mlp_bank import MLPBank
from espnet2_avsr_llm.projector.smop import SMoPProjector

PROJECTORS = {"mlp": MLPProjector, "mlp_bank": MLPBank, "smop": SMoPProjector}
