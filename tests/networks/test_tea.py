"""TEA: its two modules read literally, its published counts and names, its memory.

Names in the trunk are the public code's own; from its files to ours it is ``module.base_model.`` -> ``backbone.`` and
``module.new_fc.`` (or ``fc.``, of a trunk by itself) -> ``head.fc.``.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks.cost import cost, legacy_flops
from modalift.networks.tea import MotionExcitation, TeaBlock
from modalift.networks.temporal import TemporalConv

LAYOUTS = Path(__file__).resolve().parents[2] / ".." / "shared" / "specs" / "state_dicts"


def normalized(bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Of frames ``(N, C, H, W)``, by the batch in training."""
    mean, var = (x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)) if bn.training else (bn.running_mean, bn.running_var)
    mean, scale = mean[:, None, None], (bn.weight / (var + bn.eps).sqrt())[:, None, None]
    return (x - mean) * scale + bn.bias[:, None, None]


def literal_me(m: MotionExcitation, x: Tensor, frames: int) -> Tensor:
    z = normalized(m.bn1, F.conv2d(x, m.conv1.weight))
    moved = F.conv2d(z, m.conv2.weight, padding=1, groups=z.shape[1])
    d = torch.zeros_like(z)
    for n in range(len(x)):
        if n % frames < frames - 1:
            d[n] = moved[n + 1] - z[n]
    a = normalized(m.bn3, F.conv2d(d.mean((2, 3), keepdim=True), m.conv3.weight)).sigmoid() - 0.5
    return x + x * a


def literal_temporal(conv: TemporalConv, x: Tensor, frames: int) -> Tensor:
    pixels = x.unflatten(0, (-1, frames)).permute(0, 3, 4, 2, 1)  # (B, H, W, C, T)
    y = F.conv1d(pixels.flatten(0, 2), conv.weight, padding=1, groups=x.shape[1])
    return y.unflatten(0, pixels.shape[:3]).permute(0, 4, 3, 1, 2).flatten(0, 1)


def literal_block(m: TeaBlock, x: Tensor, frames: int, stride: int, first: bool) -> Tensor:
    group = m.convs[0].in_channels
    y = literal_me(m.me, normalized(m.bn1, F.conv2d(x, m.conv1.weight)).relu(), frames)
    x1, x2, x3, x4 = y.split(group, 1)
    above, made = torch.zeros_like(x1), []
    for i, part in enumerate((x1, x2, x3)):
        s = literal_temporal(m.shifts[i].conv, part if first or i == 0 else part + above, frames)
        above = normalized(m.bns[i], F.conv2d(s, m.convs[i].weight, stride=stride, padding=1)).relu()
        made.append(above)
    last = literal_temporal(m.shifts[3].conv, x4, frames)
    made.append(F.avg_pool2d(last, 3, stride, 1) if first else last)
    y = normalized(m.bn3, F.conv2d(torch.cat(made, 1), m.conv3.weight))
    if first:
        x = normalized(m.downsample[1], F.conv2d(x, m.downsample[0].weight, stride=stride))
    return (y + x).relu()


def scrambled(m: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    m = m.double()
    for w in m.parameters():
        nn.init.normal_(w, 0.2, 0.4)
    for layer in m.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.running_mean)
    return m


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_motion_excitation_is_the_equation(frames: int, training: bool) -> None:
    m = scrambled(MotionExcitation(32)).train(training)
    x = torch.randn(2 * frames, 32, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(x * m(x, frames), literal_me(m, x, frames))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("inside", "stride", "frames"), [(64, 1, 4), (64, 1, 1), (24, 1, 3), (64, 2, 2)])
