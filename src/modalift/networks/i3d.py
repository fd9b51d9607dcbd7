"""``i3d``: Inception-V1 inflated to three dimensions.

Names of layers are those of the PyTorch files that people have (``Mixed_3b.b1a.conv3d``, ...), so that weights load by
name.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalift.networks.r3d import convolve
from modalift.networks.recognizer import Backbone, Recognizer, Stage, wide
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Count, Positive

#: How maps are padded: as TensorFlow's SAME does, which depends on their extents; or by as many zeros on either side
#: whatever they are, as mmpose does.
Padding = Literal["same", "symmetric"]

_LAST = torch.channels_last_3d


def same(extent: int, kernel: int, stride: int) -> tuple[int, int]:
    r"""Zeros in front of and behind an axis, so that it has :math:`\lceil n / s \rceil` positions afterwards.

    .. math:: p = \max(k - s, 0) \text{ if } s \mid n, \text{ else } \max(k - n \bmod s, 0)

    of which the smaller half stands in front.

    Source: TensorFlow's padding ``SAME``.

    Example:
        >>> same(224, 7, 2), same(225, 7, 2)
        ((2, 3), (3, 3))
    """
    missing = max(kernel - (extent % stride or stride), 0)
    return missing // 2, missing - missing // 2


class Unit(nn.Module):
    r"""Convolution, BatchNorm, ReLU.

    Args:
        inside, out: channels.
        kernel: 1, 3 or 7, in all three axes.
        stride: 1, or 2 with a kernel of 7.
        padding: see :data:`Padding`. The symmetric kind has 2 frames and 3 pixels around a kernel of 7.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C', T', H', W')``.
    """

    def __init__(self, inside: int, out: int, kernel: int = 1, stride: int = 1, padding: Padding = "same") -> None:
        super().__init__()
        # With stride 1 both kinds of padding are the convolution's own.
        own = (2, 3, 3) if stride > 1 and padding == "symmetric" else 0 if stride > 1 else kernel // 2
        self.conv3d = nn.Conv3d(inside, out, kernel, stride, own, bias=False)
        self.bn = nn.BatchNorm3d(out) if padding == "symmetric" else nn.BatchNorm3d(out, eps=1e-3, momentum=0.01)
        self.kernel, self.stride, self.symmetric = kernel, stride, padding == "symmetric"
        nn.init.kaiming_normal_(self.conv3d.weight, mode="fan_out", nonlinearity="relu")

    def widened(self, x: Tensor) -> Tensor:
        """With the zeros that the convolution does not add itself."""
        if self.stride == 1:
            return x
        if self.symmetric:
            return x if x.shape[2] > 2 else F.pad(x, [0, 0, 0, 0, 1, 1])  # or there would be no position at all
        return F.pad(x, [zeros for n in reversed(x.shape[2:]) for zeros in same(n, self.kernel, self.stride)])

    def forward(self, x: Tensor) -> Tensor:
        y = convolved(x, self)[0] if self.kernel == 1 else convolve(self.conv3d, self.widened(x))
        return F.relu(self.bn(y), inplace=True)  # BatchNorm keeps its input, not what it gives


def convolved(x: Tensor, *units: Unit) -> list[Tensor]:
    """What the 1x1x1 convolutions of some units make of one map.

    A training step multiplies by all their weights at once; otherwise the layers are called, so that they can be
    watched. Both are the same sums.
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
    r"""Max-pooling of maps that are nowhere negative.

    Zeros around such a map change no maximum, so nothing is copied for them: windows are cut at its border instead.

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
        front = tuple(same(n, k, s)[0] for n, k, s in zip(x.shape[2:], self.kernel, self.stride, strict=True))
        return F.max_pool3d(x, self.kernel, self.stride, front, ceil_mode=True)


class Inception(nn.Module):
    r"""Four branches over one map, side by side in the channels.

    .. math:: y = [\,u_1(x);\ u_3(u_1(x));\ u_3(u_1(x));\ u_1(\mathrm{max}_3(x))\,]

    with units u of kernel 1x1x1 or 3x3x3, each with weights of its own, and max-pooling over 3x3x3 with stride 1.

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
        y0, y1, y2 = convolved(x, self.b0, self.b1a, self.b2a)
        y1 = convolve(self.b1b.conv3d, F.relu(self.b1a.bn(y1), inplace=True))
        y2 = convolve(self.b2b.conv3d, F.relu(self.b2a.bn(y2), inplace=True))
        y3 = convolved(self.b3a(x).contiguous(memory_format=layout), self.b3b)[0]
        # Activated together: what each branch would keep for its ReLU is what the next layer keeps anyway.
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
#: Maps on CPUs are in channels-last order up to here. Behind it they are small and the weights many, and PyTorch's
#: gradients of such weights take up to five times as long in that order.
_TURN = "Mixed_4b"


