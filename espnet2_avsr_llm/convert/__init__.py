"""Converters of other programs' checkpoints; none executes anything from a file."""

from espnet2_avsr_llm.convert.released import load_released

__all__ = ["load_released"]
