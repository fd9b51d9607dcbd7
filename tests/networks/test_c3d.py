"""C3D: the published counts, the published windows, and clips that the published code refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks.c3d import C3D, POOLS, Pool, pooled_extent
from modalift.networks.cost import cost, legacy_flops

LAYOUTS = Path(__file__).resolve().parents[2] / ".." / "shared" / "specs" / "state_dicts"
real_layouts = pytest.mark.skipif(not LAYOUTS.exists(), reason="../shared with the real layouts of keys is absent")


@pytest.mark.parametrize(("classes", "parameters", "macs"), [
    (25, 78_098_201, 38_547_066_880), (83, 78_335_827, 38_547_304_448), (249, 79_015_929, 38_547_984_384),
    (101, 78_409_573, 38_547_378_176), (400, 79_634_576, 38_548_602_880),
])
def test_costs_of_the_standard_one(classes: int, parameters: int, macs: int) -> None:
    with torch.device("meta"):
        net = networks.build("c3d", classes=classes, frames=16, size=112)
    found = cost(net, 16, 112)
    assert (found.parameters, found.macs) == (parameters, macs)


def test_costs_of_the_gesture_variant() -> None:
    with torch.device("meta"):
        net = networks.build("c3d", classes=83, frames=32, size=112, variant="gesrec")
    found = cost(net, 32, 112)
    assert (found.parameters, found.macs) == (65_584_339, 71_482_120_192)
    assert round(legacy_flops(net, 32, 112) / 1e9, 4) == 71.7029


@pytest.mark.parametrize(("frames", "classes", "millions", "giga"), [
    (16, 25, 78.1037, 32.9980), (16, 83, 78.3413, 32.9982), (16, 249, 79.0214, 32.9989),
    (32, 25, 111.6581, 71.5282), (32, 83, 111.8958, 71.5284), (32, 249, 112.5759, 71.5291),
])
def test_costs_with_wider_layers(frames: int, classes: int, millions: float, giga: float) -> None:
    with torch.device("meta"):
        net = networks.build("c3d", classes=classes, frames=frames, size=112, variant="gesrec", hidden=4096)
    found = cost(net, frames, 112)
    assert (round(found.parameters / 1e6, 4), round(found.macs / 1e9, 4)) == (millions, giga)


@real_layouts
@pytest.mark.parametrize(("layout", "options", "classes"), [
    ("jfzhang95_c3d_487", {"frames": 16}, 487), ("gesrec_c3d_32f_83", {"frames": 32, "variant": "gesrec"}, 83),
])
def test_names_and_shapes_are_those_of_real_files(layout: str, options: dict[str, object], classes: int) -> None:
    keys = json.loads((LAYOUTS / f"keys_{layout}.json").read_text())["keys"]
    with torch.device("meta"):
        net = networks.build("c3d", classes=classes, size=112, **options)
    own = {k.removeprefix("backbone.").removeprefix("head."): list(v.shape) for k, v in net.state_dict().items()
           if not k.startswith("prepare.")}
    last = "fc8" if "fc8.weight" in keys else "fc.0"
    own = {k.replace("fc.", f"{last}.") if k.startswith("fc.") else k: shape for k, shape in own.items()}
    assert own == {k.removeprefix("module."): shape for k, (shape, _) in keys.items()}


def literal(net: networks.Recognizer, x: Tensor, variant: str) -> dict[str, Tensor]:
    """The published sequence of layers, with plain poolings and the network's own weights."""
    state = {k.removeprefix("backbone."): v for k, v in net.state_dict().items()}
    maps = {}
    groups = [["1"], ["2"], ["3a", "3b"], ["4a", "4b"], ["5a", "5b"]]
    for i, convolutions in enumerate(groups):
        for j, name in enumerate(convolutions):
            here = f"conv{name}" if variant == "standard" else f"group{i + 1}.{3 * j}"
            x = functional.conv3d(x, state[f"{here}.weight"], state[f"{here}.bias"], padding=1)
            if variant == "gesrec":
                norm = f"group{i + 1}.{3 * j + 1}"
                x = functional.batch_norm(x, state[f"{norm}.running_mean"], state[f"{norm}.running_var"],
                                          state[f"{norm}.weight"], state[f"{norm}.bias"], eps=1e-5)
            x = functional.relu(x)
        maps[f"conv{i + 1}"] = x
        if variant == "standard":
            pool = [nn.MaxPool3d((1, 2, 2), (1, 2, 2)), *3 * [nn.MaxPool3d(2, 2)], nn.MaxPool3d(2, 2, padding=(0, 1, 1))][i]
        else:
            pool = [nn.MaxPool3d(2, (1, 2, 2)), *3 * [nn.MaxPool3d(2, 2)],
                    nn.MaxPool3d((1, 2, 2), 2, padding=(0, 1, 1))][i]
        x = pool(x)
    maps["pool5"] = x
    first, second = ("fc6", "fc7") if variant == "standard" else ("fc1.0", "fc2.0")
    y = x.flatten(1)
    for name in (first, second):
        y = functional.relu(functional.linear(y, state[f"head.{name}.weight"], state[f"head.{name}.bias"]))
    maps["logits"] = functional.linear(y, state["head.fc.weight"], state["head.fc.bias"])
    return maps


