r"""Fused operations that keep less memory in training: cheap inputs of convolutions are computed again for the gradient.

A convolution keeps its input for the gradient of its weight. If that input results from a kept tensor by scaling,
clamping or shifting, keeping both wastes memory: the functions here keep the latter only, and compute the convolution's
input again in the backward pass. Unlike activation checkpointing, no convolution is computed twice, so that a step takes
no longer. Results and gradients equal those of the modules up to rounding; double backward is not supported.

The modules remain ``nn.Conv2d``, ``nn.BatchNorm2d``, ... and hold the weights, but they are not called: check
:func:`can_fuse` first, and call the modules where it is False.
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


def can_fuse(*modules: nn.Module) -> bool:
    """Whether the functions here may replace these convolutions, norms, activations and poolings.

    False without gradients, where nothing is kept; while a graph is traced, because a compiler decides itself what to
    compute again; and where calling a module does more than its type: hooks, subclasses (synchronized or quantized norms,
    parametrized weights), norms without weights or running statistics.

    Example:
        >>> can_fuse(nn.BatchNorm2d(4), nn.Conv2d(4, 8, 1)), can_fuse(nn.SyncBatchNorm(4))
        (True, False)
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return not torch_module._has_any_global_hook() and all(_is_standard(m) for m in modules)


def _is_standard(m: nn.Module) -> bool:
    if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks:
        return False
    if isinstance(m, Convolution):
        return type(m) in (nn.Conv2d, nn.Conv3d) and m.padding_mode == "zeros" and not isinstance(m.padding, str)
    if isinstance(m, Norm):
        return type(m) in (nn.BatchNorm2d, nn.BatchNorm3d) and m.affine and m.track_running_stats
    return type(m) in (nn.ReLU, nn.MaxPool2d, nn.Sequential)


