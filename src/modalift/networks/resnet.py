"""2D residual networks over the frames of a clip, with temporal shift: the trunk of ``tsm`` and ``small``.

Names of layers are those of the usual ImageNet files (``conv1``, ``bn1``, ``layer1.0.conv1``, ...), so that weights
load by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from modalift.errors import ModaliftError, nearest
from modalift.networks.fused import Operator, convolved, norm_relu_conv, norm_relu_pool, saves
from modalift.networks.recognizer import Backbone, Stage
from modalift.networks.skip import skip_convolution

#: Where frames are mixed: nowhere (TSN), in front of each block's first convolution with the skip path left alone, or
#: in front of the whole block, skip path included (the "in-place" shift of the paper, which loses spatial detail).
Placement = Literal["none", "residual", "block"]
#: One part-th of the channels moves each way.
Part = Annotated[int, Ge(2)]


def shift(x: Tensor, frames: int, part: int = 8, causal: bool = False, before: Tensor | None = None) -> Tensor:
    r"""Temporal shift: some channels of each frame are those of its neighbors, at no multiplication.

    .. math:: y_{t,c} = x_{t+1,c}\ (c < f), \qquad y_{t,c} = x_{t-1,c}\ (f \le c < 2f), \qquad y_{t,c} = x_{t,c}

    where ``f = C // part`` and frames outside the clip are zero. A causal shift looks at the past only:
    ``y[t, :f] = x[t-1, :f]``.

    Args:
        x: frames folded into the batch, ``(B*T, C, H, W)``.
        frames: T.
        part: the inverse of the share of channels that is moved each way.
        causal: one way, from the past.
        before: the ``f`` channels of the frame before the first, ``(B, 1, f, H, W)``; zero if None. Causal only.

    Source: Lin, Gan, Han, "TSM", ICCV 2019, section 3; causal: section 3.3.
    """
    f = x.shape[1] // part
    if f == 0:
        return x
    ways = (-1,) if causal else (1, -1)
    if before is None and x.requires_grad and not torch.compiler.is_compiling():
        y: Tensor = _Shift.apply(x, frames, f, ways)
        return y
    return _moved(x, frames, f, ways, before)


def _cut(x: Tensor, frames: int) -> tuple[Tensor, int]:
    """Frames by clip, and the axis of the channels: last in channels-last frames, to be cut in their own memory order."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return (x.permute(0, 2, 3, 1) if last else x).unflatten(0, (-1, frames)), 4 if last else 2


def _moved(x: Tensor, frames: int, f: int, ways: tuple[int, ...], before: Tensor | None = None) -> Tensor:
    """The first ``f`` channels are those ``ways[0]`` frames ahead, the next ``f`` those ``ways[1]`` ahead, and so on."""
    clip, axis = _cut(x, frames)  # (B, T, H, W, C) or (B, T, C, H, W)
    *moving, rest = clip.split([f] * len(ways) + [x.shape[1] - f * len(ways)], axis)
    pieces = []
    for piece, way in zip(moving, ways, strict=True):
        edge = torch.zeros_like(piece[:, :1])
        if before is not None:
            edge = before.permute(0, 1, 3, 4, 2) if axis == 4 else before
        pieces.append(torch.cat([piece[:, 1:], edge] if way > 0 else [edge, piece[:, :-1]], 1))
    y = torch.cat([*pieces, rest], axis).flatten(0, 1)
    return y.permute(0, 3, 1, 2) if axis == 4 else y


#: Way -> the frames that have a neighbor there, these neighbors, and the frames that have none.
_FRAMES: dict[int, tuple[slice, slice, slice]] = {
    1: (slice(None, -1), slice(1, None), slice(-1, None)),
    -1: (slice(1, None), slice(None, -1), slice(0, 1)),
    0: (slice(None), slice(None), slice(0)),
}


