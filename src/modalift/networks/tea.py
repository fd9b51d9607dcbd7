"""``tea``: Res2Net-50 with motion excitation (ME) and multiple temporal aggregation (MTA)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from modalift.errors import ModaliftError, nearest
from modalift.networks.fused_ops import ConvOperator, can_fuse, fast_conv
from modalift.networks.heads import MeanLogits
from modalift.networks.recognizer import Recognizer, scaled_width
from modalift.networks.registry import network
from modalift.networks.resnet import Layout, ResNet
from modalift.networks.shift import Placement
from modalift.networks.skip import skip_convolution
from modalift.networks.spec import NetworkSpec
from modalift.networks.temporal import TemporalConv, frame_difference, pointwise, temporal_conv
from modalift.signatures import Positive, Share

#: Groups of channels in a block.
SCALES = 4

#: ``res2net11`` is for small images (48 to 64 pixels): three stages of one block, a 3x3 stem of stride 2.
LAYOUTS = {
    "res2net50": Layout((3, 4, 6, 3), bottleneck=True),
    "res2net11": Layout((1, 1, 1), bottleneck=True, small_stem=True),
}


class MotionExcitation(nn.Module):
    r"""The gain of each channel, from how the image changes to the next frame (ME).

    .. math:: g = 1 + (\sigma(\mathrm{BN}(W_3\, \mathrm{mean}_{HW}(d))) - \tfrac12), \qquad y = g \odot x

    .. math:: z = \mathrm{BN}(W_1 x), \qquad d_t = (K * z)_{t+1} - z_t, \qquad d_{T-1} = 0

    where :math:`W_1` reduces C channels to C / 16 and :math:`K` is a depthwise 3x3 convolution.

    Args:
        channels: C.

    Shapes: x ``(B*T, C, H, W)`` and T -> g ``(B*T, C, 1, 1)``.

    Source: Li et al., "TEA: Temporal excitation and aggregation for action recognition", CVPR 2020, section 3.1; normalizations
    and the one half as in the public code (Phoenix1327/tea-action-recognition).

    Example:
        >>> MotionExcitation(32).eval()(torch.ones(4, 32, 5, 5), frames=4).shape
        torch.Size([4, 32, 1, 1])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 16)
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        motion = frame_difference(self.bn1(self.conv1(x)), self.conv2, frames)
        return 0.5 + self.bn3(pointwise(self.conv3, motion)).sigmoid()


class Shift(nn.Module):
    """A :class:`~modalift.networks.temporal.TemporalConv` under the name that it has in published weights."""

    def __init__(self, channels: int, shifted: int = 0) -> None:
        super().__init__()
        self.conv = TemporalConv(channels, shifted)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        y: Tensor = self.conv(x, frames)
        return y


def _weight_of(shift: nn.Module) -> Tensor:
    """The weight of a :class:`Shift`, which need not be a parameter (``torch.func``, parametrizations)."""
    assert isinstance(shift, Shift)
    return shift.conv.weight


