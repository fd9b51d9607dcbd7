"""``r3d``: residual networks with 3D convolutions; the trunk of every 3D ResNet here.

Names of layers are those of the usual ResNet files (``conv1``, ``bn1``, ``layer1.0.conv1``, ``layer2.0.downsample.0``,
...), so that weights load by name, 2D ones after inflation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalift.errors import ModaliftError, nearest
from modalift.networks.recognizer import Backbone, Recognizer, Stage, wide
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Positive


def conv3d(inside: int, out: int, time: int, space: int, stride: tuple[int, int] = (1, 1), groups: int = 1) -> nn.Conv3d:
    """A convolution of ``time`` frames and ``space x space`` pixels without bias that keeps extents but for its stride."""
    (t, s), k = stride, (time, space, space)
    return nn.Conv3d(inside, out, k, (t, s, s), (time // 2, space // 2, space // 2), groups=groups, bias=False)


def convolve(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """``conv(x)``, also where a training step in half precision on a CPU would get a wrong gradient.

    Of kernels that reach over more frames than the map has, which is padded to be convolved, oneDNN's gradient of
    bfloat16 weights is noise, infinite, or written past its end (PyTorch 2.13, AVX-512; one frame and strides over time
    are not concerned). A map that brings its zeros along is convolved rightly.

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
    """Layers in a row, to be computed again as one."""

    def forward(self, x: Tensor) -> Tensor:
        return _through(self, x)


class Block3d(nn.Module):
    r"""A residual block, basic or bottleneck, of 3D convolutions.

    .. math:: y = \mathrm{ReLU}\big(F(x) + S(x)\big)

    where F is two 3x3 (basic) or 1x1, 3x3, 1x1 convolutions (bottleneck), each with BatchNorm and ReLUs between them,
    that reach over ``times`` frames, and S is the identity or, where the extents or the channels change, a 1x1x1
    convolution with BatchNorm. The stride stands on the first 3x3.

    Args:
        inside, middle, out: channels of its input, of its inner convolutions and of its output.
        times: frames that each convolution sees, two numbers (basic) or three (bottleneck).
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
        # BatchNorm keeps its input, so that its output is free to be added to.
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


@dataclass(frozen=True)
class Layout3d:
    """What a 3D ResNet looks like.

    Attributes:
        stem: channels of the stem.
        middle, out: channels within and after the blocks of each layer.
        times: of each layer, of each block, the frames that its convolutions see (see :class:`Block3d`).
        stem_time: frames that the stem's 7x7 convolution sees, and its stride in time (2 in space).
        pool: frames that the stem's 3x3 max-pooling sees, and its stride in time (2 in space); None for no pooling.
        halve: whether pairs of frames are max-pooled behind ``layer1``.
        time_stride: stride in time of the layers behind the first (2 in space).
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
    divided rounding up, so that clips of any length and any size pass.

    Args:
        channels: channels of the prepared clip.
        layout: what it looks like.
        recompute: keep only what goes into the stem and into each block in training, and compute the rest again.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C', T', H', W')``, for any T, H and W of at least 1.

    Source: He et al., "Deep residual learning", CVPR 2016; Tran et al., "ConvNet architecture search for
    spatiotemporal feature learning", 2017; Hara, Kataoka, Satoh, "Can spatiotemporal 3D CNNs retrace the history of 2D
    CNNs and ImageNet?", CVPR 2018. Weights start as in theirs (He et al., "Delving deep into rectifiers", over the
    outgoing connections).

    Deviation: the pooling of pairs of frames rounds up where usual code rounds down, which fails at one frame; they
    differ for odd numbers of frames only.
    """

    def __init__(self, channels: int, layout: Layout3d, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
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
        if self.recompute and self.training and not torch.compiler.is_compiling():
            x = self.again(_Layers(*stem), x)
        else:
            x = _through(stem, x)
        if "stem" in keep:
            maps["stem"] = x
        for name in list(self.stages)[1:]:
            if name == "layer2" and self.pool2 is not None:
                x = self.pool2(x)
            for block in getattr(self, name):
                x = self.again(block, x)
            if name in keep:
                maps[name] = x
        return x, maps


class PooledLogits(nn.Module):
    r"""Logits of the map's mean over time, height and width: the head of 3D ResNets.

    .. math:: z = W\, \mathrm{drop}(\bar x) + b

    Args:
        channels: channels of the map.
        classes: K.
        dropout: share of the pooled channels that is dropped in training.

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


#: Backbone -> blocks of each layer, whether they are bottlenecks, and whether the stem is Res3D's: three frames, no pooling.
BACKBONES = {
    "resnet18": ((2, 2, 2, 2), False, False),
    "resnet34": ((3, 4, 6, 3), False, False),
    "resnet50": ((3, 4, 6, 3), True, False),
    "res3d18": ((2, 2, 2, 2), False, True),
}


@network("r3d", clip=(3, 16, 112))
def r3d(spec: NetworkSpec, *, backbone: str = "resnet18", width: Positive = 1.0, dropout: float = 0.0,
        recompute: bool = False) -> Recognizer:
    """A residual network of 3x3x3 convolutions: 3D ResNet-18, 34 and 50, or Res3D-18.

    Args:
        backbone: ``resnet18``, ``resnet34`` or ``resnet50`` (a stem of 7x7x7 with stride 1 in time, then max-pooling
            over 3x3x3 with stride 2, projections where channels or extents change), or ``res3d18`` (a stem of 3x7x7 and
            no pooling, which costs five times as much).
        width: factor on the channels of every layer (64 in the stem at 1).
        dropout: before the classifier.
        recompute: keep only each block's input in training, and compute the rest again.

    Any number of frames and any size works; they were published with 16 frames of 112 x 112 pixels.

    Raises:
        ModaliftError: an unknown backbone, or a width that is not above 0.

    Source: Hara, Kataoka, Satoh, "Can spatiotemporal 3D CNNs retrace the history of 2D CNNs and ImageNet?", CVPR 2018
    (kenshohara/3D-ResNets-PyTorch, shortcuts of type B); Tran et al., "ConvNet architecture search for spatiotemporal
    feature learning", 2017, and Tran et al., "A closer look at spatiotemporal convolutions", CVPR 2018 (torchvision's
    ``r3d_18``). Parameters and multiply-accumulates are exactly theirs.

    Deviation: the mean is over whatever time and space are left, where the first code has a window of fixed size; a
    version of that code strides the stem in time from 32 frames on, which is not done here.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("r3d", classes=83, channels=3, width=0.25).stages["layer4"].shape(16, 112, 112)
        (128, 1, 4, 4)
    """
    if backbone not in BACKBONES:
        raise ModaliftError(f"unknown backbone '{backbone}' of network 'r3d' - {nearest(backbone, BACKBONES)}")
    counts, bottleneck, plain = BACKBONES[backbone]
    middle = tuple(wide(64, width) * 2**i for i in range(4))
    out = tuple(m * 4 for m in middle) if bottleneck else middle
    times = tuple(((1, 3, 1) if bottleneck else (3, 3),) * n for n in counts)
    layout = Layout3d(middle[0], middle, out, times, (3, 1) if plain else (7, 1), None if plain else (3, 2))
    trunk = ResNet3d(spec.prepared_channels, layout, recompute)
    return Recognizer(spec, trunk, PooledLogits(trunk.channels, spec.classes, dropout))
