"""A two-layer MLP projector for each rate of each stream (Llama-MTSK, arXiv 2503.06362, section II-B; Omni-AVSR, arXiv 2511.07253).

Shapes: `B` batch, `N` LLM tokens, `F` feature width, `D` LLM width.
"""

from __future__ import annotations

from torch import Tensor, nn

from espnet2_avsr_llm.frontend.abs_frontend import Lengthed
from espnet2_avsr_llm.pass_plan import Pass
from espnet2_avsr_llm.projector.mlp import LayerNorms, mlp, norm_of


class MLPBank(nn.Module):
    """X_r = W2_r ReLU(W1_r Z_r + b1_r) + b2_r [then LayerNorm], with weights of its own for each rate r of each stream.

    Args:
        input_sizes: for each stream the width ``F`` at each rate in use.
        output_size: LLM width ``D``.
        hidden_size: inner width; 2048 in every paper of the family.
        layer_norm: LayerNorm over ``D`` at the end, for all streams or for each. Released Llama-MTSK has it; the released Omni-AVSR
            checkpoints do not, by a misplaced parenthesis.
    """

    def __init__(self, input_sizes: dict[str, dict[int, int]], output_size: int, hidden_size: int = 2048, layer_norm: LayerNorms = False):
        super().__init__()
        self.streams = nn.ModuleDict(
            {
                stream: nn.ModuleDict({str(rate): mlp(size, hidden_size, output_size, norm_of(layer_norm, stream)) for rate, size in sizes.items()})
                for stream, sizes in input_sizes.items()
            }
        )

    def forward(self, features: dict[str, Lengthed], rates: dict[str, int]) -> tuple[dict[str, Lengthed], dict[str, Tensor]]:
        """Project.

        Args:
            features: for each stream (B, N, F) and lengths.
            rates: the compression rate of each stream, which chooses its weights.

        Returns:
            For each stream (B, N, D) and lengths; this module's own loss terms by name (none here).
        """
        return {stream: (self.streams[stream][str(rates[stream])](x), lengths) for stream, (x, lengths) in features.items()}, {}

    def active(self, pass_: Pass) -> int:
        """Number of parameters that a pass uses."""
        return sum(p.numel() for stream, rate in pass_.rates.items() for p in self.streams[stream][str(rate)].parameters())