class _RecomputedConv(torch.autograd.Function):
    """``conv(front(*inputs))`` that keeps the inputs, and computes ``front(*inputs)`` again for its gradient."""

    @staticmethod
    def forward(ctx: Any, front: Callable[..., Tensor], operator: ConvOperator, weight: Tensor, *inputs: Tensor) -> Tensor:
        ctx.front, ctx.operator = front, operator
        ctx.save_for_backward(weight, *inputs)
        return operator.forward(front(*inputs), weight, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        operator, (weight, *kept) = ctx.operator, ctx.saved_tensors
        inputs = [t.detach().requires_grad_(need) for t, need in zip(kept, ctx.needs_input_grad[3:], strict=True)]
        learn = [t for t in inputs if t.requires_grad]
        autocast: AbstractContextManager[Any] = nullcontext()
        if operator.dtype is not None:
            autocast = torch.autocast(operator.device, operator.dtype, cache_enabled=False)
        with torch.enable_grad(), autocast:
            x = ctx.front(*inputs)
        dx, dweight, _ = operator.backward(grad, x.detach(), weight, (bool(learn), ctx.needs_input_grad[2], False))
        found = iter(torch.autograd.grad(x, learn, dx) if learn else ())
        return None, None, dweight, *(next(found) if t.requires_grad else None for t in inputs)


def _recomputed_conv(front: Callable[..., Tensor], conv: nn.Module, *inputs: Tensor) -> Tensor:
    assert isinstance(conv, nn.Conv2d)
    y: Tensor = _RecomputedConv.apply(front, ConvOperator.of(conv), conv.weight, *inputs)
    return y


class TeaBlock(nn.Module):
    r"""A Res2Net bottleneck with motion excitation, and temporal aggregation whose range grows from group to group (MTA).

    .. math:: [x_1; x_2; x_3; x_4] = \mathrm{ME}(\mathrm{ReLU}(\mathrm{BN}(W_1 x))), \qquad
              o_i = \mathrm{ReLU}(\mathrm{BN}(K_i * \mathrm{tc}_i(x_i + o_{i-1}))) \ (i \le 3), \qquad o_4 = \mathrm{tc}_4(x_4)

    where ``tc`` is a depthwise convolution over three frames (the fourth is initialized as a shift of half of the channels
    each way, the others as the identity), :math:`K_i` is 3x3 and :math:`o_0 = 0`. In the first block of a stage no group
    reads the one before, and :math:`o_4` is average-pooled over 3x3 with the block's stride.

    Args:
        channels_in, width: channels of its input; it gives ``4 * width``.
        stride: of the 3x3 convolutions.
        bottleneck, placement, shift_div, causal: as in :class:`~modalift.networks.resnet.Block`; not used.

    Shapes: ``(B*T, C, H, W)`` and T -> ``(B*T, 4 * width, H', W')``.

    Source: Li et al., "TEA", CVPR 2020, section 3.2, and Gao et al., "Res2Net", PAMI 2021; details as in the public
    code (Phoenix1327/tea-action-recognition), which is written for 8 frames. Here any T works.
    """

    def __init__(self, channels_in: int, width: int, stride: int, bottleneck: bool, placement: Placement,
                 shift_div: int, causal: bool) -> None:
        super().__init__()
        out = 4 * width
        group = max(2, width * 26 // 64)
        inner = group * SCALES
        self.me = MotionExcitation(inner)
        self.conv1 = nn.Conv2d(channels_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.convs = nn.ModuleList(nn.Conv2d(group, group, 3, stride, 1, bias=False) for _ in range(SCALES - 1))
        self.bns = nn.ModuleList(nn.BatchNorm2d(group) for _ in range(SCALES - 1))
        self.shifts = nn.ModuleList(Shift(group, shifted) for shifted in (0,) * (SCALES - 1) + (group // 2,))
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        self.pool: nn.AvgPool2d | None = None
        if stride != 1 or channels_in != out:
            self.downsample = nn.Sequential(skip_convolution(channels_in, out, stride), nn.BatchNorm2d(out))
            self.pool = nn.AvgPool2d(3, stride, 1)

    def forward(self, x: Tensor, frames: int, past: Tensor | None = None) -> Tensor:
        # The inputs of the 3x3 convolutions and of the last convolution are cheap to compute from tensors that are kept
        # anyway: in training they are not kept, but computed again.
        fused = self.training and can_fuse(self.conv1, self.conv3, *self.convs)

        def mixed(part: Tensor, gain: Tensor, weight: Tensor, *previous: Tensor) -> Tensor:
            return temporal_conv(_excited(part, gain, *previous), weight, frames)

        def concatenated(part: Tensor, gain: Tensor, weight: Tensor, *made: Tensor) -> Tensor:
            last = mixed(part, gain, weight)
            return torch.cat([*made, last if self.pool is None else self.pool(last)], 1)

        y = self.relu(self.bn1(fast_conv(self.conv1, x) if fused else self.conv1(x)))
        groups = list(zip(y.chunk(SCALES, 1), self.me(y, frames).chunk(SCALES, 1), self.shifts, strict=True))
        made: list[Tensor] = []
        for (part, gain, shift), conv, norm in zip(groups, self.convs, self.bns, strict=False):
            previous = made[-1:] if self.pool is None else []
            if fused:
                y = _recomputed_conv(mixed, conv, part, gain, _weight_of(shift), *previous)
            else:
                y = conv(shift(_excited(part, gain, *previous), frames))
            made.append(self.relu(norm(y)))
        part, gain, shift = groups[-1]
        if fused:
            y = _recomputed_conv(concatenated, self.conv3, part, gain, _weight_of(shift), *made)
        else:
            last = shift(_excited(part, gain), frames)
            y = self.conv3(torch.cat([*made, last if self.pool is None else self.pool(last)], 1))
        y = self.bn3(y)
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


def _excited(part: Tensor, gain: Tensor, previous: Tensor | None = None) -> Tensor:
    """A group of channels times its gains, plus the output of the group before."""
    return part * gain if previous is None else torch.addcmul(previous, part, gain)


class TeaResNet(ResNet):
    """A ResNet of :class:`TeaBlock`: Res2Net-50 with 4 groups of 26 channels at ``width=64``.

    Raises:
        ModaliftError: a layout that is not in :data:`LAYOUTS`.
    """

    def __init__(self, channels: int, layout: str = "res2net50", width: int = 64) -> None:
        if layout not in LAYOUTS:
            raise ModaliftError(f"unknown backbone '{layout}' of network 'tea' - {nearest(layout, LAYOUTS)}")
        super().__init__(channels, LAYOUTS[layout], width, block=TeaBlock)

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        if not torch.compiler.is_compiling() and x.device.type in ("cpu", "meta"):
            # Channels last: convolutions over time then need no copies.
            x = x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
        return super().features(x, keep)


@network("tea", papers="MSD")
def tea(spec: NetworkSpec, *, backbone: str = "res2net50", width: Positive = 1.0, dropout: Share = 0.5) -> Recognizer:
    """TEA: a Res2Net-50 (4 groups of 26 channels) with motion excitation and multiple temporal aggregation.

    Args:
        backbone: ``res2net50``, or ``res2net11`` for images of 48 to 64 pixels, which is not published.
        width: factor on the channels of every layer (1: 64 channels in the stem; groups of 26/64 of a layer's, rounded down,
            of 2 at least).
        dropout: dropout probability before the classifier.

    Any number of frames works; the public code is written for 8 (and, in another file, 16).

    Raises:
        ModaliftError: an unknown backbone, or an option outside its range.

    Source: Li et al., "TEA: Temporal excitation and aggregation for action recognition", CVPR 2020; public code
    Phoenix1327/tea-action-recognition. Parameters, multiply-accumulates and layer names are exactly that code's.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("tea", width=0.25, classes=25, channels=1).stages["layer4"].channels
        512
    """
    trunk = TeaResNet(spec.prepared_channels, backbone, scaled_width(64, width))
    return Recognizer(spec, trunk, MeanLogits(trunk.channels, spec.classes, dropout))
