"""``c3d``: eight 3 x 3 x 3 convolutions and two wide fully connected layers."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from modalift.errors import ModaliftError, nearest
from modalift.networks.r3d import convolve
from modalift.networks.recognizer import Backbone, Recognizer, Stage
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Count, Positive, Share

#: The published network, or the variant with BatchNorm in the tables of real-time gesture recognition papers.
Variant = Literal["standard", "gesrec"]

#: Channels of the convolutions in each of the five groups.
CHANNELS = ((64,), (128,), (256, 256), (512, 512), (512, 512))

Triple = tuple[int, int, int]
#: Kernel, stride and padding ``(T, H, W)`` of the max-pooling after each group.
POOLS: dict[str, tuple[tuple[Triple, Triple, Triple], ...]] = {
    "standard": (((1, 2, 2), (1, 2, 2), (0, 0, 0)), *3 * (((2, 2, 2), (2, 2, 2), (0, 0, 0)),),
                 ((2, 2, 2), (2, 2, 2), (0, 1, 1))),
    "gesrec": (((2, 2, 2), (1, 2, 2), (0, 0, 0)), *3 * (((2, 2, 2), (2, 2, 2), (0, 0, 0)),),
               ((1, 2, 2), (2, 2, 2), (0, 1, 1))),
}


class Pool(nn.MaxPool3d):
    """A max-pooling whose window is cut to the extents of shorter or smaller clips; otherwise the plain one.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C, T', H', W')``, none below 1.
    """

    def __init__(self, kernel: Triple, stride: Triple, padding: Triple) -> None:
        super().__init__(kernel, stride, padding)
        self.window, self.step, self.border = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        window = [min(k, n + 2 * p) for k, n, p in zip(self.window, x.shape[2:], self.border, strict=True)]
        return functional.max_pool3d(x, window, self.step, self.border)


def pooled_extent(extent: int, pools: tuple[tuple[int, int, int], ...]) -> int:
    """Frames or pixels that remain after poolings ``(kernel, stride, padding)``.

    Example:
        >>> pooled_extent(7, ((2, 2, 1),)), pooled_extent(32, ((2, 1, 0), (2, 2, 0)))
        (4, 15)
    """
    for kernel, stride, padding in pools:
        room = extent + 2 * padding
        extent = (room - min(kernel, room)) // stride + 1
    return extent


class C3D(Backbone):
    """The convolutions of C3D.

    Stages are ``conv1`` to ``conv5``, the maps of each group before its pooling, and ``pool5``.

    Args:
        channels: channels of the prepared clip.
        variant: ``standard`` or ``gesrec``.
        width: factor on the channels of every layer.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, 512 * width, T', H', W')`` for any T, H and W of at least 1: 16 x 112 x 112
    gives 1 x 4 x 4.
    """

    def __init__(self, channels: int, variant: Variant = "standard", width: float = 1.0) -> None:
        super().__init__()
        if variant not in POOLS:
            raise ModaliftError(f"unknown variant '{variant}' of c3d - {nearest(variant, POOLS)}")
        self.variant = variant
        if variant == "standard":
            self.relu = nn.ReLU(inplace=True)  # one for all; in the other variant each group has its own
        self.stages = {}
        pools = POOLS[variant]
        for i, plan in enumerate(CHANNELS):
            counts = [channels, *(max(1, round(c * width)) for c in plan)]
            convolutions = [nn.Conv3d(a, b, 3, padding=1) for a, b in pairwise(counts)]
            channels = counts[-1]
            if variant == "gesrec":
                group: list[nn.Module] = []
                for conv in convolutions:
                    group += [conv, nn.BatchNorm3d(conv.out_channels), nn.ReLU(inplace=True)]
                self.add_module(f"group{i + 1}", nn.Sequential(*group, Pool(*pools[i])))
            else:
                for letter, conv in zip("ab" if len(plan) > 1 else [""], convolutions, strict=True):
                    self.add_module(f"conv{i + 1}{letter}", conv)
                self.add_module(f"pool{i + 1}", Pool(*pools[i]))
            self.stages[f"conv{i + 1}"] = self.stage(channels, pools[:i])
        self.stages["pool5"] = self.stage(channels, pools)
        self.channels = channels
        for m in self.modules():
            if isinstance(m, nn.Conv3d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                assert m.bias is not None
                nn.init.zeros_(m.bias)

    @staticmethod
    def stage(channels: int, pools: tuple[tuple[Triple, Triple, Triple], ...]) -> Stage:
        """The extents of a map after these poolings."""
        axes = [tuple((kernel[axis], stride[axis], padding[axis]) for kernel, stride, padding in pools) for axis in (2, 0)]
        strides = [1, 1]
        for _, stride, _ in pools:
            strides = [strides[0] * stride[2], strides[1] * stride[0]]
        return Stage(channels, strides[0], strides[1], partial(pooled_extent, pools=axes[0]),
                     partial(pooled_extent, pools=axes[1]))

    def layers(self, group: int) -> list[nn.Module]:
        """The layers of the group of this number (from 1), the pooling last."""
        if self.variant == "gesrec":
            return list(getattr(self, f"group{group}"))
        names = [f"conv{group}{letter}" for letter in ("ab" if len(CHANNELS[group - 1]) > 1 else [""])]
        return [m for name in names for m in (getattr(self, name), self.relu)] + [getattr(self, f"pool{group}")]

    def forward(self, x: Tensor, group: int = 0, pool: bool = True) -> Tensor:
        """The last map of a clip; or, with ``group``, one group's output for its input, with or without its pooling."""
        if group == 0:
            return self.features(x)[0]
        layers = self.layers(group)
        for layer in layers if pool else layers[:-1]:
            x = convolve(layer, x) if isinstance(layer, nn.Conv3d) else layer(x)
        return x

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        maps: dict[str, Tensor] = {}
        for group in range(1, len(CHANNELS) + 1):
            kept = f"conv{group}" in keep
            x = self.checkpointed(self, x, group, not kept)
            if kept:
                maps[f"conv{group}"] = x
                x = self.layers(group)[-1](x)
        if "pool5" in keep:
            maps["pool5"] = x
        return x, maps