@cache
def _has_matmul() -> bool:
    found = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # missing without oneDNN, and not public
    return found is not None and len(found.default._schema.arguments) == 6


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` by oneDNN, for matrices in either memory order; up to twice as fast as BLAS."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))


class ConvOperator(NamedTuple):
    """A convolution without its weights, in the precision that autocast sets when it is made.

    On CPUs a convolution reads all its weights once per frame. If frames have few pixels and weights do not fit the
    nearest cache, that takes most of its time; it is then computed as one matrix product over the pixels of all frames
    (im2col). Frames of 112 pixels are 7 x 7 and 4 x 4 in the last two stages of a ResNet, which have most of its weights.

    Attributes:
        device: type of device.
        dtype: the dtype that inputs and weights are cast to; None outside autocast.
        arguments: stride, padding, dilation, transposed, output padding and groups, as PyTorch's operators take them.
        kernel: height and width if it can be computed as a matrix product; else empty.
    """

    device: str
    dtype: torch.dtype | None
    arguments: tuple[Any, ...]
    kernel: tuple[int, ...]

    @classmethod
    def of(cls, conv: Convolution) -> ConvOperator:
        device, size = conv.weight.device.type, conv.weight.dim() - 2
        half = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        arguments = conv.stride, conv.padding, conv.dilation, False, (0,) * size, conv.groups
        simple = device == "cpu" and not half and conv.dilation == (1, 1) and conv.groups == 1 and conv.bias is None
        return cls(device, torch.get_autocast_dtype(device) if half else None, arguments,
                   conv.kernel_size if simple else ())

    def cast(self, x: Tensor) -> Tensor:
        return x if self.dtype is None else x.to(self.dtype)

    def uses_matmul(self, x: Tensor, weight: Tensor) -> bool:
        """Whether a matrix product of :meth:`unfold` is faster: for float32 weights of at least half a megabyte, and up to 64
        pixels with 1x1 kernels, which need no copy, or 16 with others."""
        if not self.kernel or weight.numel() < 2**17 or x.dtype != torch.float32 or weight.dtype != torch.float32:
            return False
        pixels = 1
        for size, kernel, stride, padding in zip(x.shape[2:], self.kernel, *self.arguments[:2], strict=True):
            pixels *= (size + 2 * padding - kernel) // stride + 1
        return bool(pixels <= (64 if self.kernel == (1, 1) else 16) and x.is_contiguous(memory_format=torch.channels_last)
                and torch.backends.mkldnn.enabled and _has_matmul())

    def unfold(self, x: Tensor) -> Tensor:
        """The input patch of every output pixel, ``(N, h, w, kernel * C)`` (im2col)."""
        (down, right), (top, left) = self.arguments[:2]
        y = x.permute(0, 2, 3, 1)
        if top or left:
            y = nn.functional.pad(y, (0, 0, left, left, top, top))
        return y.unfold(1, self.kernel[0], down).unfold(2, self.kernel[1], right).permute(0, 1, 2, 4, 5, 3).flatten(3)

    def fold(self, patches: Tensor, x: Tensor) -> Tensor:
        """Patches ``(N, h, w, kernel, C)`` summed where they overlap in ``x``: the transpose of :meth:`unfold`."""
        (down, right), (top, left) = self.arguments[:2]
        if self.kernel == self.arguments[0] == (1, 1) and self.arguments[1] == (0, 0):
            return patches.flatten(3)
        n, h, w, tall, wide, channels = patches.shape
        y = x.new_zeros(n, x.shape[2] + 2 * top, x.shape[3] + 2 * left, channels)
        for i in range(tall):
            for j in range(wide):
                y[:, i : i + down * h : down, j : j + right * w : right] += patches[:, :, :, i, j]
        return y[:, top : top + x.shape[2], left : left + x.shape[3]].contiguous()

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.uses_matmul(x, weight):
            patches = self.unfold(x)
            y = _matmul(patches.flatten(0, 2), weight.permute(0, 2, 3, 1).flatten(1))
            return y.view(*patches.shape[:3], -1).permute(0, 3, 1, 2)
        # Autocast would cache its copy of the weight, which has no graph here, and return it to later calls of the module.
        with nullcontext() if self.dtype is None else torch.autocast(self.device, enabled=False):
            return torch.convolution(self.cast(x), self.cast(weight), None if bias is None else self.cast(bias),
                                     *self.arguments)

    def backward(self, grad: Tensor, x: Tensor, weight: Tensor,
                 output_mask: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
        """Gradients of input, weight and bias, where ``output_mask`` is true, in the dtypes of input and weight."""
        if self.uses_matmul(x, weight) and grad.is_contiguous(memory_format=torch.channels_last):
            g, gx, gw = grad.permute(0, 2, 3, 1).flatten(0, 2), None, None
            if output_mask[1]:
                gw = _matmul(g.t(), self.unfold(x).flatten(0, 2).t())
                gw = gw.view(len(weight), *self.kernel, -1).permute(0, 3, 1, 2)
                gw = gw.as_strided(gw.shape, weight.stride()) if self.kernel == (1, 1) else gw
            if output_mask[0]:
                patches = _matmul(g, weight.permute(0, 2, 3, 1).flatten(1).t())
                gx = self.fold(patches.view(len(x), *grad.shape[2:], *self.kernel, -1), x).permute(0, 3, 1, 2)
            return gx, gw, None
        if not any(output_mask):
            return None, None, None
        found = _aten.convolution_backward(grad, self.cast(x), self.cast(weight), [weight.shape[0]], *self.arguments,
                                           output_mask)
        types = x.dtype, weight.dtype, weight.dtype
        return tuple(None if g is None else g.to(t) for g, t in zip(found, types, strict=True))


class _Conv(Function):
    """See :func:`fast_conv`."""

    @staticmethod
    def forward(ctx: Any, operator: ConvOperator, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.operator = operator
        ctx.save_for_backward(x, weight)
        return operator.forward(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.operator.backward(grad, *ctx.saved_tensors, ctx.needs_input_grad[1:])


def fast_conv(conv: Convolution, x: Tensor) -> Tensor:
    """``conv(x)``, as a matrix product where that is faster (see :class:`ConvOperator`).

    Args:
        conv: a convolution that :func:`can_fuse` accepts.
        x: its input.

    Example:
        >>> conv, x = nn.Conv2d(4, 2, 1, bias=False), torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last)
        >>> torch.allclose(fast_conv(conv, x), conv(x), atol=1e-6)
        True
    """
    operator = ConvOperator.of(conv)
    out: Tensor = _Conv.apply(operator, x, conv.weight, conv.bias) if operator.uses_matmul(x, conv.weight) else conv(x)
    return out


def _batch_norm(ctx: Any, norm: Norm, x: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``norm(x)``, and the two statistics that the backward pass needs; updates the running statistics."""
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


def _normalize_again(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor, mean: Tensor, invstd_or_var: Tensor) -> Tensor:
    # In training the statistic is 1 / sqrt(variance + eps), with frozen statistics the variance.
    var, eps = (invstd_or_var.pow(-2), 0.0) if ctx.training else (invstd_or_var, ctx.eps)
    return torch.native_batch_norm(x, scale, offset, mean, var, False, 0.0, eps)[0]


def _batch_norm_backward(ctx: Any, grad: Tensor, x: Tensor, scale: Tensor, mean: Tensor, invstd_or_var: Tensor,
                    output_mask: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
    """Gradients of input, scale and offset, where ``output_mask`` is true."""
    stats = (None, None, mean, invstd_or_var) if ctx.training else (mean, invstd_or_var, None, None)
    found: tuple[Tensor | None, ...] = _aten.native_batch_norm_backward(grad, x, scale, *stats, ctx.training, ctx.eps,
                                                                        output_mask)
    return found


class _NormReluConv(Function):
    """See :func:`norm_relu_conv`."""

    @staticmethod
    def forward(ctx: Any, norm: Norm, operator: ConvOperator, x: Tensor, scale: Tensor, offset: Tensor, weight: Tensor,
                bias: Tensor | None) -> Tensor:
        y, mean, invstd_or_var = _batch_norm(ctx, norm, x, scale, offset)
        ctx.operator = operator
        ctx.save_for_backward(x, scale, offset, weight, mean, invstd_or_var)
        return operator.forward(y.relu_(), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, offset, weight, mean, invstd_or_var = ctx.saved_tensors
        by_norm, by_conv = ctx.needs_input_grad[2:5], ctx.needs_input_grad[5:]
        y = _normalize_again(ctx, x, scale, offset, mean, invstd_or_var).relu_()
        gy, gw, gb = ctx.operator.backward(grad, y, weight, (any(by_norm), *by_conv))
        if gy is None:
            return None, None, None, None, None, gw, gb
        _aten.threshold_backward.grad_input(gy, y, 0, grad_input=gy)
        return None, None, *_batch_norm_backward(ctx, gy, x, scale, mean, invstd_or_var, by_norm), gw, gb


def norm_relu_conv(norm: Norm, conv: Convolution, x: Tensor) -> Tensor:
    r"""``conv(relu(norm(x)))``, which keeps ``x`` and its statistics for the gradient, and not ``relu(norm(x))``.

    .. math:: y = W * \max(0, \gamma (x - \mu) / \sigma + \beta), \qquad \text{kept: } x, \mu, \sigma

    Running statistics are updated as by the module; in evaluation mode (frozen) the norm is a fixed scaling.

    Args:
        norm, conv: modules that :func:`can_fuse` accepts.
        x: the output of the convolution before, ``(N, C, ...)``.

    Example:
        >>> norm, conv, x = nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), torch.randn(2, 4, 3, 3)
        >>> torch.allclose(norm_relu_conv(norm, conv, x), conv(norm(x).relu()), atol=1e-6)
        True
    """
    if norm.training and x.numel() == x.shape[1]:
        return conv(norm(x).relu())  # one value per channel has no variance: the module raises
    out: Tensor = _NormReluConv.apply(norm, ConvOperator.of(conv), x, norm.weight, norm.bias, conv.weight, conv.bias)
    return out


class _NormReluPool(Function):
    """See :func:`norm_relu_pool`."""

    @staticmethod
    def forward(ctx: Any, norm: nn.BatchNorm2d, pooling: tuple[Any, ...], x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        y, mean, invstd_or_var = _batch_norm(ctx, norm, x, scale, offset)
        out, where = _aten.max_pool2d_with_indices(y, *pooling)
        ctx.pooling = pooling
        ctx.save_for_backward(x, scale, out.relu_(), where, mean, invstd_or_var)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, out, where, mean, invstd_or_var = ctx.saved_tensors
        grad = _aten.threshold_backward(grad, out, 0)
        # PyTorch wants the pooling's input here, but reads its extents only; x has the same.
        grad = _aten.max_pool2d_with_indices_backward(grad, x, *ctx.pooling, where)
        return None, None, *_batch_norm_backward(ctx, grad, x, scale, mean, invstd_or_var, ctx.needs_input_grad[2:])


def norm_relu_pool(norm: nn.BatchNorm2d, pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    r"""``pool(relu(norm(x)))``, which keeps ``x`` and the output for the gradient, and not ``relu(norm(x))``.

    ReLU and max-pooling commute, so the ReLU comes last, on a quarter of the numbers.

    Args:
        norm, pool: modules that :func:`can_fuse` accepts.
        x: the output of the first convolution, ``(N, C, H, W)``.

    Example:
        >>> norm, pool, x = nn.BatchNorm2d(4), nn.MaxPool2d(3, 2, 1), torch.randn(2, 4, 7, 7)
        >>> torch.equal(norm_relu_pool(norm, pool, x), pool(norm(x).relu()))
        True
    """
    if norm.training and x.numel() == x.shape[1]:
        return pool(norm(x).relu())
    settings = pool.kernel_size, pool.stride, pool.padding, pool.dilation
    pooling = tuple([v, v] if isinstance(v, int) else list(v) for v in settings)
    out: Tensor = _NormReluPool.apply(norm, (*pooling, pool.ceil_mode), x, norm.weight, norm.bias)
    return out
