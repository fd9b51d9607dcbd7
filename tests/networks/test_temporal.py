"""The learnable convolution over time: in every memory order the one-dimensional convolution of public code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modalift.networks.shift import shift
from modalift.networks.temporal import TemporalConv, temporal_conv, temporal_conv_gradients

ORDERS = [torch.contiguous_format, torch.channels_last]


def literal(x: Tensor, weight: Tensor, frames: int) -> Tensor:
    clip, y = x.unflatten(0, (-1, frames)), torch.zeros_like(x).unflatten(0, (-1, frames))
    for t in range(frames):
        for tap, source in enumerate((t - 1, t, t + 1)):
            if 0 <= source < frames:
                y[:, t] = y[:, t] + weight[:, 0, tap].reshape(-1, 1, 1) * clip[:, source]
    return y.flatten(0, 1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_it_is_the_definition_and_so_are_its_gradients(frames: int, order: torch.memory_format) -> None:
    conv = TemporalConv(5).double()
    torch.nn.init.normal_(conv.weight)
    x = torch.randn(2 * frames, 5, 3, 4, dtype=torch.float64).to(memory_format=order).requires_grad_()
    y, want = conv(x, frames), literal(x, conv.weight, frames)
    torch.testing.assert_close(y, want)
    assert y.is_contiguous(memory_format=order)
    grad = torch.randn_like(y)
    wanted = torch.autograd.grad(want, (x, conv.weight), grad)
    torch.testing.assert_close(torch.autograd.grad(y, (x, conv.weight), grad), wanted)
    torch.testing.assert_close(temporal_conv_gradients(grad, x.detach(), conv.weight.detach(), frames), wanted)
    # Each of the two may come in the other memory order.
    other = grad.contiguous(memory_format=ORDERS[1 - ORDERS.index(order)])
    torch.testing.assert_close(temporal_conv_gradients(other, x.detach(), conv.weight.detach(), frames), wanted)


def test_it_is_the_one_dimensional_convolution_of_each_pixel() -> None:
    conv, x = TemporalConv(6, shifted=2), torch.randn(2 * 4, 6, 3, 3)
    torch.nn.init.normal_(conv.weight)
    pixels = x.unflatten(0, (2, 4)).permute(0, 3, 4, 2, 1).reshape(-1, 6, 4)  # (B*H*W, C, T)
    want = torch.nn.functional.conv1d(pixels, conv.weight, padding=1, groups=6)
    want = want.reshape(2, 3, 3, 6, 4).permute(0, 4, 3, 1, 2).flatten(0, 1)
    torch.testing.assert_close(conv(x, 4), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("channels", "frames"), [(16, 1), (16, 2), (19, 5), (7, 3)])
def test_it_starts_as_the_temporal_shift(channels: int, frames: int, order: torch.memory_format) -> None:
    x = torch.randn(2 * frames, channels, 3, 4).to(memory_format=order)
    assert torch.equal(TemporalConv(channels, channels // 8)(x, frames), shift(x, frames, 8))


def test_it_starts_as_nothing_without_moved_channels() -> None:
    x = torch.randn(6, 4, 2, 2)
    assert torch.equal(TemporalConv(4)(x, 3), x)


@pytest.mark.parametrize("order", ORDERS)
def test_half_precision_under_autocast(order: torch.memory_format) -> None:
    conv, x = TemporalConv(8, 2), torch.randn(4, 8, 3, 3).to(memory_format=order)
    torch.nn.init.normal_(conv.weight)
    with torch.autocast("cpu", torch.bfloat16):
        half = conv(x.bfloat16(), 4)
    assert half.dtype is torch.bfloat16
    torch.testing.assert_close(half.float(), temporal_conv(x, conv.weight, 4), atol=0.1, rtol=0.05)
