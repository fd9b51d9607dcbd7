r"""Training steps that keep less: what is cheap to make is made again for the backward pass, convolutions are not.

A convolution keeps its input for the gradient of its weight. Where that input is made of something that is kept
anyway, by scaling, clamping or moving numbers, keeping both is a waste: the functions here keep the latter only, and
make the convolution's input again when its gradient is asked for. Unlike activation checkpointing no convolution is
computed twice, so that a step takes no longer. Results and gradients are those of the modules, to rounding; gradients
of gradients are refused.

The modules stay ``nn.Conv2d``, ``nn.BatchNorm2d``, ... and hold the weights, but they are not called: ask
:func:`saves` first, and call them where it says no.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.modules import module as torch_module

Convolution = nn.Conv2d | nn.Conv3d
Norm = nn.BatchNorm2d | nn.BatchNorm3d
_aten: Any = torch.ops.aten


def saves(*modules: nn.Module) -> bool:
    """Whether the functions here may stand for these convolutions, norms, activations and poolings in a training step.

    Not without gradients, where nothing is kept; not while a graph is traced, because a compiler decides itself what to
    make again; and not where calling a module does more than its type says: hooks, subclasses (synchronized or
    quantized norms, parametrized weights), norms without weights or running statistics.

    Example:
        >>> saves(nn.BatchNorm2d(4), nn.Conv2d(4, 8, 1)), saves(nn.SyncBatchNorm(4))
        (True, False)
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return not torch_module._has_any_global_hook() and all(_plain(m) for m in modules)


def _plain(m: nn.Module) -> bool:
    if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks:
        return False
    if isinstance(m, Convolution):
        return type(m) in (nn.Conv2d, nn.Conv3d) and m.padding_mode == "zeros" and not isinstance(m.padding, str)
    if isinstance(m, Norm):
        return type(m) in (nn.BatchNorm2d, nn.BatchNorm3d) and m.affine and m.track_running_stats
    return type(m) in (nn.ReLU, nn.MaxPool2d, nn.Sequential)


@cache
def _has_product() -> bool:
    found = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # not there without oneDNN, and not public
    return found is not None and len(found.default._schema.arguments) == 6


