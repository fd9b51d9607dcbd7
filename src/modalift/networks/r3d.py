"""``r3d``: residual networks with 3D convolutions; the trunk of every 3D ResNet here.

Layers are named as in the usual ResNet files (``conv1``, ``bn1``, ``layer1.0.conv1``, ``layer2.0.downsample.0``,
...), so that weights load by name, 2D ones after inflation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalift.errors import ModaliftError, nearest
from modalift.networks.recognizer import Backbone, Recognizer, Stage, scaled_width
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Positive, Share


def conv3d(inside: int, out: int, time: int, space: int, stride: tuple[int, int] = (1, 1), groups: int = 1) -> nn.Conv3d:
    """A convolution over ``time`` frames and ``space x space`` pixels, without bias; only its stride changes extents."""
    (t, s), k = stride, (time, space, space)
    return nn.Conv3d(inside, out, k, (t, s, s), (time // 2, space // 2, space // 2), groups=groups, bias=False)


def convolve(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """``conv(x)``, with correct gradients also in half precision on CPUs.

    If the kernel spans more frames than the map has, oneDNN's gradient of bfloat16 weights is noise, infinite, or written
    past its end (PyTorch 2.13, AVX-512; not for one frame, nor with temporal strides). Padding the map explicitly avoids
    that.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C', T', H', W')``.
    """
    time = conv.kernel_size[0]
    if not (x.device.type == "cpu" and conv.training and torch.is_grad_enabled() and 1 < x.shape[2] < time
            and conv.stride[0] == 1 and isinstance(conv.padding, tuple)
            and (torch.is_autocast_enabled("cpu") or x.dtype in (torch.bfloat16, torch.float16))):
        y: Tensor = conv(x)
        return y
    front, *sides = conv.padding
    x = F.pad(x, (0, 0, 0, 0, front, front))
    return F.conv3d(x, conv.weight, conv.bias, conv.stride, (0, *sides), conv.dilation, conv.groups)


def _through(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = convolve(layer, x) if isinstance(layer, nn.Conv3d) else layer(x)
    return x


class _Layers(nn.Sequential):
    """Layers that are checkpointed as one part."""

    def forward(self, x: Tensor) -> Tensor:
        return _through(self, x)


class Block3d(nn.Module):
    r"""A residual block, basic or bottleneck, of 3D convolutions.

    .. math:: y = \mathrm{ReLU}\big(F(x) + S(x)\big)

    where F is two 3x3 (basic) or 1x1, 3x3, 1x1 convolutions (bottleneck), each with BatchNorm and ReLUs between them,
    that span ``times`` frames, and S is the identity or, where the extents or the channels change, a 1x1x1 convolution
    with BatchNorm. The first 3x3 has the stride.

    Args:
        inside, middle, out: channels of its input, of its inner convolutions and of its output.
        times: temporal kernel size of each convolution, two numbers (basic) or three (bottleneck).
        stride: in time and in space.
        groups: of the 3x3 of a bottleneck.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C', T', H', W')``.
    """

    def __init__(self, inside: int, middle: int, out: int, times: tuple[int, ...], stride: tuple[int, int] = (1, 1),
                 groups: int = 1) -> None:
        super().__init__()
        self.bottleneck = len(times) == 3
        if self.bottleneck:
            self.conv1 = conv3d(inside, middle, times[0], 1)
            self.bn1 = nn.BatchNorm3d(middle)
            self.conv2 = conv3d(middle, middle, times[1], 3, stride, groups)
            self.bn2 = nn.BatchNorm3d(middle)
            self.conv3 = conv3d(middle, out, times[2], 1)
            self.bn3 = nn.BatchNorm3d(out)
        else:
            self.conv1 = conv3d(inside, middle, times[0], 3, stride)
            self.bn1 = nn.BatchNorm3d(middle)
            self.conv2 = conv3d(middle, out, times[1], 3)
            self.bn2 = nn.BatchNorm3d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != (1, 1) or inside != out:
            self.downsample = nn.Sequential(conv3d(inside, out, 1, 1, stride), nn.BatchNorm3d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(convolve(self.conv1, x)))
        y = self.bn2(convolve(self.conv2, y))
        if self.bottleneck:
            y = self.bn3(convolve(self.conv3, self.relu(y)))
        # BatchNorm keeps its input for its gradient, not its output, which may be changed in place.
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


@dataclass(frozen=True)
class Layout3d:
    """The structure of a 3D ResNet.

    Attributes:
        stem: channels of the stem.
        middle, out: channels within and after the blocks of each layer.
        times: per layer and block, the temporal kernel sizes of its convolutions (see :class:`Block3d`).
        stem_time: temporal kernel size and stride of the stem's 7x7 convolution (its spatial stride is 2).
        pool: temporal kernel size and stride of the stem's 3x3 max-pooling (spatial stride 2); None for no pooling.
        halve: whether pairs of frames are max-pooled after ``layer1``.
        time_stride: temporal stride of the layers after the first (spatial stride 2).
        groups: of the 3x3 convolutions.
    """

    stem: int
    middle: tuple[int, ...]
    out: tuple[int, ...]
    times: tuple[tuple[tuple[int, ...], ...], ...]
    stem_time: tuple[int, int] = (7, 1)
    pool: tuple[int, int] | None = (3, 2)
    halve: bool = False
    time_stride: int = 2
    groups: int = 1


class ResNet3d(Backbone):
    """A ResNet of 3D convolutions.

    Stages are ``stem`` (after the max-pooling, where there is one) and ``layer1``, ``layer2``, ... Every extent is
    divided rounding up, so that clips of any length and size work.

    Args:
        channels: channels of the prepared clip.
        layout: its structure.
        checkpointing: in training, keep only the inputs of the stem and of each block, and compute the rest again.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C', T', H', W')``, for any T, H and W of at least 1.

    Source: He et al., "Deep residual learning", CVPR 2016; Tran et al., "ConvNet architecture search for
    spatiotemporal feature learning", 2017; Hara, Kataoka, Satoh, "Can spatiotemporal 3D CNNs retrace the history of 2D
    CNNs and ImageNet?", CVPR 2018. Initialization as in theirs (He et al., "Delving deep into rectifiers", fan-out).

    Deviation: the pooling of pairs of frames rounds up where usual code rounds down and fails for one frame; they differ
    for odd numbers of frames only.
    """

    def __init__(self, channels: int, layout: Layout3d, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.conv1 = conv3d(channels, layout.stem, layout.stem_time[0], 7, (layout.stem_time[1], 2))
        self.bn1 = nn.BatchNorm3d(layout.stem)
        self.relu = nn.ReLU(inplace=True)
        time, space = layout.stem_time[1], 2
        self.maxpool: nn.MaxPool3d | None = None
        if layout.pool is not None:
            k, step = layout.pool
            self.maxpool = nn.MaxPool3d((k, 3, 3), (step, 2, 2), (k // 2, 1, 1))
            time, space = time * step, space * 2
        self.pool2 = nn.MaxPool3d((2, 1, 1), ceil_mode=True) if layout.halve else None
        self.stages = {"stem": Stage(layout.stem, space, time)}
        inside = layout.stem
        for i, (middle, out, times) in enumerate(zip(layout.middle, layout.out, layout.times, strict=True)):
            stride = (layout.time_stride, 2) if i else (1, 1)
            blocks = [Block3d(out if j else inside, middle, out, kernel, (1, 1) if j else stride, layout.groups)
                      for j, kernel in enumerate(times)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            time, space = time * stride[0] * (2 if layout.halve and i == 1 else 1), space * stride[1]
            self.stages[f"layer{i + 1}"] = Stage(out, space, time)
            inside = out
        self.channels = inside
        for m in self.modules():
            if isinstance(m, nn.Conv3d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        maps: dict[str, Tensor] = {}
        stem = [self.conv1, self.bn1, self.relu, *([] if self.maxpool is None else [self.maxpool])]
        if self.checkpointing and self.training and not torch.compiler.is_compiling():
            x = self.checkpointed(_Layers(*stem), x)
        else:
            x = _through(stem, x)
        if "stem" in keep:
            maps["stem"] = x
        for name in list(self.stages)[1:]:
            if name == "layer2" and self.pool2 is not None:
                x = self.pool2(x)
            for block in getattr(self, name):
                x = self.checkpointed(block, x)
            if name in keep:
                maps[name] = x
        return x, maps


class PooledLogits(nn.Module):
    r"""Logits from the map's mean over time, height and width: the head of 3D ResNets.

    .. math:: z = W\, \mathrm{drop}(\bar x) + b

    Args:
        channels: channels of the map.
        classes: K.
        dropout: dropout probability of the pooled channels.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, K)``.
    """

    def __init__(self, channels: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(x.mean((2, 3, 4))))


#: Backbone -> blocks per layer, whether they are bottlenecks, and whether the stem is Res3D's: three frames, no pooling.
BACKBONES = {
    "resnet18": ((2, 2, 2, 2), False, False),
    "resnet34": ((3, 4, 6, 3), False, False),
    "resnet50": ((3, 4, 6, 3), True, False),
    "res3d18": ((2, 2, 2, 2), False, True),
}


@network("r3d", clip=(3, 16, 112))
def r3d(spec: NetworkSpec, *, backbone: str = "resnet18", width: Positive = 1.0, dropout: Share = 0.0,
        checkpointing: bool = False) -> Recognizer:
    """A residual network of 3x3x3 convolutions: 3D ResNet-18, 34 and 50, or Res3D-18.

    Args:
        backbone: ``resnet18``, ``resnet34`` or ``resnet50`` (a stem of 7x7x7 with stride 1 in time, then max-pooling
            over 3x3x3 with stride 2, projections where channels or extents change), or ``res3d18`` (a stem of 3x7x7 and
            no pooling, which costs five times as much).
        width: factor on the channels of every layer (1: 64 channels in the stem).
        dropout: dropout probability before the classifier.
        checkpointing: in training, keep only each block's input, and compute the rest again.

    Any number of frames and any size works; they were published with 16 frames of 112 x 112 pixels.

    Raises:
        ModaliftError: an unknown backbone, or an option outside its range.

    Source: Hara, Kataoka, Satoh, "Can spatiotemporal 3D CNNs retrace the history of 2D CNNs and ImageNet?", CVPR 2018
    (kenshohara/3D-ResNets-PyTorch, shortcuts of type B); Tran et al., "ConvNet architecture search for spatiotemporal
    feature learning", 2017, and Tran et al., "A closer look at spatiotemporal convolutions", CVPR 2018 (torchvision's
    ``r3d_18``). Parameters and multiply-accumulates are exactly theirs.

    Deviation: the mean is over the whole last map, where the first code has a window of fixed size; a version of that code
    has a temporal stride in the stem from 32 frames on, which this network has not.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("r3d", classes=83, channels=3, width=0.25).stages["layer4"].shape(16, 112, 112)
        (128, 1, 4, 4)
    """
    if backbone not in BACKBONES:
        raise ModaliftError(f"unknown backbone '{backbone}' of network 'r3d' - {nearest(backbone, BACKBONES)}")
    counts, bottleneck, plain = BACKBONES[backbone]
    middle = tuple(scaled_width(64, width) * 2**i for i in range(4))
    out = tuple(m * 4 for m in middle) if bottleneck else middle
    times = tuple(((1, 3, 1) if bottleneck else (3, 3),) * n for n in counts)
    layout = Layout3d(middle[0], middle, out, times, (3, 1) if plain else (7, 1), None if plain else (3, 2))
    trunk = ResNet3d(spec.prepared_channels, layout, checkpointing)
    return Recognizer(spec, trunk, PooledLogits(trunk.channels, spec.classes, dropout))