def test_block_and_gradients_are_the_equations(inside: int, stride: int, frames: int, training: bool,
                                               order: torch.memory_format) -> None:
    m = scrambled(TeaBlock(inside, 16, stride, True, "residual", 8, False)).train(training)
    x = torch.randn(2 * frames, inside, 6, 5, dtype=torch.float64).to(memory_format=order).requires_grad_()
    y, want = m(x, frames), literal_block(m, x, frames, stride, first=inside != 64 or stride == 2)
    torch.testing.assert_close(y, want)
    grad, learn = torch.randn_like(y), [x, *m.parameters()]
    found = torch.autograd.grad(y, learn, grad, retain_graph=True)
    wanted = torch.autograd.grad(want, learn, grad, materialize_grads=True)  # of one frame, motion is no function
    for name, a, b in zip(["x", *dict(m.named_parameters())], found, wanted, strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")
    for a, b in zip(found, torch.autograd.grad(y, learn, grad), strict=True):  # a graph that is kept serves twice
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [4, 20])  # small frames are convolved in another way
def test_gradients_are_the_equations_in_single_precision(size: int) -> None:
    m = scrambled(TeaBlock(64, 16, 1, True, "residual", 8, False)).train()
    x = torch.randn(8, 64, size, size, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    want = torch.autograd.grad(literal_block(m, x, 4, 1, first=False).square().mean(), [x, *m.parameters()])
    m, x = m.float(), x.detach().float().requires_grad_()
    found = torch.autograd.grad(m(x, 4).square().mean(), [x, *m.parameters()])
    for name, a, b in zip(["x", *dict(m.named_parameters())], found, want, strict=True):
        assert (a - b).norm() < 1e-3 * b.norm(), name


def test_what_is_frozen_gets_no_gradient_and_the_rest_its_own() -> None:
    m = scrambled(TeaBlock(24, 16, 1, True, "residual", 8, False)).train()
    x = torch.randn(4, 24, 3, 3, dtype=torch.float64)
    for frozen in (m.shifts, m.convs[1], m.conv3, m.me, m.conv1):
        frozen.requires_grad_(False)
        m.zero_grad()
        m(x, 2).square().sum().backward()
        assert all(w.grad is None for w in frozen.parameters())
        learn = [w for w in m.parameters() if w.requires_grad]
        want = torch.autograd.grad(literal_block(m, x, 2, 1, first=True).square().sum(), learn)
        torch.testing.assert_close([w.grad for w in learn], list(want))
        frozen.requires_grad_(True)


def test_training_is_near_in_half_precision() -> None:
    torch.manual_seed(1)
    m = TeaBlock(64, 16, 1, True, "residual", 8, False).train()
    x = torch.randn(8, 64, 6, 6).to(memory_format=torch.channels_last)
    grads = []
    for half in (False, True):
        m.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            m(x, 4).square().mean().backward()
        grads.append({k: w.grad.clone() for k, w in m.named_parameters()})  # type: ignore[union-attr]
    for key, want in grads[0].items():
        assert (grads[1][key] - want).norm() < 0.15 * want.norm() + 1e-3, key


def test_temporal_convolutions_start_as_nothing_and_as_a_full_shift() -> None:
    net = networks.build("tea", width=0.25, classes=3, channels=3)
    for block in net.backbone.layer2:
        *still, full = (shift.conv.weight[:, 0] for shift in block.shifts)
        for weight in still:
            assert torch.equal(weight, torch.tensor([0.0, 1.0, 0.0]).expand_as(weight))
        half = len(full) // 2
        assert torch.equal(full[:half], torch.tensor([0.0, 0.0, 1.0]).expand(half, 3))
        assert torch.equal(full[half : 2 * half], torch.tensor([1.0, 0.0, 0.0]).expand(half, 3))


def test_a_compiled_step_is_the_same() -> None:
    m = scrambled(TeaBlock(24, 16, 2, True, "residual", 8, False)).train()
    other, x = copy.deepcopy(m), torch.randn(6, 24, 7, 6, dtype=torch.float64)
    m(x, 3).square().sum().backward()
    torch._dynamo.reset()
    torch.compile(other, fullgraph=True, backend="eager")(x, 3).square().sum().backward()
    for (key, a), b in zip(m.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=lambda text, key=key: f"{key}: {text}")
    for (key, a), b in zip(m.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize(("options", "part"), [({"width": 0.0}, "width = 0"), ({"backbone": "resnet50"}, "mean 'res2net50'")])
def test_it_refuses_what_makes_no_sense(options: dict, part: str) -> None:
    with pytest.raises(ModaliftError, match=part):
        networks.build("tea", classes=3, view="rgb", **options)


def test_counts_are_the_published_ones() -> None:
    net = networks.build("tea", classes=83, channels=3)
    found = cost(net, frames=8, size=224)
    assert (found.parameters, found.macs) == (24_269_821, 34_536_004_864)
    assert round(legacy_flops(net, frames=8, size=224) / 1e9, 4) == 31.0837  # 31.1 in the paper of MSD
    assert cost(net, frames=3, size=64).parameters == found.parameters


@pytest.mark.parametrize(("classes", "millions"), [(25, 24.151), (249, 24.610)])
def test_counts_of_other_numbers_of_classes(classes: int, millions: float) -> None:
    found = cost(networks.build("tea", classes=classes, channels=3), frames=1, size=32)
    assert round(found.parameters / 1e6, 3) == millions


def test_a_step_keeps_less_than_the_public_code() -> None:
    # 509.4 MiB at two clips of 8 x 112 x 112, measured with a plain network of the same operations.
    net = networks.build("tea", classes=83, channels=3)
    assert 2 * cost(net, frames=8, size=112).activation_bytes < 0.8 * 509.4 * 2**20


@pytest.mark.skipif(not LAYOUTS.exists(), reason="../shared with the real layouts of keys is absent")
def test_names_and_shapes_are_those_of_the_public_code() -> None:
    keys = json.loads((LAYOUTS / "keys_tea50_8f_inner_174.json").read_text())["keys"]
    assert len(keys) == 784
    own = networks.build("tea", classes=174, channels=3).state_dict()
    found = {k.removeprefix("backbone.").removeprefix("head."): tuple(v.shape)
             for k, v in own.items() if not k.startswith("prepare.")}
    assert found == {k: tuple(shape) for k, (shape, _) in keys.items()}


def test_a_training_step_takes_weights_that_are_no_parameters() -> None:
    m = scrambled(TeaBlock(24, 16, 1, True, "residual", 8, False)).train()
    x = torch.randn(4, 24, 3, 3, dtype=torch.float64)
    weights = {k: w.detach().clone().requires_grad_() for k, w in m.named_parameters()}
    want = torch.autograd.grad(m(x, 2).square().sum(), list(m.parameters()))
    found = torch.autograd.grad(torch.func.functional_call(m, weights, (x, 2)).square().sum(), list(weights.values()))
    torch.testing.assert_close(list(found), list(want))