def _product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` by the library that convolves, of matrices in either order; up to twice as fast as BLAS is."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))


class Operator(NamedTuple):
    """A convolution without its weights, in the precision that autocast asks for at the time.

    On CPUs a convolution goes through all its weights once for every frame. Where frames are of few pixels and weights
    outgrow the nearest cache, that is most of what it does; there it is made one matrix product over the pixels of all
    frames. (Frames of 112 pixels come to 7 x 7 and 4 x 4 in the last two stages of a ResNet, where most of its weights are.)

    Attributes:
        device: kind of device.
        dtype: what inputs and weights are cast to; None outside autocast.
        how: stride, padding, dilation, transposed, output padding and groups, as PyTorch's operators take them.
        kernel: height and width, where it may be made a product; else empty.
    """

    device: str
    dtype: torch.dtype | None
    how: tuple[Any, ...]
    kernel: tuple[int, ...]

    @classmethod
    def of(cls, conv: Convolution) -> Operator:
        device, size = conv.weight.device.type, conv.weight.dim() - 2
        half = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        how = conv.stride, conv.padding, conv.dilation, False, (0,) * size, conv.groups
        simple = device == "cpu" and not half and conv.dilation == (1, 1) and conv.groups == 1 and conv.bias is None
        return cls(device, torch.get_autocast_dtype(device) if half else None, how, conv.kernel_size if simple else ())

    def cast(self, x: Tensor) -> Tensor:
        return x if self.dtype is None else x.to(self.dtype)

    def multiplies(self, x: Tensor, weight: Tensor) -> bool:
        """Whether this is faster as a product of :meth:`patches`: for float32 weights of half a megabyte and more, and up to
        64 pixels with 1x1 kernels, whose patches are no copy, or 16 with others."""
        if not self.kernel or weight.numel() < 2**17 or x.dtype != torch.float32 or weight.dtype != torch.float32:
            return False
        pixels = 1
        for size, kernel, stride, padding in zip(x.shape[2:], self.kernel, *self.how[:2], strict=True):
            pixels *= (size + 2 * padding - kernel) // stride + 1
        return bool(pixels <= (64 if self.kernel == (1, 1) else 16) and x.is_contiguous(memory_format=torch.channels_last)
                and torch.backends.mkldnn.enabled and _has_product())

    def patches(self, x: Tensor) -> Tensor:
        """What every pixel of the output is made of, ``(N, h, w, kernel * C)``."""
        (down, right), (top, left) = self.how[:2]
        y = x.permute(0, 2, 3, 1)
        if top or left:
            y = nn.functional.pad(y, (0, 0, left, left, top, top))
        return y.unfold(1, self.kernel[0], down).unfold(2, self.kernel[1], right).permute(0, 1, 2, 4, 5, 3).flatten(3)

    def joined(self, patches: Tensor, x: Tensor) -> Tensor:
        """The sum of patches ``(N, h, w, kernel, C)`` where they overlap in ``x``: the transpose of :meth:`patches`."""
        (down, right), (top, left) = self.how[:2]
        if self.kernel == self.how[0] == (1, 1) and self.how[1] == (0, 0):
            return patches.flatten(3)
        n, h, w, tall, wide, channels = patches.shape
        y = x.new_zeros(n, x.shape[2] + 2 * top, x.shape[3] + 2 * left, channels)
        for i in range(tall):
            for j in range(wide):
                y[:, i : i + down * h : down, j : j + right * w : right] += patches[:, :, :, i, j]
        return y[:, top : top + x.shape[2], left : left + x.shape[3]].contiguous()

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.multiplies(x, weight):
            patches = self.patches(x)
            y = _product(patches.flatten(0, 2), weight.permute(0, 2, 3, 1).flatten(1))
            return y.view(*patches.shape[:3], -1).permute(0, 3, 1, 2)
        # Autocast would keep its copy of the weight, made here without a graph, for those who call the module later.
        with nullcontext() if self.dtype is None else torch.autocast(self.device, enabled=False):
            return torch.convolution(self.cast(x), self.cast(weight), None if bias is None else self.cast(bias), *self.how)

    def backward(self, grad: Tensor, x: Tensor, weight: Tensor,
                 wanted: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
        """Gradients by input, weight and bias, where wanted, in the types of input and weight."""
        if self.multiplies(x, weight) and grad.is_contiguous(memory_format=torch.channels_last):
            g, gx, gw = grad.permute(0, 2, 3, 1).flatten(0, 2), None, None
            if wanted[1]:
                gw = _product(g.t(), self.patches(x).flatten(0, 2).t())
                gw = gw.view(len(weight), *self.kernel, -1).permute(0, 3, 1, 2)
                gw = gw.as_strided(gw.shape, weight.stride()) if self.kernel == (1, 1) else gw
            if wanted[0]:
                patches = _product(g, weight.permute(0, 2, 3, 1).flatten(1).t())
                gx = self.joined(patches.view(len(x), *grad.shape[2:], *self.kernel, -1), x).permute(0, 3, 1, 2)
            return gx, gw, None
        if not any(wanted):
            return None, None, None
        found = _aten.convolution_backward(grad, self.cast(x), self.cast(weight), [weight.shape[0]], *self.how, wanted)
        types = x.dtype, weight.dtype, weight.dtype
        return tuple(None if g is None else g.to(t) for g, t in zip(found, types, strict=True))


class _Conv(Function):
    """See :func:`convolved`."""

    @staticmethod
    def forward(ctx: Any, operator: Operator, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.operator = operator
        ctx.save_for_backward(x, weight)
        return operator.forward(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.operator.backward(grad, *ctx.saved_tensors, ctx.needs_input_grad[1:])


def convolved(conv: Convolution, x: Tensor) -> Tensor:
    """``conv(x)``, by :class:`Operator` where that is faster.

    Args:
        conv: a convolution that :func:`saves` says yes to.
        x: its input.

    Example:
        >>> conv, x = nn.Conv2d(4, 2, 1, bias=False), torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last)
        >>> torch.allclose(convolved(conv, x), conv(x), atol=1e-6)
        True
    """
    operator = Operator.of(conv)
    out: Tensor = _Conv.apply(operator, x, conv.weight, conv.bias) if operator.multiplies(x, conv.weight) else conv(x)
    return out


def _normalized(ctx: Any, norm: Norm, x: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``norm(x)``, as a tensor of its own, and what :func:`_again` and :func:`_norm_gradients` need; moves the statistics."""
    ctx.training, ctx.eps, pace = norm.training, norm.eps, norm.momentum
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if norm.training:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        pace = 1.0 / float(norm.num_batches_tracked) if pace is None else pace
    y, mean, invstd = torch.native_batch_norm(x, scale, offset, norm.running_mean, norm.running_var, norm.training,
                                              pace or 0.0, norm.eps)
    return (y, mean, invstd) if norm.training else (y, norm.running_mean, norm.running_var)


def _again(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    # A batch's spread is 1 / sqrt(variance + eps), that of frozen statistics the variance.
    var, eps = (spread.pow(-2), 0.0) if ctx.training else (spread, ctx.eps)
    return torch.native_batch_norm(x, scale, offset, mean, var, False, 0.0, eps)[0]


def _norm_gradients(ctx: Any, grad: Tensor, x: Tensor, scale: Tensor, mean: Tensor, spread: Tensor,
                    wanted: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
    """Gradients by input, scale and offset, where wanted."""
    stats = (None, None, mean, spread) if ctx.training else (mean, spread, None, None)
    found: tuple[Tensor | None, ...] = _aten.native_batch_norm_backward(grad, x, scale, *stats, ctx.training, ctx.eps, wanted)
    return found


class _NormReluConv(Function):
    """See :func:`norm_relu_conv`."""

    @staticmethod
    def forward(ctx: Any, norm: Norm, operator: Operator, x: Tensor, scale: Tensor, offset: Tensor, weight: Tensor,
                bias: Tensor | None) -> Tensor:
        y, mean, spread = _normalized(ctx, norm, x, scale, offset)
        ctx.operator = operator
        ctx.save_for_backward(x, scale, offset, weight, mean, spread)
        return operator.forward(y.relu_(), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, offset, weight, mean, spread = ctx.saved_tensors
        by_norm, by_conv = ctx.needs_input_grad[2:5], ctx.needs_input_grad[5:]
        y = _again(ctx, x, scale, offset, mean, spread).relu_()
        gy, gw, gb = ctx.operator.backward(grad, y, weight, (any(by_norm), *by_conv))
        if gy is None:
            return None, None, None, None, None, gw, gb
        _aten.threshold_backward.grad_input(gy, y, 0, grad_input=gy)
        return None, None, *_norm_gradients(ctx, gy, x, scale, mean, spread, by_norm), gw, gb


def norm_relu_conv(norm: Norm, conv: Convolution, x: Tensor) -> Tensor:
    r"""``conv(relu(norm(x)))``, of which a training step keeps ``x`` and its statistics, and not ``relu(norm(x))``.

    .. math:: y = W * \max(0, \gamma (x - \mu) / \sigma + \beta), \qquad \text{kept: } x, \mu, \sigma

    Running statistics move as the norm's own do; in evaluation mode (frozen) the norm uses them, and its gradient is
    that of a scaling.

    Args:
        norm, conv: modules that :func:`saves` says yes to.
        x: the output of the convolution before, ``(N, C, ...)``.

    Example:
        >>> norm, conv, x = nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), torch.randn(2, 4, 3, 3)
        >>> torch.allclose(norm_relu_conv(norm, conv, x), conv(norm(x).relu()), atol=1e-6)
        True
    """
    if norm.training and x.numel() == x.shape[1]:
        return conv(norm(x).relu())  # one value a channel has no variance: the module says so
    out: Tensor = _NormReluConv.apply(norm, Operator.of(conv), x, norm.weight, norm.bias, conv.weight, conv.bias)
    return out


class _NormReluPool(Function):
    """See :func:`norm_relu_pool`."""

    @staticmethod
    def forward(ctx: Any, norm: nn.BatchNorm2d, how: tuple[Any, ...], x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        y, mean, spread = _normalized(ctx, norm, x, scale, offset)
        out, where = _aten.max_pool2d_with_indices(y, *how)
        ctx.how = how
        ctx.save_for_backward(x, scale, out.relu_(), where, mean, spread)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, out, where, mean, spread = ctx.saved_tensors
        grad = _aten.threshold_backward(grad, out, 0)
        # PyTorch asks for the pooled map here but reads its extents only; x has the same.
        grad = _aten.max_pool2d_with_indices_backward(grad, x, *ctx.how, where)
        return None, None, *_norm_gradients(ctx, grad, x, scale, mean, spread, ctx.needs_input_grad[2:])


def norm_relu_pool(norm: nn.BatchNorm2d, pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    r"""``pool(relu(norm(x)))``, of which a training step keeps ``x`` and what is pooled, and not what is before it.

    The largest of some numbers and zero is the same in either order, so that the ReLU comes last, on a quarter of them.

    Args:
        norm, pool: modules that :func:`saves` says yes to.
        x: the output of the first convolution, ``(N, C, H, W)``.

    Example:
        >>> norm, pool, x = nn.BatchNorm2d(4), nn.MaxPool2d(3, 2, 1), torch.randn(2, 4, 7, 7)
        >>> torch.equal(norm_relu_pool(norm, pool, x), pool(norm(x).relu()))
        True
    """
    if norm.training and x.numel() == x.shape[1]:
        return pool(norm(x).relu())
    how = tuple([v, v] if isinstance(v, int) else list(v) for v in (pool.kernel_size, pool.stride, pool.padding, pool.dilation))
    out: Tensor = _NormReluPool.apply(norm, (*how, pool.ceil_mode), x, norm.weight, norm.bias)
    return out