def _written(x: Tensor, to: Tensor | None, frames: int, f: int, ways: tuple[int, ...]) -> Tensor:
    """``_moved(x, ...)``, or ``to + _moved(x, ...)``, in one pass and without gradients."""
    order = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    x = x.contiguous(memory_format=order)
    out = torch.empty_like(x)
    (clip, axis), (y, _) = _cut(x, frames), _cut(out, frames)
    base = None if to is None else _cut(to.contiguous(memory_format=order), frames)[0]
    for i, way in enumerate((*ways, 0)):
        part = (slice(None),) * axis + (slice(i * f, (i + 1) * f if way else None),)
        inside, beside, edge = _FRAMES[way]
        if base is None:
            y[part][:, edge] = 0
            y[part][:, inside] = clip[part][:, beside]
        else:
            y[part][:, edge] = base[part][:, edge]
            torch.add(base[part][:, inside], clip[part][:, beside], out=y[part][:, inside])
    return out


class _Shift(Function):
    """The gradient of a shift is the opposite shift of the gradient: one copy, where that of slices makes many."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frames: int, f: int, ways: tuple[int, ...]) -> Tensor:
        ctx.back = frames, f, tuple(-way for way in ways)
        return _written(x, None, frames, f, ways)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Shift.apply(grad, *ctx.back), None, None, None


class _ShiftedConv(Function):
    """``conv(shift(x))``, and ``x`` for the skip path, so that the two gradients are added while one of them is moved.

    Keeps ``x``, which the block before keeps anyway, and shifts it again for the gradient of the weight.
    """

    @staticmethod
    def forward(ctx: Any, operator: Operator, how: tuple[Any, ...], x: Tensor, weight: Tensor,
                bias: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.operator, ctx.how = operator, how
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        return operator.forward(_written(x, None, *how), weight, bias), x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, skip: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, skip, None, None
        x, weight = ctx.saved_tensors
        frames, f, ways = ctx.how
        gx, gw, gb = ctx.operator.backward(grad, _written(x, None, frames, f, ways), weight, ctx.needs_input_grad[2:])
        if gx is not None:
            gx = _written(gx, skip, frames, f, tuple(-way for way in ways))
        return None, None, gx, gw, gb


class Block(nn.Module):
    """A residual block, basic or bottleneck, whose input may be shifted in time.

    Args:
        channels_in, width: channels of its input, and of its convolutions.
        stride: spatial stride.
        bottleneck: 1x1, 3x3, 1x1 to ``4 * width`` channels, in place of two 3x3.
        placement, part, causal: see :func:`shift` and :data:`Placement`.
    """

    def __init__(self, channels_in: int, width: int, stride: int, bottleneck: bool, placement: Placement,
                 part: int, causal: bool) -> None:
        super().__init__()
        self.placement, self.part, self.causal, self.bottleneck = placement, part, causal, bottleneck
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

    def forward(self, x: Tensor, frames: int, before: Tensor | None = None) -> Tensor:
        """Frames ``(B*T, C, H, W)`` to frames; ``before`` as in :func:`shift`."""
        if self.placement == "block":
            x = shift(x, frames, self.part, self.causal, before)
        y, x = self.first(x, frames, before)
        y = self.joined(self.bn1, self.conv2, y)
        y = self.bn3(self.joined(self.bn2, self.conv3, y)) if self.bottleneck else self.bn2(y)
        y += x if self.downsample is None else self.projected(self.downsample, x)  # no gradient needs the norm's output
        return self.relu(y)

    def first(self, x: Tensor, frames: int, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The first convolution, of frames that are mixed where the skip path is not; and the skip path's frames."""
        f = x.shape[1] // self.part if self.placement == "residual" else 0
        if not (self.training and saves(self.conv1)):
            return self.conv1(shift(x, frames, self.part, self.causal, before) if f else x), x
        if not (f and self.bottleneck and before is None):
            return convolved(self.conv1, shift(x, frames, self.part, self.causal, before) if f else x), x
        how = frames, f, (-1,) if self.causal else (1, -1)
        y, x = _ShiftedConv.apply(Operator.of(self.conv1), how, x, self.conv1.weight, self.conv1.bias)
        return y, x

    def joined(self, norm: nn.BatchNorm2d, conv: nn.Conv2d, y: Tensor) -> Tensor:
        """``conv(relu(norm(y)))``.

        In training a bottleneck does not keep what it makes of ``y``, which is little beside its input and output. In a
        basic block it is as large as they are, and making it again would take a twentieth of the step's time.
        """
        if not (self.training and saves(norm, self.relu, conv)):
            y = conv(self.relu(norm(y)))
            return y
        return norm_relu_conv(norm, conv, y) if self.bottleneck else convolved(conv, self.relu(norm(y)))

    def projected(self, downsample: nn.Sequential, x: Tensor) -> Tensor:
        """``downsample(x)``."""
        conv, norm = downsample
        if self.training and isinstance(conv, nn.Conv2d) and saves(downsample, conv):
            x = norm(convolved(conv, x))
            return x
        x = downsample(x)
        return x

    def remembers(self, x: Tensor, frames: int) -> Tensor:
        """What the next frame's causal shift needs of the last of these: ``(B, 1, f, H, W)``."""
        return x.unflatten(0, (-1, frames))[:, -1:, : x.shape[1] // self.part]


@dataclass(frozen=True)
class Layout:
    """The blocks of a ResNet: how many in each stage, of which kind, which stem, and how many to a residual shift."""

    blocks: tuple[int, ...]
    bottleneck: bool = False
    small_stem: bool = False
    shift_every: int = 1


#: ``resnet8`` is for small pictures (48 to 64 pixels): three stages of one basic block, a 3x3 stem of stride 2. In
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
        part: one ``part``-th of the channels moves each way.
        causal: frames look at the past only.
        block: what the stages are made of: a Block, or a module that is built and called as one.

    Raises:
        ModaliftError: an unknown layout or placement.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C', T, H', W')``, for any T, H and W of at least 1.

    Source: He et al., "Deep residual learning", CVPR 2016, with the stride on the 3x3 convolution of a bottleneck as
    in the files that people have; Lin et al., "TSM", ICCV 2019.
    """

    def __init__(self, channels: int, layout: str | Layout = "resnet18", width: int = 64,
                 placement: Placement = "residual", part: int = 8, causal: bool = False,
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
        inside = width
        for i, count in enumerate(layout.blocks):
            wide = width * 2**i
            blocks = []
            for j in range(count):
                step = 2 if i > 0 and j == 0 else 1
                mixed = placement if placement == "block" or j % layout.shift_every == 0 else "none"
                blocks.append(block(inside, wide, step, layout.bottleneck, mixed, part, causal))
                inside = wide * (4 if layout.bottleneck else 1)
                stride *= step
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.stages[f"layer{i + 1}"] = Stage(inside, stride)
        self.channels = inside
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        x, maps, _ = self.run(x, keep)
        return x, maps

    def run(self, x: Tensor, keep: Collection[str] = (), before: Sequence[Tensor] | None = None,
            remember: bool = False) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        """As :meth:`features`, for a piece of a longer clip: takes and gives what the blocks remember of the past.

        Args:
            before: one tensor a block, as the last call gave; None at the start of a clip.
            remember: whether to give them. Both are for causal trunks only.
        """
        frames = x.shape[2]
        maps: dict[str, Tensor] = {}
        memory: list[Tensor] = []

        def unfolded(y: Tensor) -> Tensor:
            return y.unflatten(0, (-1, frames)).transpose(1, 2)  # (B*T, C, H, W) -> (B, C, T, H, W), no copy

        if self.training and x.device.type in ("cpu", "meta") and not torch.compiler.is_compiling():
            # Channels last, whatever the order of the weights: steps take a tenth to a fifth less time.
            x = x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
        y = self.conv1(x.transpose(1, 2).flatten(0, 1))
        if self.maxpool is not None and self.training and saves(self.bn1, self.relu, self.maxpool):
            y = norm_relu_pool(self.bn1, self.maxpool, y)
        else:
            y = self.relu(self.bn1(y))
            y = y if self.maxpool is None else self.maxpool(y)
        if "stem" in keep:
            maps["stem"] = unfolded(y)
        for name in list(self.stages)[1:]:
            for block in getattr(self, name):
                past = None if before is None else before[len(memory)]
                if remember:
                    memory.append(block.remembers(y, frames))
                y = block(y, frames, past)
            if name in keep:
                maps[name] = unfolded(y)
        return unfolded(y), maps, memory
