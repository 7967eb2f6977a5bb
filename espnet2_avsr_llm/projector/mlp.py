"""Two-layer MLP projector, one per stream (Llama-AVSR, arXiv 2409.12319, section II).

Shapes: `B` batch, `N` LLM tokens, `F` feature width, `D` LLM width.
"""

from __future__ import annotations

from typing import Mapping, Union

from torch import Tensor, nn

from espnet2_avsr_llm.frontend.abs_frontend import Lengthed
from espnet2_avsr_llm.pass_plan import Pass

LayerNorms = Union[bool, Mapping[str, bool]]


def mlp(input_size: int, hidden_size: int, output_size: int, layer_norm: bool) -> nn.Sequential:
    """Linear(F, hidden) - ReLU - Linear(hidden, D) [- LayerNorm(D)]; the indices are those of the released state dicts."""
    layers = [nn.Linear(input_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, output_size)]
    return nn.Sequential(*layers, nn.LayerNorm(output_size)) if layer_norm else nn.Sequential(*layers)


def norm_of(layer_norm: LayerNorms, stream: str) -> bool:
    """Whether the projectors of ``stream`` end in a LayerNorm."""
    return layer_norm if isinstance(layer_norm, bool) else layer_norm[stream]


def only_width(stream: str, sizes: dict[int, int]) -> int:
    """Width of a stream at all its rates.

    Raises:
        ValueError: there are several.
    """
    if len(set(sizes.values())) > 1:
        raise ValueError(f"One projector serves all rates of {stream}, but their widths differ: {sizes}. Use avg_pool, mlp_bank, or one rate")
    return next(iter(sizes.values()))


class MLPProjector(nn.Module):
    """X = W2 ReLU(W1 Z + b1) + b2 [then LayerNorm], with weights of its own for each stream.

    Args:
        input_sizes: for each stream the width ``F`` at each rate in use.
        output_size: LLM width ``D``.
        hidden_size: inner width; 2048 in every paper of the family.
        layer_norm: LayerNorm over ``D`` at the end (not in Llama-AVSR; in Llama-MTSK and Llama-SMoP checkpoints); for all streams, or
            for each (released Omni-AVSR models with stacking may have it for audio alone).
    """

    def __init__(self, input_sizes: dict[str, dict[int, int]], output_size: int, hidden_size: int = 2048, layer_norm: LayerNorms = False):
        super().__init__()
        self.streams = nn.ModuleDict()
        for stream, sizes in input_sizes.items():
            self.streams[stream] = mlp(only_width(stream, sizes), hidden_size, output_size, norm_of(layer_norm, stream))

    def forward(self, features: dict[str, Lengthed], rates: dict[str, int]) -> tuple[dict[str, Lengthed], dict[str, Tensor]]:
        """Project.

        Args:
            features: for each stream (B, N, F) and lengths.
            rates: the compression rate of each stream.

        Returns:
            For each stream (B, N, D) and lengths; this module's own loss terms by name (none here).
        """
        return {stream: (self.streams[stream](x), lengths) for stream, (x, lengths) in features.items()}, {}

    def active(self, pass_: Pass) -> int:
        """Number of parameters that a pass uses."""
        return sum(p.numel() for stream in pass_.rates for p in self.streams[stream].parameters())
