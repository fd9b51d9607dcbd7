"""2D residual networks over the frames of a clip, with temporal shift: the trunk of ``tsm``, ``tsn`` and ``small``.

Layers are named as in the usual ImageNet files (``conv1``, ``bn1``, ``layer1.0.conv1``, ...), so that weights load by
name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError, nearest
from modalift.networks.frames import fold_frames, unfold_frames
from modalift.networks.fused_ops import can_fuse, fast_conv, norm_relu_conv, norm_relu_pool
from modalift.networks.recognizer import Backbone, Stage
from modalift.networks.shift import Placement, shift, shifted_conv
from modalift.networks.skip import skip_convolution


class Block(nn.Module):
    """A residual block, basic or bottleneck, whose input may be shifted in time.

    Args:
        channels_in, width: channels of its input, and of its convolutions.
        stride: spatial stride.
        bottleneck: 1x1, 3x3, 1x1 to ``4 * width`` channels, in place of two 3x3.
        placement, shift_div, causal: see :func:`~modalift.networks.shift.shift` and
            :data:`~modalift.networks.shift.Placement`.
    """

    def __init__(self, channels_in: int, width: int, stride: int, bottleneck: bool, placement: Placement,
                 shift_div: int, causal: bool) -> None:
        super().__init__()
        self.placement, self.shift_div, self.causal, self.bottleneck = placement, shift_div, causal, bottleneck
        out = width * 4 if bottleneck else width
        if bottleneck:
            self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = nn.Conv2d(width, out, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(out)
        else:
            self.conv1 = nn.Conv2d(channels_in, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != out:
            self.downsample = nn.Sequential(skip_convolution(channels_in, out, stride), nn.BatchNorm2d(out))

    def forward(self, x: Tensor, frames: int, past: Tensor | None = None) -> Tensor:
        """Frames ``(B*T, C, H, W)`` to frames; ``past`` as in :func:`~modalift.networks.shift.shift`."""
        if self.placement == "block":
            x = shift(x, frames, self.shift_div, self.causal, past)
        y, x = self.first_conv(x, frames, past)
        y = self.relu_conv(self.bn1, self.conv2, y)
        y = self.bn3(self.relu_conv(self.bn2, self.conv3, y)) if self.bottleneck else self.bn2(y)
        y += x if self.downsample is None else self.project(self.downsample, x)  # no gradient needs the norm's output
        return self.relu(y)

    def first_conv(self, x: Tensor, frames: int, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The first convolution's output, of shifted frames with ``placement="residual"``; and the skip path's input."""
        f = x.shape[1] // self.shift_div if self.placement == "residual" else 0
        if not (self.training and can_fuse(self.conv1)):
            return self.conv1(shift(x, frames, self.shift_div, self.causal, past) if f else x), x
        if not (f and self.bottleneck and past is None):
            return fast_conv(self.conv1, shift(x, frames, self.shift_div, self.causal, past) if f else x), x
        return shifted_conv(self.conv1, x, frames, f, self.causal)

    def relu_conv(self, norm: nn.BatchNorm2d, conv: nn.Conv2d, y: Tensor) -> Tensor:
        """``conv(relu(norm(y)))``.

        In training a bottleneck keeps ``y`` only, and computes ``relu(norm(y))`` again for the backward pass: it is small
        beside the block's input and output. In a basic block it is as large as they are, and computing it again would
        take a twentieth of the step's time.
        """
        if not (self.training and can_fuse(norm, self.relu, conv)):
            y = conv(self.relu(norm(y)))
            return y
        return norm_relu_conv(norm, conv, y) if self.bottleneck else fast_conv(conv, self.relu(norm(y)))

    def project(self, downsample: nn.Sequential, x: Tensor) -> Tensor:
        """``downsample(x)``: the skip path where it is not the identity."""
        conv, norm = downsample
        if self.training and isinstance(conv, nn.Conv2d) and can_fuse(downsample, conv):
            x = norm(fast_conv(conv, x))
            return x
        x = downsample(x)
        return x

    def stream_state(self, x: Tensor, frames: int) -> Tensor:
        """What the next frame's causal shift needs of the last of these: ``(B, 1, f, H, W)``."""
        return x.unflatten(0, (-1, frames))[:, -1:, : x.shape[1] // self.shift_div]


@dataclass(frozen=True)
class Layout:
    """The blocks of a ResNet.

    Attributes:
        blocks: number of blocks per stage.
        bottleneck: bottleneck blocks, not basic ones.
        small_stem: a 3x3 stem without max-pooling, not 7x7 with it.
        shift_every: with ``placement="residual"``, every how many blocks one is shifted.
    """

    blocks: tuple[int, ...]
    bottleneck: bool = False
    small_stem: bool = False
    shift_every: int = 1


#: ``resnet8`` is for small images (48 to 64 pixels): three stages of one basic block, a 3x3 stem of stride 2. In
#: ``resnet101`` every other block is shifted, as in the public code of TSM.
LAYOUTS = {
    "resnet8": Layout((1, 1, 1), small_stem=True),
    "resnet18": Layout((2, 2, 2, 2)),
    "resnet34": Layout((3, 4, 6, 3)),
    "resnet50": Layout((3, 4, 6, 3), bottleneck=True),
    "resnet101": Layout((3, 4, 23, 3), bottleneck=True, shift_every=2),
}


class ResNet(Backbone):
    """A ResNet over every frame of a clip, with temporal shift in its blocks.

    Stages are ``stem`` (after the max-pooling, where there is one) and ``layer1``, ``layer2``, ...; time keeps its
    length.

    Args:
        channels: channels of the prepared clip.
        layout: a name of :data:`LAYOUTS`, or a Layout.
        width: channels of the stem; stage ``i`` has ``width * 2**i`` (four times that with bottlenecks).
        placement: where frames are mixed.
        shift_div: the inverse of the share of channels that moves each way.
        causal: frames are mixed with past ones only.
        block: the class of the blocks: :class:`Block`, or a module that is constructed and called in the same way.

    Raises:
        ModaliftError: an unknown layout or placement.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C', T, H', W')``, for any T, H and W of at least 1.

    Source: He et al., "Deep residual learning", CVPR 2016, with the stride on the 3x3 convolution of a bottleneck as in
    public weights; Lin et al., "TSM", ICCV 2019.
    """

    def __init__(self, channels: int, layout: str | Layout = "resnet18", width: int = 64,
                 placement: Placement = "residual", shift_div: int = 8, causal: bool = False,
                 block: Callable[..., nn.Module] = Block) -> None:
        super().__init__()
        if isinstance(layout, str):
            if layout not in LAYOUTS:
                raise ModaliftError(f"unknown backbone '{layout}' - {nearest(layout, LAYOUTS)}")
            layout = LAYOUTS[layout]
        if placement not in (known := ("none", "residual", "block")):
            raise ModaliftError(f"unknown placement '{placement}' of the shift - {nearest(placement, known)}")
        self.placement, self.causal = placement, causal
        kernel = 3 if layout.small_stem else 7
        self.conv1 = nn.Conv2d(channels, width, kernel, 2, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = None if layout.small_stem else nn.MaxPool2d(3, 2, 1)
        stride = 2 if layout.small_stem else 4
        self.stages = {"stem": Stage(width, stride)}
        channels_in = width
        for i, count in enumerate(layout.blocks):
            stage_width = width * 2**i
            blocks = []
            for j in range(count):
                block_stride = 2 if i > 0 and j == 0 else 1
                where = placement if placement == "block" or j % layout.shift_every == 0 else "none"
                blocks.append(block(channels_in, stage_width, block_stride, layout.bottleneck, where, shift_div, causal))
                channels_in = stage_width * (4 if layout.bottleneck else 1)
                stride *= block_stride
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.stages[f"layer{i + 1}"] = Stage(channels_in, stride)
        self.channels = channels_in
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        x, maps, _ = self.stream(x, keep)
        return x, maps

    def stream(self, x: Tensor, keep: Collection[str] = (), state: Sequence[Tensor] | None = None,
               return_state: bool = False) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        """As :meth:`features`, for frames that follow earlier ones; also the state for the frames to come.

        Args:
            x, keep: as in :meth:`features`.
            state: one tensor per block, as the last call returned; None at the start of a clip.
            return_state: whether to return the state; otherwise it is empty. For causal trunks only, as ``state`` is.
        """
        frames, pasts = x.shape[2], iter(state or ())
        maps: dict[str, Tensor] = {}
        new_state: list[Tensor] = []
        if self.training and x.device.type in ("cpu", "meta") and not torch.compiler.is_compiling():
            # Channels last, whatever the memory format of the weights: steps take a tenth to a fifth less time.
            x = x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
        y = self.conv1(fold_frames(x))
        if self.maxpool is not None and self.training and can_fuse(self.bn1, self.relu, self.maxpool):
            y = norm_relu_pool(self.bn1, self.maxpool, y)
        else:
            y = self.relu(self.bn1(y))
            y = y if self.maxpool is None else self.maxpool(y)
        if "stem" in keep:
            maps["stem"] = unfold_frames(y, frames)
        for name in list(self.stages)[1:]:
            for block in getattr(self, name):
                if return_state:
                    new_state.append(block.stream_state(y, frames))
                y = block(y, frames, next(pasts, None))
            if name in keep:
                maps[name] = unfold_frames(y, frames)
        return unfold_frames(y, frames), maps, new_state
