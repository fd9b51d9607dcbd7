"""Temporal shift: channels exchanged between neighboring frames, and its fused training step."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from modalift.networks.fused_ops import ConvOperator

#: Where frames are mixed: nowhere (TSN); in front of each block's first convolution, the skip path left alone; or in front
#: of the whole block, skip path included (the paper's "in-place" shift, which loses spatial detail).
Placement = Literal["none", "residual", "block"]
#: The inverse of the share of channels that moves each way.
ShiftDiv = Annotated[int, Ge(2)]


def shift(x: Tensor, frames: int, shift_div: int = 8, causal: bool = False, past: Tensor | None = None) -> Tensor:
    r"""Temporal shift: some channels of each frame are taken from its neighbors; costs no multiplication.

    .. math:: y_{t,c} = x_{t+1,c}\ (c < f), \qquad y_{t,c} = x_{t-1,c}\ (f \le c < 2f), \qquad y_{t,c} = x_{t,c}

    where ``f = C // shift_div`` and frames outside the clip are zero. A causal shift uses the past only:
    ``y[t, :f] = x[t-1, :f]``.

    Args:
        x: frames folded into the batch, ``(B*T, C, H, W)``.
        frames: T.
        shift_div: the inverse of the share of channels that moves each way.
        causal: one way, from the past.
        past: the ``f`` channels of the frame before the first, ``(B, 1, f, H, W)``; zero if None. Causal only.

    Source: Lin, Gan, Han, "TSM", ICCV 2019, section 3; causal: section 3.3.
    """
    f = x.shape[1] // shift_div
    if f == 0:
        return x
    if past is None and x.requires_grad and not torch.compiler.is_compiling():
        y: Tensor = _Shift.apply(x, frames, f, steps(causal))
        return y
    return _shifted(x, frames, f, steps(causal), past)


def steps(causal: bool) -> tuple[int, ...]:
    """For each group of ``f`` channels, from how many frames ahead it is taken."""
    return (-1,) if causal else (1, -1)


def _by_clip(x: Tensor, frames: int) -> tuple[Tensor, int]:
    """Frames by clip, and the axis of the channels: the last axis for channels-last frames, which keeps memory order."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return (x.permute(0, 2, 3, 1) if last else x).unflatten(0, (-1, frames)), 4 if last else 2


def _shifted(x: Tensor, frames: int, f: int, ahead: tuple[int, ...], past: Tensor | None = None) -> Tensor:
    """The first ``f`` channels come from ``ahead[0]`` frames ahead, the next ``f`` from ``ahead[1]``, and so on."""
    clip, axis = _by_clip(x, frames)  # (B, T, H, W, C) or (B, T, C, H, W)
    *moving, rest = clip.split([f] * len(ahead) + [x.shape[1] - f * len(ahead)], axis)
    groups = []
    for group, step in zip(moving, ahead, strict=True):
        edge = torch.zeros_like(group[:, :1])
        if past is not None:
            edge = past.permute(0, 1, 3, 4, 2) if axis == 4 else past
        groups.append(torch.cat([group[:, 1:], edge] if step > 0 else [edge, group[:, :-1]], 1))
    y = torch.cat([*groups, rest], axis).flatten(0, 1)
    return y.permute(0, 3, 1, 2) if axis == 4 else y


#: Step -> the frames that have a neighbor there, these neighbors, and the frames that have none.
_FRAMES: dict[int, tuple[slice, slice, slice]] = {
    1: (slice(None, -1), slice(1, None), slice(-1, None)),
    -1: (slice(1, None), slice(None, -1), slice(0, 1)),
    0: (slice(None), slice(None), slice(0)),
}


def _shift_copy(x: Tensor, added_to: Tensor | None, frames: int, f: int, ahead: tuple[int, ...]) -> Tensor:
    """``_shifted(x, ...)``, or ``added_to + _shifted(x, ...)``, in one pass and without gradients."""
    order = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    x = x.contiguous(memory_format=order)
    out = torch.empty_like(x)
    (clip, axis), (y, _) = _by_clip(x, frames), _by_clip(out, frames)
    base = None if added_to is None else _by_clip(added_to.contiguous(memory_format=order), frames)[0]
    for i, step in enumerate((*ahead, 0)):
        part = (slice(None),) * axis + (slice(i * f, (i + 1) * f if step else None),)
        inside, neighbor, edge = _FRAMES[step]
        if base is None:
            y[part][:, edge] = 0
            y[part][:, inside] = clip[part][:, neighbor]
        else:
            y[part][:, edge] = base[part][:, edge]
            torch.add(base[part][:, inside], clip[part][:, neighbor], out=y[part][:, inside])
    return out


class _Shift(Function):
    """The gradient of a shift is the opposite shift of the gradient: one copy, where slices would make many."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frames: int, f: int, ahead: tuple[int, ...]) -> Tensor:
        ctx.opposite = frames, f, tuple(-step for step in ahead)
        return _shift_copy(x, None, frames, f, ahead)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Shift.apply(grad, *ctx.opposite), None, None, None


class _ShiftedConv(Function):
    """See :func:`shifted_conv`."""

    @staticmethod
    def forward(ctx: Any, operator: ConvOperator, shifting: tuple[Any, ...], x: Tensor, weight: Tensor,
                bias: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.operator, ctx.shifting = operator, shifting
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        return operator.forward(_shift_copy(x, None, *shifting), weight, bias), x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, skip: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, skip, None, None
        x, weight = ctx.saved_tensors
        frames, f, ahead = ctx.shifting
        gx, gw, gb = ctx.operator.backward(grad, _shift_copy(x, None, frames, f, ahead), weight, ctx.needs_input_grad[2:])
        if gx is not None:
            gx = _shift_copy(gx, skip, frames, f, tuple(-step for step in ahead))
        return None, None, gx, gw, gb


def shifted_conv(conv: nn.Conv2d, x: Tensor, frames: int, f: int, causal: bool) -> tuple[Tensor, Tensor]:
    """``conv(shift(x))``, and ``x`` for the skip path.

    Keeps ``x`` for the backward pass, which the block before keeps anyway, and shifts it again for the gradient of the
    weight. The gradients of convolution and skip path are added while one of them is shifted.

    Args:
        conv: a convolution that :func:`~modalift.networks.fused_ops.can_fuse` accepts.
        x: frames ``(B*T, C, H, W)``.
        frames: T.
        f: channels that move each way.
        causal: one way, from the past.
    """
    y, x = _ShiftedConv.apply(ConvOperator.of(conv), (frames, f, steps(causal)), x, conv.weight, conv.bias)
    return y, x
