"""The inflated ResNet-50: published costs to the digit, one set of weights for both strides, names as in real files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks.cost import cost

LAYOUTS = Path(__file__).resolve().parents[2] / ".." / "shared" / "specs" / "state_dicts"
real_layouts = pytest.mark.skipif(not LAYOUTS.exists(), reason="../shared with the real layouts of keys is absent")


@pytest.mark.parametrize(("options", "classes", "frames", "size", "parameters", "macs"), [
    ({}, 10, 8, 224, 27_244_362, 28_406_861_824),
    ({}, 10, 16, 224, 27_244_362, 56_813_703_168),
    ({}, 10, 32, 224, 27_244_362, 113_627_385_856),
    ({}, 10, 8, 112, 27_244_362, 7_349_456_896),
    ({}, 25, 8, 224, 27_275_097, 28_406_892_544),
    ({"strides": "mmaction2"}, 10, 16, 224, 27_244_362, 16_563_720_192),
    ({"strides": "mmaction2"}, 10, 32, 224, 27_244_362, 33_127_419_904),
    ({"strides": "mmaction2"}, 400, 32, 224, 28_043_472, 33_128_218_624),
    ({"strides": "mmaction2", "pattern": "heavy"}, 400, 32, 224, 33_433_808, 39_088_324_608),
    ({"pattern": "slowonly"}, 400, 8, 224, 32_454_096, 41_740_828_672),
    ({"pattern": "slowonly", "strides": "mmaction2"}, 400, 8, 224, 32_454_096, 41_740_828_672),
])
def test_cost_is_the_published_codes(options: dict[str, Any], classes: int, frames: int, size: int, parameters: int,
                                     macs: int) -> None:
    with torch.device("meta"):
        net = networks.build("i3d_resnet50", classes=classes, channels=3, **options)
    told = cost(net, frames, size)
    assert (told.parameters, told.macs) == (parameters, macs)


@real_layouts
@pytest.mark.parametrize(("layout", "pattern"), [
    ("mmaction2_i3d_r50", "i3d"), ("mmaction2_i3d_r50_heavy", "heavy"), ("mmaction2_slowonly_r50", "slowonly")])
def test_names_are_those_of_real_files(layout: str, pattern: str) -> None:
    net = networks.build("i3d_resnet50", classes=400, channels=3, pattern=pattern)
    own = {k: list(v.shape) for k, v in net.state_dict().items() if not k.startswith("prepare.")}
    renamed = {}
    for key, (shape, _) in json.loads((LAYOUTS / f"keys_{layout}.json").read_text())["keys"].items():
        key = key.replace("downsample.conv.", "downsample.0.").replace("downsample.bn.", "downsample.1.")
        key = re.sub(r"\.conv(\d)\.conv\.", r".conv\1.", key)
        key = re.sub(r"\.conv(\d)\.bn\.", r".bn\1.", key)
        renamed[key.replace("cls_head.fc_cls.", "head.fc.")] = shape
    assert own == renamed


@real_layouts
def test_names_are_those_of_the_2d_network() -> None:
    net = networks.build("i3d_resnet50", classes=1000, channels=3)
    own = {k.removeprefix("backbone.").removeprefix("head."): v.shape for k, v in net.state_dict().items()
           if not k.startswith("prepare.")}
    flat = json.loads((LAYOUTS / "keys_torchvision_resnet50.json").read_text())["keys"]
    assert set(own) == set(flat)
    assert all([*own[k][:2], *own[k][3:]] == flat[k][0] for k in own if own[k] and len(own[k]) == 5)


def test_both_strides_take_the_same_weights() -> None:
    a, b = (networks.build("i3d_resnet50", classes=3, channels=3, width=0.125, strides=s) for s in ("slowfast", "mmaction2"))
    b.load_state_dict(a.state_dict())


@pytest.mark.parametrize(("options", "times"), [
    ({"strides": "slowfast"}, [32, 32, 16, 16, 16]), ({"strides": "mmaction2"}, [8, 8, 4, 4, 4]),
    ({"pattern": "slowonly"}, [32, 32, 32, 32, 32])])
def test_published_extents(options: dict[str, Any], times: list[int]) -> None:
    net = networks.build("i3d_resnet50", classes=3, channels=3, width=0.125, **options)
    shapes = [s.shape(32, 224, 224)[1:] for s in net.stages.values()]
    assert shapes == [(t, s, s) for t, s in zip(times, (56, 56, 28, 14, 7), strict=True)]


def test_which_convolutions_reach_over_time() -> None:
    def reaching(pattern: str) -> dict[str, int]:
        net = networks.build("i3d_resnet50", classes=3, channels=3, width=0.125, pattern=pattern)
        return {k: m.kernel_size[0] for k, m in net.backbone.named_modules()
                if isinstance(m, nn.Conv3d) and m.kernel_size[0] > 1}

    blocks = ["1.0", "1.1", "1.2", "2.0", "2.2", "3.0", "3.2", "3.4", "4.1"]
    assert reaching("i3d") == {"conv1": 5} | {f"layer{b}.conv1": 3 for b in blocks}
    assert reaching("heavy") == {"conv1": 5} | {f"layer{b}.conv2": 3 for b in blocks}
    assert reaching("slowonly") == {f"layer{i}.{j}.conv1": 3 for i, n in ((3, 6), (4, 3)) for j in range(n)}


@pytest.mark.parametrize("frames", [2, 4, 6, 8])
def test_pairs_are_pooled_as_published_for_even_clips(frames: int) -> None:
    pool = networks.build("i3d_resnet50", classes=3, channels=3, width=0.125).backbone.pool2
    x = torch.randn(1, 2, frames, 3, 3)
    assert isinstance(pool, nn.Module)
    assert torch.equal(pool(x), F.max_pool3d(x, (2, 1, 1), (2, 1, 1)))
    longer = torch.cat([x, x[:, :, :1]], 2)  # an odd clip: one more frame, which is the last
    assert torch.equal(pool(longer), torch.cat([pool(x), x[:, :, :1]], 2))


@pytest.mark.parametrize("options", [{}, {"strides": "mmaction2"}, {"pattern": "heavy"}, {"pattern": "slowonly"}])
@pytest.mark.parametrize(("frames", "size"), [(1, 1), (2, 45), (3, 33), (8, 112)])
def test_any_extents(options: dict[str, Any], frames: int, size: int) -> None:
    net = networks.build("i3d_resnet50", classes=3, channels=2, width=0.0625, **options).eval()
    with torch.no_grad():
        seen = net.observe(torch.zeros(1, 2, frames, size, size), list(net.stages))
    assert seen.logits.shape == (1, 3)
    assert all(seen.maps[k].shape == (1, *s.shape(frames, size, size)) for k, s in net.stages.items())


def test_an_inflated_network_sees_a_still_clip_as_the_2d_one_sees_its_frame() -> None:
    # Away from the first and last frames, which the padding with zeros reaches: with weights W_2D / k over k frames.
    torch.manual_seed(0)
    deep = networks.build("i3d_resnet50", classes=3, channels=1, width=0.125, mean=[0.0], std=[1.0]).double().eval()
    flat = networks.build("tsn", backbone="resnet50", classes=3, channels=1, width=0.125,
                          mean=[0.0], std=[1.0]).double().eval()
    own = deep.state_dict()
    for key, value in flat.backbone.state_dict().items():
        target = own[f"backbone.{key}"]
        target.copy_(value.unsqueeze(2).expand_as(target) / target.shape[2] if target.dim() == 5 else value)
    frame = torch.randn(1, 1, 1, 33, 40, dtype=torch.float64)
    with torch.no_grad():
        seen = deep.observe(frame.expand(-1, -1, 48, -1, -1), ["layer1", "layer4"]).maps
        expected = flat.observe(frame, ["layer1", "layer4"]).maps
    torch.testing.assert_close(seen["layer1"][:, :, 24:25], expected["layer1"])
    torch.testing.assert_close(seen["layer4"][:, :, 12:13], expected["layer4"])
    assert not torch.allclose(seen["layer4"][:, :, :1], expected["layer4"])


def test_wrong_options_are_told() -> None:
    with pytest.raises(ModaliftError, match=r"'mmaction'.*mmaction2"):
        networks.build("i3d_resnet50", classes=3, channels=3, strides="mmaction")
    with pytest.raises(ModaliftError, match=r"'slow'.*slowonly"):
        networks.build("i3d_resnet50", classes=3, channels=3, pattern="slow")
    with pytest.raises(ModaliftError, match=r"network\.width = 0\.0: must be above 0"):
        networks.build("i3d_resnet50", classes=3, channels=3, width=0.0)
