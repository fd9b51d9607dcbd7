"""Training steps that keep less: results, gradients and statistics of the modules that they stand for."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import modalift.networks as networks
from modalift.engine.distributed import to_device
from modalift.networks import fused_ops, resnet
from modalift.networks.fused_ops import ConvOperator, can_fuse, fast_conv, norm_relu_conv, norm_relu_pool
from modalift.networks.resnet import Block
from modalift.networks.shift import shift

LAST, FIRST = torch.channels_last, torch.contiguous_format
product = pytest.mark.skipif(not fused_ops._has_matmul(), reason="PyTorch without oneDNN's matrix product")


def normed(channels: int, dims: int = 2, momentum: float | None = 0.1) -> nn.BatchNorm2d | nn.BatchNorm3d:
    torch.manual_seed(0)
    norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims](channels, momentum=momentum)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


def same(step: Callable[..., Tensor], plain: Callable[..., Tensor], modules: nn.ModuleList, x: Tensor, **near: float) -> None:
    """Outputs, gradients of inputs and weights, and statistics after two steps."""
    found = []
    modules.zero_grad()
    for function, parts in ((step, modules), (plain, copy.deepcopy(modules))):
        leaf = x.clone().requires_grad_()
        for _ in range(2):
            out = function(*parts, leaf)
            weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
            (out * weight).sum().backward()
        found.append([out.detach(), leaf.grad, *(p.grad for p in parts.parameters()), *parts.buffers()])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, **(near or {"atol": 2e-5, "rtol": 2e-5}))


@pytest.mark.parametrize("order", [LAST, FIRST])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_norm_relu_conv_is_the_three_modules(order: torch.memory_format, frozen: bool, momentum: float | None) -> None:
    norm, conv = normed(6, momentum=momentum).train(not frozen), nn.Conv2d(6, 4, 3, 2, 1, groups=2)
    x = torch.randn(3, 6, 7, 5).to(memory_format=order)
    same(norm_relu_conv, lambda n, c, t: c(n(t).relu()), nn.ModuleList([norm, conv]), x)


@pytest.mark.parametrize("frozen", [False, True])
def test_norm_relu_conv_in_three_dimensions(frozen: bool) -> None:
    parts = nn.ModuleList([normed(4, 3).train(not frozen), nn.Conv3d(4, 2, 3, 1, 1, bias=False)])
    same(norm_relu_conv, lambda n, c, t: c(n(t).relu()), parts, torch.randn(2, 4, 3, 5, 4))


@pytest.mark.parametrize("order", [LAST, FIRST])
@pytest.mark.parametrize("frozen", [False, True])
def test_norm_relu_pool_is_the_three_modules(order: torch.memory_format, frozen: bool) -> None:
    parts = nn.ModuleList([normed(5).train(not frozen), nn.MaxPool2d(3, 2, 1)])
    x = torch.randn(3, 5, 9, 8).to(memory_format=order)
    same(norm_relu_pool, lambda n, p, t: p(n(t).relu()), parts, x)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    norm, conv, pool = normed(3).double(), nn.Conv2d(3, 2, 3, padding=1).double(), nn.MaxPool2d(2)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weights = [*norm.parameters(), *conv.parameters()]
    for training in (True, False):
        norm.train(training)
        assert torch.autograd.gradcheck(lambda t, *_: norm_relu_conv(norm, conv, t), (x, *weights))
        assert torch.autograd.gradcheck(lambda t, *_: norm_relu_pool(norm, pool, t), (x, *weights[:2]))
    (grad,) = torch.autograd.grad(norm_relu_conv(norm, conv, x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("order", [LAST, FIRST])
@pytest.mark.parametrize(("frames", "channels"), [(1, 16), (2, 16), (3, 19), (5, 8)])
def test_shifted_convolution_and_skip_path(frames: int, channels: int, order: torch.memory_format, causal: bool) -> None:
    torch.manual_seed(0)
    block = Block(channels, 4, 1, True, "residual", 8, causal).double().train()
    x = torch.randn(2 * frames, channels, 3, 5, dtype=torch.float64).to(memory_format=order)

    def joined(y: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([y, skip.sin()], 1)

    parts = nn.ModuleList([block])
    same(lambda b, t: joined(*b.first_conv(t, frames)), lambda b, t: joined(b.conv1(shift(t, frames, 8, causal)), t), parts, x)
    same(lambda b, t: b.first_conv(t, frames)[0], lambda b, t: b.conv1(shift(t, frames, 8, causal)), parts, x)
    inputs = x[:, :, :2, :2].requires_grad_(), block.conv1.weight
    assert torch.autograd.gradcheck(lambda t, _: block.first_conv(t, frames), inputs)


@product
@pytest.mark.parametrize("order", [LAST, FIRST])
@pytest.mark.parametrize(("channels", "kernel", "stride", "size", "used"), [
    (512, 1, 1, (7, 7), True), (512, 1, 2, (13, 15), True), (512, 1, 1, (9, 8), False), (64, 1, 1, (7, 7), False),
    (128, 3, 1, (4, 4), True), (128, 3, 2, (7, 8), True), (128, 3, 1, (5, 4), False), (32, 3, 1, (4, 4), False),
])
def test_small_frames_are_one_product(channels: int, kernel: int, stride: int, size: tuple[int, int], used: bool,
                                      order: torch.memory_format) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 256, kernel, stride, kernel // 2, bias=False).to(memory_format=order)
    x = torch.randn(3, channels, *size).to(memory_format=order)
    assert ConvOperator.of(conv).uses_matmul(x, conv.weight) is (used and order == LAST)
    same(fast_conv, lambda c, t: c(t), nn.ModuleList([conv]), x, atol=2e-4, rtol=1e-4)
    y = fast_conv(conv, x.requires_grad_())
    assert y.is_contiguous(memory_format=order)
    y.sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.stride() == conv.weight.stride()


@pytest.mark.parametrize("frozen", ["norm", "conv", "input", "norm and input"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    norm, conv = normed(4), nn.Conv2d(4, 2, 1)
    x = torch.randn(2, 4, 3, 3, requires_grad="input" not in frozen)
    norm.requires_grad_("norm" not in frozen)
    conv.requires_grad_("conv" not in frozen)
    norm_relu_conv(norm, conv, x).sum().backward()
    for tensor in (x, *norm.parameters(), *conv.parameters()):
        assert (tensor.grad is not None) is tensor.requires_grad


def test_one_value_a_channel_is_refused_as_ever() -> None:
    norm, x = normed(4), torch.randn(1, 4, 1, 1)
    before = norm.running_var.clone()
    for step in (lambda: norm_relu_conv(norm, nn.Conv2d(4, 2, 1), x), lambda: norm_relu_pool(norm, nn.MaxPool2d(1), x)):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            step()
    assert torch.equal(norm.running_var, before)


def test_autocast() -> None:
    # A copy of the weight made without its graph must not serve the module that is called next.
    torch.manual_seed(0)
    norm, conv, x = normed(8), nn.Conv2d(8, 8, 3, padding=1), torch.randn(2, 8, 6, 6)
    grads = []
    for step in (lambda t: norm_relu_conv(norm, conv, t), lambda t: conv(norm(t).relu())):
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = step(x.bfloat16())
            assert y.dtype == torch.bfloat16
            z = conv(y)
        z.float().square().mean().backward()
        grads.append(conv.weight.grad.clone())
    torch.testing.assert_close(grads[0], grads[1], atol=0.02 * grads[1].abs().max().item(), rtol=0.05)


def test_modules_are_called_where_that_does_more() -> None:
    conv, norm, relu = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU()
    assert can_fuse(conv, norm, relu, nn.MaxPool2d(2))
    with torch.no_grad():
        assert not can_fuse(conv)
    handle = conv.register_forward_hook(lambda *_: None)
    assert not can_fuse(norm, conv)
    handle.remove()
    assert can_fuse(norm, conv)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert not can_fuse(conv)
    handle.remove()
    bent = nn.Conv2d(2, 2, 1)
    parametrize.register_parametrization(bent, "weight", nn.Identity())
    for other in (bent, nn.SyncBatchNorm(2), nn.BatchNorm2d(2, affine=False), nn.BatchNorm2d(2, track_running_stats=False),
                  nn.Conv2d(2, 2, 1, padding_mode="circular"), nn.Conv2d(2, 2, 3, padding="same"), nn.GELU()):
        assert not can_fuse(other), other


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resnet, "can_fuse", lambda *_: False)


def stepped(net: nn.Module, clip: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(3)
    logits = net(clip) + net(clip.flip(3))  # twice, as distillation and several crops do
    logits.logsumexp(1).sum().backward()
    return {"logits": logits.detach()} | {k: p.grad for k, p in net.named_parameters()} | dict(net.named_buffers())


@pytest.mark.parametrize("name", ["tsm", "tsn"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("last", [True, False])
def test_a_network_learns_the_same(name: str, backbone: str, last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = networks.build(name, backbone=backbone, width=0.25, classes=5, channels=3, frames=3, size=70).double().train()
    if last:
        to_device(net, torch.device("cpu"))
    net.backbone.layer2.eval()
    net.backbone.layer1.requires_grad_(False)
    other = copy.deepcopy(net)
    clip = torch.rand(2, 3, 3, 70, 62) * 255
    found = stepped(net, clip)
    plainly(monkeypatch)
    for key, want in stepped(other, clip).items():
        if want is None:
            assert found[key] is None
        else:
            torch.testing.assert_close(found[key], want, atol=1e-8, rtol=1e-6)


def test_two_thirds_of_the_activations_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    net = networks.build("tsm", backbone="resnet50", classes=83, channels=3, frames=8, size=112)
    ours = networks.cost(net, 8, 112).activation_bytes
    plainly(monkeypatch)
    assert ours < 0.66 * networks.cost(net, 8, 112).activation_bytes


def test_compiled_training_is_the_same() -> None:
    torch.manual_seed(0)
    net = networks.build("tsm", backbone="resnet50", width=0.125, classes=5, channels=3, frames=2, size=33, dropout=0.0)
    net = net.double().train()
    other, clip = copy.deepcopy(net), torch.rand(2, 3, 2, 33, 33) * 255
    torch._dynamo.reset()
    compiled = torch.compile(other, fullgraph=True, backend="eager")
    for step in (net, compiled):
        step(clip).logsumexp(1).sum().backward()
    for (key, a), b in zip(net.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-9, rtol=1e-6, msg=key)


def test_nothing_outlives_the_step() -> None:
    block = Block(16, 4, 1, True, "residual", 8, False).train()
    gc.disable()
    try:
        x = torch.randn(4, 16, 5, 5, requires_grad=True) * 1
        seen = weakref.ref(x)
        y = block(x, 2)
        del x
        assert seen() is not None  # kept for the gradient
        del y
        assert seen() is None
    finally:
        gc.enable()
