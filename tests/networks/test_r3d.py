"""3D ResNets: published costs to the digit, names as in real files, the block against its equation, any extents."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks.cost import cost
from modalift.networks.r3d import Block3d, PooledLogits, convolve

LAYOUTS = Path(__file__).resolve().parents[2] / ".." / "shared" / "specs" / "state_dicts"
real_layouts = pytest.mark.skipif(not LAYOUTS.exists(), reason="../shared with the real layouts of keys is absent")


@pytest.mark.parametrize(("backbone", "classes", "frames", "parameters", "macs"), [
    ("resnet18", 83, 8, 33_246_483, 4_353_172_992),
    ("resnet18", 83, 16, 33_246_483, 8_307_844_608),
    ("resnet18", 83, 32, 33_246_483, 16_615_646_720),
    ("resnet34", 83, 8, 63_556_115, 6_660_564_480),
    ("resnet34", 83, 16, 63_556_115, 12_696_135_168),
    ("resnet34", 83, 32, 63_556_115, 25_392_227_840),
    ("resnet50", 83, 8, 46_369_043, 5_263_005_696),
    ("resnet50", 83, 16, 46_369_043, 10_068_662_272),
    ("resnet50", 83, 32, 46_369_043, 20_137_154_560),
    ("res3d18", 249, 8, 33_294_009, 20_348_301_824),
    ("res3d18", 249, 16, 33_294_009, 40_696_476_160),
    ("res3d18", 249, 32, 33_294_009, 81_392_824_832),
])
def test_cost_is_the_published_codes(backbone: str, classes: int, frames: int, parameters: int, macs: int) -> None:
    with torch.device("meta"):
        net = networks.build("r3d", backbone=backbone, classes=classes, channels=3, frames=frames, size=112)
    told = cost(net, frames, 112)
    assert (told.parameters, told.macs) == (parameters, macs)


@real_layouts
def test_names_are_those_of_real_files() -> None:
    net = networks.build("r3d", backbone="res3d18", classes=400, channels=3)
    own = {k: list(v.shape) for k, v in net.state_dict().items() if not k.startswith("prepare.")}
    renamed = {}
    for key, (shape, _) in json.loads((LAYOUTS / "keys_torchvision_r3d_18.json").read_text())["keys"].items():
        key = key.replace("stem.0.", "conv1.").replace("stem.1.", "bn1.")
        key = re.sub(r"\.conv(\d)\.0\.", r".conv\1.", key)
        key = re.sub(r"\.conv(\d)\.1\.", r".bn\1.", key)
        renamed[("head." if key.startswith("fc.") else "backbone.") + key] = shape
    assert own == renamed


def convolved(x: Tensor, conv: nn.Conv3d) -> Tensor:
    """A grouped 3D convolution as a sum over its window."""
    (kt, kh, kw), (st, sh, sw) = conv.kernel_size, conv.stride
    pt, ph, pw = (int(p) for p in conv.padding)
    windows = F.pad(x, (pw, pw, ph, ph, pt, pt)).unfold(2, kt, st).unfold(3, kh, sh).unfold(4, kw, sw)
    parts = [torch.einsum("bcthwijk,ocijk->bothw", part, weight)
             for part, weight in zip(windows.chunk(conv.groups, 1), conv.weight.chunk(conv.groups, 0), strict=True)]
    return torch.cat(parts, 1)


def normalized(x: Tensor, bn: nn.BatchNorm3d) -> Tensor:
    axes, shape = (0, 2, 3, 4), (1, -1, 1, 1, 1)
    mean = x.mean(axes, keepdim=True)
    variance = ((x - mean) ** 2).mean(axes, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * bn.weight.reshape(shape) + bn.bias.reshape(shape)


@pytest.mark.parametrize(("times", "out", "stride", "groups"), [
    ((3, 3), 6, (1, 1), 1), ((3, 3), 8, (2, 2), 1), ((1, 3, 1), 12, (2, 2), 1), ((1, 3, 1), 6, (1, 1), 3),
    ((3, 1, 1), 6, (1, 2), 1), ((3, 1, 1), 6, (1, 1), 1),
])
def test_block_is_its_equation(times: tuple[int, ...], out: int, stride: tuple[int, int], groups: int) -> None:
    torch.manual_seed(0)
    block = Block3d(6, 6, out, times, stride, groups).double().train()
    for m in block.modules():
        if isinstance(m, nn.BatchNorm3d):
            nn.init.normal_(m.weight)
            nn.init.normal_(m.bias)
    x = torch.randn(2, 6, 5, 7, 6, dtype=torch.float64)
    y = normalized(convolved(x, block.conv1), block.bn1).clamp(min=0)
    y = normalized(convolved(y, block.conv2), block.bn2)
    if len(times) == 3:
        y = normalized(convolved(y.clamp(min=0), block.conv3), block.bn3)
    skip = x
    if block.downsample is not None:
        conv, bn = block.downsample
        assert isinstance(conv, nn.Conv3d)
        assert isinstance(bn, nn.BatchNorm3d)
        skip = normalized(convolved(x, conv), bn)
    assert (block.downsample is None) == (out == 6 and stride == (1, 1))
    before = x.clone()
    torch.testing.assert_close(block(x), (y + skip).clamp(min=0), atol=1e-10, rtol=1e-10)
    assert torch.equal(x, before)  # what is done in place is not done to the input


def test_gradient_of_the_block_is_right_though_it_adds_in_place() -> None:
    torch.manual_seed(0)
    block = Block3d(2, 2, 4, (1, 3, 1), (2, 2)).double().train()
    x = torch.randn(2, 2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))
    same = Block3d(2, 2, 2, (3, 3)).double().train()
    assert torch.autograd.gradcheck(same, (x,))


def test_head_is_the_mean_of_everything() -> None:
    head = PooledLogits(3, 4).double()
    x = torch.randn(2, 3, 2, 5, 4, dtype=torch.float64)
    expected = x.flatten(2).sum(2) / 40 @ head.fc.weight.T + head.fc.bias
    torch.testing.assert_close(head(x), expected)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "res3d18"])
def test_any_extents(backbone: str) -> None:
    net = networks.build("r3d", backbone=backbone, classes=3, channels=1, width=0.0625).eval()
    for frames, height, width in ((1, 1, 1), (2, 33, 47), (3, 112, 7), (7, 45, 45)):
        clip = torch.zeros(1, 1, frames, height, width)
        with torch.no_grad():
            maps = net.observe(clip, list(net.stages)).maps
        for stage, declared in net.stages.items():
            assert maps[stage].shape == (1, *declared.shape(frames, height, width)), stage


def test_published_extents() -> None:
    net = networks.build("r3d", backbone="resnet50", classes=83, channels=3, width=0.125)
    assert [s.shape(16, 112, 112)[1:] for s in net.stages.values()] == [
        (8, 28, 28), (8, 28, 28), (4, 14, 14), (2, 7, 7), (1, 4, 4)]
    net = networks.build("r3d", backbone="res3d18", classes=83, channels=3, width=0.125)
    assert [s.shape(8, 112, 112)[1:] for s in net.stages.values()] == [
        (8, 56, 56), (8, 56, 56), (4, 28, 28), (2, 14, 14), (1, 7, 7)]


def test_compiles_with_recomputing_too() -> None:
    net = networks.build("r3d", classes=3, channels=1, width=0.0625, checkpointing=True).train()
    torch._dynamo.reset()
    out = torch.compile(net, fullgraph=True, backend="eager")(torch.rand(2, 1, 2, 17, 17))
    out.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_wrong_options_are_told() -> None:
    with pytest.raises(ModaliftError, match=r"unknown backbone 'resnet19' of network 'r3d'.*did you mean 'resnet18'"):
        networks.build("r3d", classes=3, channels=3, backbone="resnet19")
    with pytest.raises(ModaliftError, match=r"network\.width = 0\.0: must be above 0"):
        networks.build("r3d", classes=3, channels=3, width=0.0)


@pytest.mark.parametrize(("kernel", "frames"), [((3, 3, 3), 2), ((3, 1, 1), 2), ((7, 3, 3), 4), ((3, 3, 3), 1), ((3, 3, 3), 3)])
def test_short_clips_get_right_gradients_in_half_precision(kernel: tuple[int, int, int], frames: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv3d(32, 32, kernel, padding=tuple(k // 2 for k in kernel), bias=False)
    x = torch.randn(2, 32, frames, 8, 8, requires_grad=True)
    conv(x).square().sum().backward()
    want = x.grad, conv.weight.grad
    x.grad = conv.weight.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        convolve(conv, x).square().sum().backward()
    for a, b in zip((x.grad, conv.weight.grad), want, strict=True):
        assert a is not None
        assert b is not None
        assert (a - b).norm() < 0.05 * b.norm()


def test_a_graph_of_checkpointed_parts_serves_twice() -> None:
    net = networks.build("r3d", classes=3, channels=1, width=0.0625, checkpointing=True).train()
    loss = net(torch.rand(2, 1, 2, 17, 17) * 255).square().sum()
    first = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    statistics = [b.clone() for b in net.buffers()]
    for a, b in zip(first, torch.autograd.grad(loss, list(net.parameters())), strict=True):
        torch.testing.assert_close(a, b)
    assert all(torch.equal(a, b) for a, b in zip(statistics, net.buffers(), strict=True))
