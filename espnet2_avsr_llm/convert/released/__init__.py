"""Released checkpoints of Llama-AVSR (arXiv 2409.12319), Llama-MTSK (2503.06362), Llama-SMoP (2505.14336) and Omni-AVSR (2511.07253)."""

from espnet2_avsr_llm.convert.released.back import describe, to_released
from espnet2_avsr_llm.convert.released.experiment import Options, convert_released, load_released

__all__ = ["Options", "convert_released", "describe", "load_released", "to_released"]
