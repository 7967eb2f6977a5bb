"""Visual front end of AV-HuBERT: a 3-D convolution over time and a ResNet-18 per frame, arXiv:2201.02184, appendix A.

Shapes: `B` batch, `T` video frames, `N` valid frames of the batch, `C` channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = 5  # frames under the 3-D convolution
CHUNK = 64  # frames at once
RELU_TYPES = ("prelu", "relu")


def _relu(kind: str, channels: int) -> nn.Module:
    return nn.PReLU(channels) if kind == "prelu" else nn.ReLU()


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, ReLU or PReLU per channel."""

    def __init__(self, inputs: int, planes: int, stride: int, relu: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = _relu(relu, planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu2 = _relu(relu, planes)
        self.downsample = None
        if stride != 1 or inputs != planes:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))) + shortcut)


class Trunk(nn.Module):
    """ResNet-18 without its stem and classifier: four stages of two blocks, then the mean over the picture."""

    def __init__(self, widths: tuple[int, ...], relu: str) -> None:
        super().__init__()
        stages = zip((widths[0], *widths[:3]), widths, (1, 2, 2, 2), strict=True)
        for i, (inputs, planes, stride) in enumerate(stages, 1):
            setattr(self, f"layer{i}", nn.Sequential(BasicBlock(inputs, planes, stride, relu), BasicBlock(planes, planes, 1, relu)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean(dim=(2, 3))


class StackedConv3d(nn.Conv3d):
    """The stem's 3-D convolution, run in 2-D over neighbouring frames stacked as channels: the same sums, on a CPU several times as fast."""

    def __init__(self, width: int) -> None:
        super().__init__(1, width, (TAPS, 7, 7), (1, 2, 2), padding=(TAPS // 2, 3, 3), bias=False)

    def forward(self, stacked: Tensor) -> Tensor:
        """(N, TAPS, 88, 88) -> (N, C, 44, 44)."""
        return F.conv2d(stacked, self.weight.squeeze(1), stride=self.stride[1:], padding=self.padding[1:])


class VideoResNet(nn.Module):
    """Stem and trunk.

    Args:
        widths: channels of the four stages (64, 128, 256, 512 in the public models); the stem has the first.
        relu: ``prelu`` or ``relu``.
    """

    def __init__(self, widths: tuple[int, ...], relu: str) -> None:
        super().__init__()
        self.frontend3D = nn.Sequential(
            StackedConv3d(widths[0]), nn.BatchNorm2d(widths[0]), _relu(relu, widths[0]), nn.MaxPool2d(3, 2, padding=1)
        )
        self.trunk = Trunk(widths, relu)

    def forward(self, video: Tensor, valid: Tensor) -> Tensor:
        """
        Args:
            video: ``(B, T, 88, 88)`` normalised. Padding must be zero, which is what the convolution over time sees beyond the
                ends of a clip, so that padding changes nothing.
            valid: ``(B, T)`` True at the frames of each clip; the others are not computed.

        Returns:
            ``(B, T, C)``, zero at padding.
        """
        ends = (0, 0, 0, 0, TAPS // 2, TAPS // 2)
        windows = F.pad(video, ends).unfold(1, TAPS, 1)  # (B, T, 88, 88, TAPS), a view
        frames = valid.nonzero()
        # Batch statistics belong to the whole batch; without them, small chunks stay in the cache and bound the memory.
        chunks = [frames] if self.training else frames.split(CHUNK)
        encoded = torch.cat([self._encode(windows[rows.unbind(1)]) for rows in chunks])
        features = encoded.new_zeros(*valid.shape, encoded.size(1))
        return torch.masked_scatter(features, valid.unsqueeze(-1), encoded)

    def _encode(self, windows: Tensor) -> Tensor:
        """(N, 88, 88, TAPS) -> (N, C)."""
        stacked = windows.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)  # all layers are fastest in it
        return self.trunk(self.frontend3D(stacked))