@pytest.mark.parametrize(("variant", "frames"), [("standard", 16), ("gesrec", 32), ("gesrec", 16)])
def test_equals_the_published_layers(variant: str, frames: int) -> None:
    torch.manual_seed(0)
    net = networks.build("c3d", classes=5, frames=frames, size=112, variant=variant, width=1 / 64).double().eval()
    clip = torch.rand(1, 3, frames, 112, 112, dtype=torch.float64) * 255
    with torch.no_grad():
        seen = net.observe(clip, list(net.stages))
        wanted = literal(net, net.prepare(clip), variant)
    torch.testing.assert_close(seen.logits, wanted.pop("logits"))
    assert list(wanted) == list(net.stages)
    for name, value in wanted.items():
        torch.testing.assert_close(seen.maps[name], value)
    assert seen.maps["pool5"].shape == (1, 8, frames // 16, 4, 4)


def test_maps_of_the_paper() -> None:
    stages = networks.build("c3d", classes=2, frames=16, size=112, hidden=1).stages
    assert stages["pool5"].shape(16, 112, 112) == (512, 1, 4, 4)
    assert stages["conv5"].shape(16, 112, 112) == (512, 2, 7, 7)
    gesture = networks.build("c3d", classes=2, frames=32, size=112, hidden=1, variant="gesrec").stages
    times = [s.shape(32, 112, 112)[1] for s in gesture.values()]
    assert times == [32, 31, 15, 7, 3, 2]


@pytest.mark.parametrize("variant", ["standard", "gesrec"])
def test_poolings_are_plain_where_those_work_and_never_leave_nothing(variant: str) -> None:
    for kernel, stride, padding in POOLS[variant]:
        own = Pool(kernel, stride, padding)
        plain = nn.MaxPool3d(kernel, stride, padding)
        for extent in range(1, 12):
            x = torch.randn(1, 1, extent, extent, extent + 1)
            y = own(x)
            assert min(y.shape) >= 1
            if all(n + 2 * p >= k for n, p, k in zip(x.shape[2:], padding, kernel, strict=True)):
                assert torch.equal(y, plain(x))
            assert list(y.shape[2:]) == [pooled_extent(n, ((k, s, p),)) for n, k, s, p
                                         in zip(x.shape[2:], kernel, stride, padding, strict=True)]


@pytest.mark.parametrize("variant", ["standard", "gesrec"])
def test_other_clips_are_brought_to_the_grid_it_was_built_for(variant: str) -> None:
    torch.manual_seed(0)
    net = networks.build("c3d", classes=5, frames=16, size=112, variant=variant, width=1 / 64).eval()
    for frames, height, width in ((1, 32, 32), (3, 45, 70), (24, 128, 120)):
        clip = torch.rand(1, 3, frames, height, width) * 255
        with torch.no_grad():
            seen = net.observe(clip, ["pool5"])
            assert seen.maps["pool5"].shape[1:] == net.stages["pool5"].shape(frames, height, width)
            grid = functional.adaptive_avg_pool3d(seen.maps["pool5"], (1, 4, 4))
            torch.testing.assert_close(seen.logits, net.head(grid))


def test_width_and_bad_options() -> None:
    thin = networks.build("c3d", classes=5, frames=16, size=112, width=0.25)
    assert [s.channels for s in thin.stages.values()] == [16, 32, 64, 128, 128, 128]
    assert thin.head.fc.in_features == 1024
    with pytest.raises(ModaliftError, match="'standard' or 'gesrec'"):
        networks.build("c3d", classes=5, variant="gesrek")
    with pytest.raises(ModaliftError, match="did you mean 'gesrec'"):
        C3D(3, "gesrek")
    with pytest.raises(ModaliftError, match="width = 0: must be above 0"):
        networks.build("c3d", classes=5, width=0)