def _symmetric_frames(stride: int, frames: int) -> int:
    count = max((frames - 1) // 2, 1)
    count = count if stride == 2 else -(-count // 2)
    return count if stride < 8 else max(count // 2, 1)


def _symmetric_pixels(stride: int, pixels: int) -> int:
    return -(-pixels // stride) if stride < 32 else max(-(-pixels // 16) // 2, 1)


class InceptionI3d(Backbone):
    """Inception-V1 with every kernel made a cube.

    Stages are all its layers by their published names, ``Conv3d_1a_7x7`` to ``Mixed_5c``.

    Args:
        channels: channels of the prepared clip.
        width: factor on the channels of every layer.
        padding: see :data:`Padding`.
        recompute: keep only what goes into each Inception block in training, and compute the rest again.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, 1024, T', H', W')``; with padding ``same``, any extent n becomes
    :math:`\\lceil n/8 \\rceil` in time and :math:`\\lceil n/32 \\rceil` in space.

    Source: Carreira and Zisserman, "Quo vadis, action recognition? A new model and the Kinetics dataset", CVPR 2017,
    figure 3 (google-deepmind/kinetics-i3d; its second convolution of ``b2`` is 3x3x3); with padding ``symmetric``,
    open-mmlab/mmpose 0.x.
    """

    def __init__(self, channels: int, width: float = 1.0, padding: Padding = "same", recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        inside, time, space = channels, 1, 1
        self.stages = {}
        for name in _ORDER:
            part: nn.Module
            if name in POOLS:
                kernel, stride = POOLS[name]
                part = Pool(kernel, stride, padding)
                time, space = time * stride[0], space * stride[1]
            elif name in INCEPTIONS:
                sizes = tuple(wide(c, width) for c in INCEPTIONS[name])
                part, inside = Inception(inside, sizes, padding), sizes[0] + sizes[2] + sizes[4] + sizes[5]
            elif name == "Conv3d_1a_7x7":
                out = wide(64, width)
                part, inside, time, space = Unit(inside, out, 7, 2, padding), out, 2, 2
            else:
                count, k = (64, 1) if name == "Conv3d_2b_1x1" else (192, 3)
                out = wide(count, width)
                part, inside = Unit(inside, out, k, padding=padding), out
            self.add_module(name, part)
            self.stages[name] = Stage(inside, space, time) if padding == "same" else Stage(
                inside, space, time, partial(_symmetric_pixels, space), partial(_symmetric_frames, time))
        self.channels = inside

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        maps: dict[str, Tensor] = {}
        again = self.recompute and self.training and not torch.compiler.is_compiling()
        if x.is_cpu:
            x = x.contiguous(memory_format=_LAST)
        waiting: list[nn.Module] = []
        for name in self.stages:
            if name == _TURN and x.is_cpu:
                x = x.contiguous()
            part = getattr(self, name)
            if not again:
                x = part(x)
            else:
                # Up to a pooling at once: the maps in front of it are the largest.
                waiting.append(part)
                if name.startswith("Conv3d_") and name not in keep:
                    continue
                x = self.again(nn.Sequential(*waiting), x)
                waiting = []
            if name in keep:
                maps[name] = x
        return x, maps


class WindowedLogits(nn.Module):
    r"""Logits of every window of a map, averaged: the head of I3D.

    .. math:: z = \frac1n \sum_i \left( W\, \mathrm{drop}(\bar x_i) + b \right)

    where :math:`\bar x_i` is the mean of the i-th of n windows, one at every position where it fits.

    Args:
        channels: channels of the map.
        classes: K.
        dropout: share of the pooled channels that is dropped in training.
        window: its frames, height and width; None for all that the map has. It is cut to the map's.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, K)``.

    Source: Carreira and Zisserman, CVPR 2017 (google-deepmind/kinetics-i3d), for windows of 2 frames and 7 x 7
    positions, which are all that a picture of 224 pixels has.
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
        full = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x  # PyTorch pools no halves on CPUs
        return self.fc(self.drop(F.avg_pool3d(full, window, 1).to(x.dtype))).mean((2, 3, 4))


@network("i3d", papers="MTUT", clip=(3, 64, 224))
def i3d(spec: NetworkSpec, *, width: Positive = 1.0, dropout: float = 0.5, padding: Padding = "same",
        window: tuple[Count, Count, Count] | None = None, recompute: bool = False) -> Recognizer:
    """I3D: Inception-V1 inflated to three dimensions.

    Args:
        width: factor on the channels of every layer (64 in the stem at 1).
        dropout: before the classifier.
        padding: ``same`` is the published network and its PyTorch ports. ``symmetric`` is mmpose's, whose weights of
            MTUT are made for it: fixed padding (7 maps of 16 frames in the stem, where ``same`` has 8), BatchNorm with
            an epsilon of 1e-5 and a momentum of 0.1 (0.001 and 0.01 otherwise).
        window: frames, height and width of the mean in front of the classifier; by default the whole picture and 2
            frames (``same``) or 1 (``symmetric``). mmpose's weights for 112 pixels have (1, 2, 2).
        recompute: keep only each block's input in training, and compute the rest again.

    Any number of frames and any size works, where the published head asks for 9 frames of 224 pixels.

    Raises:
        ModaliftError: an unknown padding, a window without extent, or a width that is not above 0.

    Source: Carreira and Zisserman, "Quo vadis, action recognition? A new model and the Kinetics dataset", CVPR 2017;
    used by Abavisani, Joze, Patel, "Improving the performance of unimodal dynamic hand-gesture recognition with
    multimodal training", CVPR 2019. Parameters, multiply-accumulates and logits are exactly those of the published
    network (google-deepmind/kinetics-i3d, piergiaj/pytorch-i3d), and with ``symmetric`` those of open-mmlab/mmpose 0.x.

    Deviations: weights start as in He et al., "Delving deep into rectifiers". The mean is over the whole picture also
    where that is larger than 224 pixels. One map of a single frame is its own mean. With ``symmetric``, clips that leave
    no position in the stem or in the last pooling (mmpose fails) get one.

    Example:
        >>> import modalift.networks as networks
        >>> net = networks.build("i3d", classes=25, channels=3, width=0.125)
        >>> net.stages["Mixed_5c"].shape(64, 224, 224), net.stages["Mixed_5c"].shape(8, 112, 112)
        ((128, 8, 7, 7), (128, 1, 4, 4))
    """
    trunk = InceptionI3d(spec.prepared_channels, width, padding, recompute)
    over = window or (2 if padding == "same" else 1, None, None)
    return Recognizer(spec, trunk, WindowedLogits(trunk.channels, spec.classes, dropout, over))
