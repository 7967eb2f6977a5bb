"""Transformer of AV-HuBERT: convolutional positions and layers that never look at padding, arXiv:2201.02184.

Shapes: `B` batch, `T` frames, `D` model width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PositionalConv(nn.Module):
    """Grouped convolution over time whose weight is normalised per tap (weight norm over dimension 2), then GELU."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight_v = nn.Parameter(torch.randn(width, width // groups, kernel) * math.sqrt(4 / (kernel * width)))
        self.weight_g = nn.Parameter(self.weight_v.detach().norm(dim=(0, 1), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_g * self.weight_v / self.weight_v.norm(dim=(0, 1), keepdim=True)
        y = F.conv1d(x, weight, self.bias, padding=weight.size(2) // 2, groups=self.groups)
        return F.gelu(y[..., : x.size(-1)])  # an even kernel gives one frame too many


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, nn.Linear(width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention and feed-forward, each after its LayerNorm (pre-norm) or before it (post-norm)."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float, norm_first: bool) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, heads, dropout)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, ffn)
        self.fc2 = nn.Linear(ffn, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.norm_first:
            x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), mask))
            return x + self._feed_forward(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(x + self.dropout(self.self_attn(x, mask)))
        return self.final_layer_norm(x + self._feed_forward(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(F.gelu(self.fc1(x))))


class Transformer(nn.Module):
    """Positions, layers, and a LayerNorm after them (pre-norm layers) or before them (post-norm).

    Args:
        conv_pos, conv_pos_groups: kernel and groups of the positional convolution.
        layer_drop: chance that a layer is skipped in training.
        norm_first: the layers are pre-norm.
    """

    def __init__(
        self, width: int, layers: int, heads: int, ffn: int, conv_pos: int, conv_pos_groups: int, dropout: float, layer_drop: float, norm_first: bool
    ) -> None:
        super().__init__()
        self.pos_conv = nn.Sequential(PositionalConv(width, conv_pos, conv_pos_groups))
        self.layers = nn.ModuleList(Layer(width, heads, ffn, dropout, norm_first) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.layer_drop, self.norm_first = layer_drop, norm_first

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """
        Args:
            x: ``(B, T, D)``, zero at padding.
            valid: ``(B, T)`` True at the frames of each clip.

        Returns:
            ``(B, T, D)``; what it holds at padding means nothing.
        """
        x = x + self.pos_conv(x.transpose(1, 2)).transpose(1, 2)
        x = self.dropout(x if self.norm_first else self.layer_norm(x))
        # A row without any frame attends to its padding, because a softmax over nothing is NaN.
        mask = (valid | ~valid.any(1, keepdim=True))[:, None, None, :]
        for layer in self.layers:
            if not self.training or torch.rand(()) >= self.layer_drop:
                x = layer(x, mask)
        return self.layer_norm(x) if self.norm_first else x
