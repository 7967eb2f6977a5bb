"""Converters of other programs' checkpoints; none executes anything from a file."""

from espnet2_avsr_llm.convert.released import convert_released, load_released, to_released

__all__ = ["convert_released", "load_released", "to_released"]
