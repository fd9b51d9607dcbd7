"""3D ResNeXt-101: published costs to the integer, names and extents as in real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks.cost import cost, legacy_flops

LAYOUTS = Path(__file__).resolve().parents[2] / ".." / "shared" / "specs" / "state_dicts"
real_layouts = pytest.mark.skipif(not LAYOUTS.exists(), reason="../shared with the real layouts of keys is absent")


@pytest.mark.parametrize(("classes", "frames", "parameters", "macs"), [
    (25, 16, 47_572_441, 9_566_947_328), (25, 32, 47_572_441, 19_133_843_456),
    (83, 16, 47_691_283, 9_567_066_112), (83, 32, 47_691_283, 19_133_962_240),
    (249, 16, 48_031_417, 9_567_406_080), (249, 32, 48_031_417, 19_134_302_208),
])
def test_cost_is_the_published_codes(classes: int, frames: int, parameters: int, macs: int) -> None:
    with torch.device("meta"):
        net = networks.build("resnext101_3d", classes=classes, channels=3)
    told = cost(net, frames, 112)
    assert (told.parameters, told.macs) == (parameters, macs)


def test_the_column_of_the_paper() -> None:
    net = networks.build("resnext101_3d", classes=83, channels=3)
    assert round(legacy_flops(net, 32, 112) / 1e9, 4) == 13.8505  # printed: 13.9


@real_layouts
def test_names_are_those_of_real_files() -> None:
    net = networks.build("resnext101_3d", classes=83, channels=3)
    own = {k: list(v.shape) for k, v in net.state_dict().items() if not k.startswith("prepare.")}
    keys = json.loads((LAYOUTS / "keys_gesrec_resnext101_32f_83.json").read_text())["keys"]
    names = {key: key.removeprefix("module.") for key in keys}
    assert own == {("head." if n.startswith("fc.") else "backbone.") + n: keys[key][0] for key, n in names.items()}


def test_published_extents() -> None:
    net = networks.build("resnext101_3d", classes=83, channels=3)
    assert [s.shape(32, 112, 112) for s in net.stages.values()] == [
        (64, 16, 28, 28), (256, 16, 28, 28), (512, 8, 14, 14), (1024, 4, 7, 7), (2048, 2, 4, 4)]


@pytest.mark.parametrize(("frames", "size"), [(1, 1), (2, 45), (3, 33)])
def test_any_extents(frames: int, size: int) -> None:
    net = networks.build("resnext101_3d", classes=3, channels=2, width=0.0625, groups=2).eval()
    with torch.no_grad():
        seen = net.observe(torch.zeros(1, 2, frames, size, size), list(net.stages))
    assert seen.logits.shape == (1, 3)
    assert all(seen.maps[k].shape == (1, *s.shape(frames, size, size)) for k, s in net.stages.items())


def test_a_narrow_one_keeps_a_channel_in_every_group() -> None:
    net = networks.build("resnext101_3d", classes=3, channels=3, width=0.125)
    convs = [m for m in net.modules() if isinstance(m, torch.nn.Conv3d) and m.groups > 1]
    assert len(convs) == 33
    assert {(m.groups, m.out_channels) for m in convs} == {(32, 32), (32, 64), (32, 128)}


def test_wrong_options_are_told() -> None:
    with pytest.raises(ModaliftError, match=r"network\.groups = 0: must be 1 or more"):
        networks.build("resnext101_3d", classes=3, channels=3, groups=0)
    with pytest.raises(ModaliftError, match=r"network\.width = -1\.0: must be above 0"):
        networks.build("resnext101_3d", classes=3, channels=3, width=-1.0)
