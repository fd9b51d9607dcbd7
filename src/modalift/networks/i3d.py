"""``i3d``: Inception-V1 inflated to three dimensions.

Layers are named as in public PyTorch weights (``Mixed_3b.b1a.conv3d``, ...), so that weights load by name.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalift.networks.padding import pad_same, same_padding
from modalift.networks.r3d import convolve
from modalift.networks.recognizer import Backbone, Recognizer, Stage, scaled_width
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Count, Positive, Share

#: How maps are padded: as TensorFlow's SAME, which depends on their extents; or with fixed, symmetric zeros, as in mmpose.
Padding = Literal["same", "symmetric"]

_LAST = torch.channels_last_3d


class Unit(nn.Module):
    r"""Convolution, BatchNorm, ReLU.

    Args:
        inside, out: channels.
        kernel: 1, 3 or 7, in all three axes.
        stride: 1, or 2 with a kernel of 7.
        padding: see :data:`Padding`. The symmetric kind adds 2 frames and 3 pixels around a kernel of 7.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C', T', H', W')``.
    """

    def __init__(self, inside: int, out: int, kernel: int = 1, stride: int = 1, padding: Padding = "same") -> None:
        super().__init__()
        # With stride 1 the convolution itself does both kinds of padding.
        own = (2, 3, 3) if stride > 1 and padding == "symmetric" else 0 if stride > 1 else kernel // 2
        self.conv3d = nn.Conv3d(inside, out, kernel, stride, own, bias=False)
        self.bn = nn.BatchNorm3d(out) if padding == "symmetric" else nn.BatchNorm3d(out, eps=1e-3, momentum=0.01)
        self.kernel, self.stride, self.symmetric = kernel, stride, padding == "symmetric"
        nn.init.kaiming_normal_(self.conv3d.weight, mode="fan_out", nonlinearity="relu")

    def pad(self, x: Tensor) -> Tensor:
        """The map with the zeros that the convolution does not add itself."""
        if self.stride == 1:
            return x
        if self.symmetric:
            return x if x.shape[2] > 2 else F.pad(x, [0, 0, 0, 0, 1, 1])  # or there would be no output
        return pad_same(x, [self.kernel] * 3, [self.stride] * 3)

    def forward(self, x: Tensor) -> Tensor:
        y = pointwise_convs(x, self)[0] if self.kernel == 1 else convolve(self.conv3d, self.pad(x))
        return F.relu(self.bn(y), inplace=True)  # BatchNorm keeps its input, not its output


def pointwise_convs(x: Tensor, *units: Unit) -> list[Tensor]:
    """The outputs of the 1x1x1 convolutions of some units for one map.

    In training they are one matrix product with all weights; otherwise the layers are called, so that hooks on them run.
    """
    if not (torch.is_grad_enabled() and units[0].training):
        return [unit.conv3d(x) for unit in units]
    weights = [unit.conv3d.weight for unit in units]
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    if x.is_contiguous(memory_format=_LAST):
        y = F.linear(x.permute(0, 2, 3, 4, 1), weight.flatten(1)).permute(0, 4, 1, 2, 3)
        layout = _LAST
    else:
        y, layout = F.conv3d(x, weight), torch.contiguous_format
    return [part.contiguous(memory_format=layout) for part in y.split([len(w) for w in weights], 1)]


class Pool(nn.Module):
    r"""Max-pooling of non-negative maps.

    Zeros around such a map change no maximum, so it is not padded: windows are cut at its border instead.

    Args:
        kernel, stride: in time, and in height and width.
        padding: see :data:`Padding`.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C, T', H', W')``.
    """

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: Padding = "same") -> None:
        super().__init__()
        self.kernel, self.stride = (kernel[0], kernel[1], kernel[1]), (stride[0], stride[1], stride[1])
        self.symmetric = padding == "symmetric"

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu:
            x = x.contiguous(memory_format=_LAST)  # ten times as fast, the copy included
        if self.symmetric:
            kernel = tuple(min(k, n + 2 * ((k - 1) // 2)) for k, n in zip(self.kernel, x.shape[2:], strict=True))
            return F.max_pool3d(x, kernel, self.stride, tuple((k - 1) // 2 for k in self.kernel))
        front = tuple(same_padding(n, k, s)[0] for n, k, s in zip(x.shape[2:], self.kernel, self.stride, strict=True))
        return F.max_pool3d(x, self.kernel, self.stride, front, ceil_mode=True)


class Inception(nn.Module):
    r"""Four branches over one map, concatenated over the channels.

    .. math:: y = [\,u_1(x);\ u_3(u_1(x));\ u_3(u_1(x));\ u_1(\mathrm{max}_3(x))\,]

    with units u of kernel 1x1x1 or 3x3x3, each with its own weights, and max-pooling over 3x3x3 with stride 1.

    Args:
        inside: channels of its input.
        sizes: channels after ``b0``, ``b1a``, ``b1b``, ``b2a``, ``b2b`` and ``b3b``.
        padding: see :data:`Padding`.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C', T, H, W)``.
    """

    def __init__(self, inside: int, sizes: tuple[int, ...], padding: Padding = "same") -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = sizes
        self.b0 = Unit(inside, b0, padding=padding)
        self.b1a = Unit(inside, b1a, padding=padding)
        self.b1b = Unit(b1a, b1b, 3, padding=padding)
        self.b2a = Unit(inside, b2a, padding=padding)
        self.b2b = Unit(b2a, b2b, 3, padding=padding)
        self.b3a = Pool((3, 3), (1, 1), padding)
        self.b3b = Unit(inside, b3b, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        layout = _LAST if x.is_contiguous(memory_format=_LAST) else torch.contiguous_format
        y0, y1, y2 = pointwise_convs(x, self.b0, self.b1a, self.b2a)
        y1 = convolve(self.b1b.conv3d, F.relu(self.b1a.bn(y1), inplace=True))
        y2 = convolve(self.b2b.conv3d, F.relu(self.b2a.bn(y2), inplace=True))
        y3 = pointwise_convs(self.b3a(x).contiguous(memory_format=layout), self.b3b)[0]
        # One ReLU for all: what each branch would keep for its own, the next layer keeps anyway.
        return F.relu(torch.cat([self.b0.bn(y0), self.b1b.bn(y1), self.b2b.bn(y2), self.b3b.bn(y3)], 1), inplace=True)


#: Inception block -> channels after each convolution of its four branches.
INCEPTIONS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32), "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64), "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64), "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128), "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
#: Pooling -> kernel and stride, each in time and in space.
POOLS = {
    "MaxPool3d_2a_3x3": ((1, 3), (1, 2)), "MaxPool3d_3a_3x3": ((1, 3), (1, 2)),
    "MaxPool3d_4a_3x3": ((3, 3), (2, 2)), "MaxPool3d_5a_2x2": ((2, 2), (2, 2)),
}
_ORDER = ("Conv3d_1a_7x7", "MaxPool3d_2a_3x3", "Conv3d_2b_1x1", "Conv3d_2c_3x3", "MaxPool3d_3a_3x3", "Mixed_3b", "Mixed_3c",
          "MaxPool3d_4a_3x3", "Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f", "MaxPool3d_5a_2x2", "Mixed_5b",
          "Mixed_5c")
#: On CPUs maps are channels-last before this layer. From here on maps are small and weights many, and PyTorch's weight
#: gradients take up to five times as long in that memory format.
_CONTIGUOUS_FROM = "Mixed_4b"


def _symmetric_frames(stride: int, frames: int) -> int:
    count = max((frames - 1) // 2, 1)
    count = count if stride == 2 else -(-count // 2)
    return count if stride < 8 else max(count // 2, 1)


def _symmetric_pixels(stride: int, pixels: int) -> int:
    return -(-pixels // stride) if stride < 32 else max(-(-pixels // 16) // 2, 1)


class InceptionI3d(Backbone):
    """Inception-V1 with cubic kernels.

    Stages are all its layers, by their published names, ``Conv3d_1a_7x7`` to ``Mixed_5c``.

    Args:
        channels: channels of the prepared clip.
        width: factor on the channels of every layer.
        padding: see :data:`Padding`.
        checkpointing: in training, keep only the inputs of each Inception block, and compute the rest again.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, 1024, T', H', W')``; with padding ``same``, any extent n becomes
    :math:`\\lceil n/8 \\rceil` in time and :math:`\\lceil n/32 \\rceil` in space.

    Source: Carreira and Zisserman, "Quo vadis, action recognition? A new model and the Kinetics dataset", CVPR 2017,
    figure 3 (google-deepmind/kinetics-i3d; its second convolution of ``b2`` is 3x3x3); with padding ``symmetric``,
    open-mmlab/mmpose 0.x.
    """

    def __init__(self, channels: int, width: float = 1.0, padding: Padding = "same", checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        inside, time, space = channels, 1, 1
        self.stages = {}
        for name in _ORDER:
            part: nn.Module
            if name in POOLS:
                kernel, stride = POOLS[name]
                part = Pool(kernel, stride, padding)
                time, space = time * stride[0], space * stride[1]
            elif name in INCEPTIONS:
                sizes = tuple(scaled_width(c, width) for c in INCEPTIONS[name])
                part, inside = Inception(inside, sizes, padding), sizes[0] + sizes[2] + sizes[4] + sizes[5]
            elif name == "Conv3d_1a_7x7":
                out = scaled_width(64, width)
                part, inside, time, space = Unit(inside, out, 7, 2, padding), out, 2, 2
            else:
                count, k = (64, 1) if name == "Conv3d_2b_1x1" else (192, 3)
                out = scaled_width(count, width)
                part, inside = Unit(inside, out, k, padding=padding), out
            self.add_module(name, part)
            self.stages[name] = Stage(inside, space, time) if padding == "same" else Stage(
                inside, space, time, partial(_symmetric_pixels, space), partial(_symmetric_frames, time))
        self.channels = inside

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        maps: dict[str, Tensor] = {}
        recompute = self.checkpointing and self.training and not torch.compiler.is_compiling()
        if x.is_cpu:
            x = x.contiguous(memory_format=_LAST)
        group: list[nn.Module] = []
        for name in self.stages:
            if name == _CONTIGUOUS_FROM and x.is_cpu:
                x = x.contiguous()
            part = getattr(self, name)
            if not recompute:
                x = part(x)
            else:
                # Layers up to a pooling as one group: the maps before it are the largest.
                group.append(part)
                if name.startswith("Conv3d_") and name not in keep:
                    continue
                x = self.checkpointed(nn.Sequential(*group), x)
                group = []
            if name in keep:
                maps[name] = x
        return x, maps


class WindowedLogits(nn.Module):
    r"""Logits of every window of a map, averaged: the head of I3D.

    .. math:: z = \frac1n \sum_i \left( W\, \mathrm{drop}(\bar x_i) + b \right)

    where :math:`\bar x_i` is the mean of the i-th of n windows, one at every position.

    Args:
        channels: channels of the map.
        classes: K.
        dropout: dropout probability of the pooled channels.
        window: its frames, height and width; None for the map's extent, to which larger ones are cut.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, K)``.

    Source: Carreira and Zisserman, CVPR 2017 (google-deepmind/kinetics-i3d), for windows of 2 frames and 7 x 7
    positions, the whole map of a 224-pixel image.
    """

    def __init__(self, channels: int, classes: int, dropout: float = 0.5,
                 window: tuple[int | None, int | None, int | None] = (2, None, None)) -> None:
        super().__init__()
        self.window = window
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Conv3d(channels, classes, 1)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        window = tuple(n if w is None else min(w, n) for w, n in zip(self.window, x.shape[2:], strict=True))
        full = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x  # PyTorch does not pool half precision on CPUs
        return self.fc(self.drop(F.avg_pool3d(full, window, 1).to(x.dtype))).mean((2, 3, 4))


@network("i3d", papers="MTUT", clip=(3, 64, 224))
def i3d(spec: NetworkSpec, *, width: Positive = 1.0, dropout: Share = 0.5, padding: Padding = "same",
        window: tuple[Count, Count, Count] | None = None, checkpointing: bool = False) -> Recognizer:
    """I3D: Inception-V1 inflated to three dimensions.

    Args:
        width: factor on the channels of every layer (1: 64 channels in the stem).
        dropout: dropout probability before the classifier.
        padding: ``same`` is the published network and its PyTorch ports. ``symmetric`` is mmpose's, for its MTUT weights:
            fixed padding (16 frames become 7 in the stem, where ``same`` gives 8), BatchNorm with an epsilon of 1e-5
            and a momentum of 0.1 (1e-3 and 0.01 with ``same``).
        window: frames, height and width of the average pooling before the classifier; by default the whole image and 2
            frames (``same``) or 1 (``symmetric``). mmpose's weights for 112 pixels have (1, 2, 2).
        checkpointing: in training, keep only each block's input, and compute the rest again.

    Any number of frames and any size works, where the published head needs 9 frames of 224 pixels.

    Raises:
        ModaliftError: an unknown padding, or an option outside its range.

    Source: Carreira and Zisserman, "Quo vadis, action recognition? A new model and the Kinetics dataset", CVPR 2017;
    used by Abavisani, Joze, Patel, "Improving the performance of unimodal dynamic hand-gesture recognition with
    multimodal training", CVPR 2019. Parameters, multiply-accumulates and logits are exactly those of the published
    network (google-deepmind/kinetics-i3d, piergiaj/pytorch-i3d), and with ``symmetric`` those of open-mmlab/mmpose 0.x.

    Deviations: He's initialization. The mean is over the whole image also if it is larger than 224 pixels. A map of one
    frame is averaged over that frame. With ``symmetric``, clips that are too short for the stem or the last pooling
    (mmpose fails) give one position.

    Example:
        >>> import modalift.networks as networks
        >>> net = networks.build("i3d", classes=25, channels=3, width=0.125)
        >>> net.stages["Mixed_5c"].shape(64, 224, 224), net.stages["Mixed_5c"].shape(8, 112, 112)
        ((128, 8, 7, 7), (128, 1, 4, 4))
    """
    trunk = InceptionI3d(spec.prepared_channels, width, padding, checkpointing)
    over = window or (2 if padding == "same" else 1, None, None)
    return Recognizer(spec, trunk, WindowedLogits(trunk.channels, spec.classes, dropout, over))