class FullyConnected(nn.Module):
    r"""Two wide layers and the classifier, on the whole last map of a clip.

    .. math:: u = \mathrm{drop}(\mathrm{ReLU}(W_6\, \mathrm{vec}(x) + b_6)), \quad
              v = \mathrm{drop}(\mathrm{ReLU}(W_7 u + b_7)), \quad z = W v + b

    where x is a map of the extents that the network was built for. Other maps are first resized by adaptive average
    pooling, which changes nothing at these extents.

    Args:
        shape: ``(C, T, H, W)`` of the map that it is built for.
        classes: K.
        hidden: outputs of the two layers.
        dropout: dropout probability of their outputs.
        variant: decides the layer names: ``fc6`` and ``fc7``, or ``fc1.0`` and ``fc2.0``.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, K)``, any T, H and W.
    """

    def __init__(self, shape: tuple[int, int, int, int], classes: int, hidden: int, dropout: float,
                 variant: Variant = "standard") -> None:
        super().__init__()
        self.grid = shape[1:]
        first, second = nn.Linear(math.prod(shape), hidden), nn.Linear(hidden, hidden)
        self.names = ("fc1", "fc2") if variant == "gesrec" else ("fc6", "fc7")
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(dropout)
        for name, layer in zip(self.names, (first, second), strict=True):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
            self.add_module(name, nn.Sequential(layer) if variant == "gesrec" else layer)
        self.fc = nn.Linear(hidden, classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != self.grid:
            x = functional.adaptive_avg_pool3d(x, self.grid)
        x = x.flatten(1)
        for name in self.names:
            x = self.drop(self.relu(getattr(self, name)(x)))
        return self.fc(x)


@network("c3d", papers="MTUT, MSD, MTCD", clip=(3, 16, 112))
def c3d(spec: NetworkSpec, *, variant: Variant = "standard", width: Positive = 1.0, hidden: Count | None = None,
        dropout: Share = 0.5, checkpointing: bool = False) -> Recognizer:
    """C3D: 3 x 3 x 3 convolutions throughout, and fully connected layers on the whole last map.

    Args:
        variant: ``standard``, or ``gesrec``: BatchNorm after every convolution, a first pooling that also spans two
            frames (which shortens the clip by one), fully connected layers of 2048.
        width: factor on the channels of every layer, the fully connected ones included.
        hidden: outputs of the fully connected layers, in place of 4096 or 2048 times the width.
        dropout: dropout probability after each of the two.
        checkpointing: in training, keep only the inputs of the five groups, and compute the rest again.

    The first fully connected layer is made for the frames and pixels that the network is built for, as in the
    published code: 16 or 32 frames of 112 x 112. Clips of other extents work too, through an adaptive average pooling
    before that layer; for clips smaller than a pooling window, the window is cut.

    Raises:
        ModaliftError: an unknown variant, or an option outside its range.

    Source: Tran et al., "Learning spatiotemporal features with 3D convolutional networks", ICCV 2015 (reference
    repository: facebookarchive/C3D; the layer names are those of jfzhang95/pytorch-video-recognition). ``gesrec``:
    ahmetgunduz/Real-time-GesRec, the C3D of the MSD paper's tables; with ``hidden=4096`` it is the C3D of
    okankop/Efficient-3DCNNs. ``pool5`` is the map that MTUT aligns ("MaxPool3d 5"). Deviation: He's initialization.

    Example:
        >>> import modalift.networks as networks
        >>> net = networks.build("c3d", classes=25, frames=16, size=112, width=0.125)
        >>> net.stages["pool5"].shape(16, 112, 112)
        (64, 1, 4, 4)
    """
    trunk = C3D(spec.prepared_channels, variant, width)
    trunk.checkpointing = checkpointing
    hidden = hidden or max(1, round((2048 if variant == "gesrec" else 4096) * width))
    shape = trunk.stages["pool5"].shape(spec.frames, spec.size, spec.size)
    return Recognizer(spec, trunk, FullyConnected(shape, spec.classes, hidden, dropout, variant))
