"""The temporal shift, the trunk, the heads: against literal readings of their definitions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks.cost import cost, legacy_flops
from modalift.networks.heads import CausalHead, MeanLogits, OrderedHead, bin_weights
from modalift.networks.resnet import ResNet
from modalift.networks.shift import shift

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"


def literal_shift(x: Tensor, frames: int, part: int, causal: bool) -> Tensor:
    clip = x.reshape(-1, frames, *x.shape[1:])
    f, y = x.shape[1] // part, torch.zeros_like(clip)
    for t in range(frames):
        for c in range(x.shape[1]):
            source = t
            if causal and c < f:
                source = t - 1
            elif not causal and c < 2 * f:
                source = t + 1 if c < f else t - 1
            if 0 <= source < frames:
                y[:, t, c] = clip[:, source, c]
    return y.reshape(x.shape)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("frames", "channels", "part"), [(1, 16, 8), (2, 16, 8), (5, 19, 4), (3, 7, 8)])
def test_shift_is_the_definition(frames: int, channels: int, part: int, channels_last: bool, causal: bool) -> None:
    x = torch.randn(2 * frames, channels, 3, 4)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    y = shift(x, frames, part, causal)
    assert torch.equal(y, literal_shift(x, frames, part, causal))
    assert y.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def test_shift_does_not_reach_into_another_clip() -> None:
    x = torch.zeros(4, 8, 1, 1)
    x[2:] = 1.0  # the second clip of two
    assert shift(x, 2)[:2].abs().sum() == 0


def test_shift_passes_gradcheck() -> None:
    x = torch.randn(3, 8, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: shift(t, 3, 4), x)
    assert torch.autograd.gradcheck(lambda t: shift(t, 3, 4, True), x)


def test_residual_shift_leaves_the_skip_path_alone() -> None:
    # With all convolutions of a block at zero the block is its skip path: frames must not have moved.
    for placement, moved in (("residual", False), ("block", True)):
        trunk = ResNet(3, "resnet18", 16, placement).eval()  # type: ignore[arg-type]
        block = trunk.layer1[0]  # type: ignore[index]
        torch.nn.init.zeros_(block.conv1.weight)
        torch.nn.init.zeros_(block.conv2.weight)
        x = torch.rand(4, 16, 5, 5)
        assert torch.equal(block(x, 4), x) is not moved


def test_without_shift_frames_are_seen_apart() -> None:
    net = networks.build("tsn", backbone="resnet18", width=0.125, classes=3, channels=3).eval()
    clip = torch.rand(2, 3, 4, 40, 40) * 255
    with torch.no_grad():
        apart = torch.stack([net(f) for f in clip.split(1, 2)]).mean(0)
        torch.testing.assert_close(net(clip), apart)
        torch.testing.assert_close(net(clip), net(clip.flip(2)))


def test_average_is_over_logits_of_frames() -> None:
    head = MeanLogits(6, 3).eval()
    x = torch.randn(2, 6, 4, 3, 3)
    each = torch.stack([x[:, :, t].mean((2, 3)) @ head.fc.weight.T + head.fc.bias for t in range(4)])
    torch.testing.assert_close(head(x), each.mean(0))


@pytest.mark.parametrize(("frames", "bins"), [(16, 4), (7, 4), (3, 4), (1, 4), (5, 1)])
def test_spans_are_adaptive_pooling(frames: int, bins: int) -> None:
    u = torch.randn(2, 3, frames)
    torch.testing.assert_close(u @ bin_weights(frames, bins, u.device), torch.nn.functional.adaptive_avg_pool1d(u, bins))


def test_ordered_heads_tell_a_movement_from_its_reverse() -> None:
    x = torch.randn(1, 8, 8, 2, 2)
    for head in (OrderedHead(8, 4).eval(), CausalHead(8, 4, 8).eval()):
        assert (head(x) - head(x.flip(2))).abs().max() > 1e-3


def test_causal_head_slides_over_the_last_frames() -> None:
    head, x = CausalHead(4, 3, frames=6, bins=3).eval(), torch.randn(2, 4, 9, 1, 1)
    u = torch.relu(head.bn(head.conv(torch.nn.functional.pad(x.flatten(2), (2, 0)))))
    spans_of_two = torch.stack([u[..., k : k + 2].mean(2) for k in (3, 5, 7)], 2)
    torch.testing.assert_close(head(x), head.fc(spans_of_two.flatten(1)))
    # A clip shorter than the window: what was before it counts as nothing.
    short = torch.stack([u[..., :1].sum(2) * 0, u[..., :1].sum(2) / 2, u[..., 1:3].mean(2)], 2)
    torch.testing.assert_close(head(x[:, :, :3]), head.fc(short.flatten(1)))


def test_causal_network_ignores_the_future() -> None:
    net = networks.build("small", classes=3, view="thermal", size=32, causal=True, motion="running").eval()
    clip = torch.rand(1, 1, 6, 32, 32) * 255
    other = clip.clone()
    other[:, :, 4:] = 0
    with torch.no_grad():
        for stage in net.stages:
            a, b = net.observe(clip, [stage]).maps[stage], net.observe(other, [stage]).maps[stage]
            torch.testing.assert_close(a[:, :, :4], b[:, :, :4])
            assert not torch.allclose(a[:, :, 4:], b[:, :, 4:])


def test_small_is_small() -> None:
    for options in ({"motion": "clip"}, {"motion": "running", "causal": True}):
        net = networks.build("small", classes=83, view="rgb", size=64, **options)
        assert cost(net, frames=16, size=64).parameters < 1_500_000


@pytest.mark.parametrize(("options", "part"), [
    ({"causal": True, "motion": "clip"}, "motion='running'"), ({"width": 0}, "width = 0"), ({"bins": 0}, "bins = 0"),
    ({"shift_div": 1}, "shift_div = 1"),
])
def test_small_refuses_what_makes_no_sense(options: dict, part: str) -> None:
    with pytest.raises(ModaliftError, match=part):
        networks.build("small", classes=3, view="depth", **options)


@pytest.mark.parametrize(("options", "part"), [
    ({"backbone": "resnet81"}, "did you mean 'resnet8'"),
    ({"placement": "residul"}, "Input should be 'residual' or 'block'"),
    ({"width": 0.0}, "width = 0"),
])
def test_tsm_refuses_what_makes_no_sense(options: dict, part: str) -> None:
    with pytest.raises(ModaliftError, match=part):
        networks.build("tsm", classes=3, view="rgb", **options)


@pytest.mark.parametrize(("options", "part"), [
    ({"backbone": "resnet35"}, "did you mean 'resnet"), ({"width": -1.0}, "width = -1"),
])
def test_tsn_refuses_what_makes_no_sense(options: dict, part: str) -> None:
    with pytest.raises(ModaliftError, match=part):
        networks.build("tsn", classes=3, view="rgb", **options)


#: Parameters, multiply-accumulates of 8 frames of 224 pixels, and billions by the counter of the MSD paper.
COUNTS = {
    "TSM_R50_83_8f": ("resnet50", 83, 23_678_099, 32_698_449_920, 28.2),
    "TSN_resnet18_10_8f": ("resnet18", 10, 11_181_642, 14_508_531_712, 12.6686),
    "TSN_resnet18_51_8f": ("resnet18", 51, 11_202_675, 14_508_699_648, 12.6689),
    "TSN_resnet34_10_8f": ("resnet34", 10, 21_289_802, 29_306_036_224, 27.4962),
    "TSN_resnet50_10_8f": ("resnet50", 10, 23_528_522, 32_697_253_888, 28.1976),
}


@pytest.mark.parametrize("row", COUNTS)
@pytest.mark.parametrize(("name", "options"), [("tsn", {}), ("tsm", {}), ("tsm", {"placement": "block"})])
def test_counts_are_the_published_ones(row: str, name: str, options: dict) -> None:
    backbone, classes, parameters, macs, legacy = COUNTS[row]
    net = networks.build(name, backbone=backbone, classes=classes, channels=3, frames=8, **options)
    found = cost(net, frames=8, size=224)
    assert (found.parameters, found.macs) == (parameters, macs)
    assert round(legacy_flops(net, frames=8, size=224) / 1e9, 4) == legacy


@pytest.mark.skipif(not SHARED.exists(), reason="../shared with the reference counts is absent")
def test_counts_stand_in_the_specification() -> None:
    wanted = json.loads((SHARED / "specs" / "acceptance.json").read_text())
    for row, (_, _, parameters, macs, legacy) in COUNTS.items():
        given = wanted[row]
        assert (given["params"], given["conv_linear_MACs"], given["legacy_no_pool_G"]) == (parameters, macs, legacy)


@pytest.mark.parametrize(("backbone", "classes", "parameters", "macs"), [
    ("resnet18", 83, 11.2191, 14.5088), ("resnet34", 83, 21.3273, 29.3063), ("resnet50", 25, 23.5593, 32.6975),
    ("resnet50", 83, 23.6781, 32.6984), ("resnet50", 249, 24.0182, 32.7012), ("resnet50", 400, 24.3276, 32.7036),
])
def test_counts_are_those_measured_of_public_code(backbone: str, classes: int, parameters: float, macs: float) -> None:
    found = cost(networks.build("tsn", backbone=backbone, classes=classes, channels=3, frames=8), frames=8, size=224)
    assert (round(found.parameters / 1e6, 4), round(found.macs / 1e9, 4)) == (parameters, macs)


def test_maps_are_of_the_published_shapes() -> None:
    stages = networks.build("tsm", backbone="resnet50", classes=83, channels=3, frames=8).stages
    shapes = {name: stage.shape(8, 224, 224) for name, stage in stages.items()}
    assert shapes == {"stem": (64, 8, 56, 56), "layer1": (256, 8, 56, 56), "layer2": (512, 8, 28, 28),
                      "layer3": (1024, 8, 14, 14), "layer4": (2048, 8, 7, 7)}


@pytest.mark.parametrize("name", ["tsm", "tsn"])
def test_the_deepest_layout(name: str) -> None:
    with torch.device("meta"):
        net = networks.build(name, backbone="resnet101", classes=1000, channels=3)
    assert sum(p.numel() for p in net.parameters()) == 44_549_160
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        placements = [block.placement for block in getattr(net.backbone, stage)]
        assert placements == [("residual" if name == "tsm" and i % 2 == 0 else "none") for i in range(len(placements))]


@pytest.mark.parametrize("placement", ["residual", "block"])
@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("size", [(45, 33), (1, 1)])
def test_networks_are_the_definition(placement: str, frames: int, size: tuple[int, int]) -> None:
    # Every frame through the same layers, with the shift of equation above read literally; a batch of one.
    torch.manual_seed(0)
    net = networks.build("tsm", backbone="resnet50", width=0.25, classes=3, channels=2, frames=frames, placement=placement)
    net = net.double().eval()
    clip = torch.rand(1, 2, frames, *size, dtype=torch.float64) * 255
    trunk = net.backbone
    x = net.prepare(clip).transpose(1, 2).flatten(0, 1)
    x = torch.nn.functional.max_pool2d(trunk.bn1(trunk.conv1(x)).relu(), 3, 2, 1)
    for block in [b for stage in ("layer1", "layer2", "layer3", "layer4") for b in getattr(trunk, stage)]:
        moved = literal_shift(x, frames, 8, False)
        y = block.bn2(block.conv2(block.bn1(block.conv1(moved)).relu())).relu()
        skip = moved if placement == "block" else x
        x = (block.bn3(block.conv3(y)) + (skip if block.downsample is None else block.downsample(skip))).relu()
    want = torch.stack([net.head.fc(f.mean((1, 2))) for f in x]).mean(0)
    with torch.no_grad():
        torch.testing.assert_close(net(clip)[0], want)
