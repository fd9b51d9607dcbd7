"""What is changed to fit when weights load, what is left out, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks import NETWORKS, NetworkSpec, Recognizer, load_weights
from modalift.networks.heads import MeanLogits
from modalift.networks.resnet import ResNet
from modalift.networks.weight_formats import FORMATS
from modalift.networks.weights import formats_for, to_torchvision


def tiny(family: str = "tsm", classes: int = 5, channels: int = 3, **options: Any) -> Recognizer:
    torch.manual_seed(3)
    if family in ("tsm", "r3d"):
        options = {"backbone": "resnet18", **options}
    return networks.build(family, **({"width": 0.125, "classes": classes, "channels": channels, "size": 32} | options))


def image(backbone: str = "resnet18") -> dict[str, Tensor]:
    """An ImageNet network's file, narrow, with statistics that are not the start's."""
    state = to_torchvision(tiny(backbone=backbone))
    generator = torch.Generator().manual_seed(1)
    return {k: v + 0.1 * torch.rand(v.shape, generator=generator) if v.is_floating_point() else v for k, v in state.items()}


def solid(backbone: str = "resnet18", **options: Any) -> dict[str, Tensor]:
    """A 3D ResNet's file."""
    state = tiny("r3d", backbone=backbone, **options).state_dict()
    return {f"module.{k.split('.', 1)[1]}": v for k, v in state.items() if not k.startswith("prepare.")}


def saved(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save({"state_dict": state}, folder / "w.pth")
    return folder / "w.pth"


@pytest.mark.parametrize(("family", "backbone", "options"), [
    ("i3d_resnet50", "resnet50", {}), ("i3d_resnet50", "resnet50", {"pattern": "slowonly"}),
    ("i3d_resnet50", "resnet50", {"pattern": "heavy"}), ("r3d", "resnet18", {}), ("r3d", "resnet50", {"backbone": "resnet50"}),
    ("r3d", "resnet18", {"backbone": "res3d18"}),
])
def test_pictures_weights_are_inflated(tmp_path: Path, family: str, backbone: str, options: dict[str, Any]) -> None:
    state = image(backbone)
    net = tiny(family, **options)
    told = load_weights(net, saved(state, tmp_path))
    assert told.format == "torchvision ResNet"
    assert not told.left
    assert told.missing == ["prepare.mean", "prepare.std"]
    own = net.state_dict()
    assert len(told.loaded) + len(told.adapted) == len(state)
    for key, flat in state.items():
        name = f"{'head' if key.startswith('fc.') else 'backbone'}.{key}"
        frames = own[name].shape[2] if flat.dim() == 4 else 1
        wanted = flat.unsqueeze(2).expand(-1, -1, frames, -1, -1) / frames if flat.dim() == 4 else flat
        assert torch.equal(own[name], wanted), name
        assert (name in told.adapted) == (frames > 1)
        if frames > 1:
            assert told.adapted[name] == f"inflated: repeated over {frames} frames and divided by {frames}"


def test_a_still_clip_gives_what_its_picture_gives(tmp_path: Path) -> None:
    path = saved(image("resnet50"), tmp_path)
    flat, deep = tiny("tsn", backbone="resnet50").eval(), tiny("i3d_resnet50").eval()
    load_weights(flat, path)
    load_weights(deep, path)
    picture = torch.rand(1, 3, 1, 32, 32) * 255
    with torch.no_grad():
        seen = flat.observe(picture, ["layer4"]).maps["layer4"]
        shown = deep.observe(picture.expand(-1, -1, 48, -1, -1), ["layer4"]).maps["layer4"]
    # In the middle, where no padding in time is seen.
    torch.testing.assert_close(shown[:, :, shown.shape[2] // 2], seen[:, :, 0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("channels", "options", "done"), [
    (1, {}, "sum over 3 channels"),
    (2, {}, "mean of 3 channels, repeated 2 times"),
    (5, {}, "mean of 3 channels, repeated 5 times"),
    (1, {"motion": "clip"}, "sum over 3 channels, 1 motion channels at zero"),
    (3, {"motion": "clip"}, "kept, 3 motion channels at zero"),
])
def test_inflated_and_for_other_channels(tmp_path: Path, channels: int, options: dict[str, Any], done: str) -> None:
    state = image()
    net = tiny("r3d", channels=channels, mean=(120.0,), std=(60.0,), **options)
    told = load_weights(net, saved(state, tmp_path))
    assert told.adapted["backbone.conv1.weight"] == f"inflated: repeated over 7 frames and divided by 7; {done}"
    weight = net.state_dict()["backbone.conv1.weight"]
    assert weight.shape[:3] == (8, channels * (2 if options else 1), 7)
    summed = state["conv1.weight"].sum(1)
    torch.testing.assert_close(weight.sum((1, 2)), summed if channels in (1, 3) else summed / 3 * channels)


@pytest.mark.parametrize(("given", "wanted", "done"), [
    (2, 1, "sum over 2 channels"), (2, 3, "mean of 2 channels, repeated 3 times"),
    (1, 2, "mean of 1 channels, repeated 2 times"),
    (1, 3, "mean of 1 channels, repeated 3 times"),
])
def test_files_of_other_channels(tmp_path: Path, given: int, wanted: int, done: str) -> None:
    state = to_torchvision(tiny(channels=given))
    net = tiny(channels=wanted)
    assert load_weights(net, saved(state, tmp_path)).adapted == {"backbone.conv1.weight": done}
    fused = state["conv1.weight"].sum(1) if wanted == 1 else state["conv1.weight"].mean(1)
    assert all(torch.equal(net.state_dict()["backbone.conv1.weight"][:, c], fused) for c in range(wanted))


@pytest.mark.parametrize("extension", ["pth", "pth.tar", "pt", "pyth", "bin", "safetensors"])
def test_any_ending_and_any_wrapping(tmp_path: Path, extension: str) -> None:
    state = image()
    path = tmp_path / f"w.{extension}"
    if extension == "safetensors":
        save_file(state, path)
    elif extension == "bin":
        torch.save(state, path, _use_new_zipfile_serialization=False)  # as versions before 1.6 wrote
    else:
        wrapping = {"pth": "model", "pth.tar": "state_dict", "pt": "model_state", "pyth": "model_state"}[extension]
        torch.save({wrapping: {f"module._orig_mod.{k}": v for k, v in state.items()}, "epoch": 3}, path)
    net = tiny()
    assert len(load_weights(net, path).loaded) == len(state)
    assert torch.equal(net.state_dict()["backbone.layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


def test_half_precision_files(tmp_path: Path) -> None:
    state = {k: v.bfloat16() if v.is_floating_point() else v for k, v in image().items()}
    net = tiny()
    assert len(load_weights(net, saved(state, tmp_path)).loaded) == len(state)
    own = net.state_dict()["backbone.conv1.weight"]
    assert own.dtype == torch.float32
    assert torch.equal(own, state["conv1.weight"].float())


def test_the_order_of_names_does_not_matter(tmp_path: Path) -> None:
    state = image()
    net = tiny()
    load_weights(net, saved(dict(sorted(state.items(), key=lambda item: item[0][::-1])), tmp_path))
    assert all(torch.equal(v, state[k]) for k, v in to_torchvision(net).items())


def without(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if part not in k}


@pytest.mark.parametrize(("made", "family", "options", "part"), [
    (lambda: image("resnet34"), "tsm", {"backbone": "resnet50"},
     r"'layer1.0.conv1.weight' is \(8, 8, 3, 3\) but \(8, 8, 1, 1\) .* another backbone"),
    (lambda: image("resnet34"), "tsm", {}, "tensors that this network lacks, such as 'backbone.layer1.2.conv1.weight'"),
    (lambda: dict(reversed(image("resnet34").items())), "tsm", {}, "tensors that this network lacks"),
    (lambda: image(), "tsm", {"backbone": "resnet34"}, "without 'backbone.layer1.2'"),
    (lambda: solid("resnet18"), "r3d", {"backbone": "resnet34"}, "without 'backbone.layer1.2'"),
    (lambda: solid("resnet34"), "r3d", {}, "3-D ResNet .* lacks, such as 'backbone.layer1.2.conv1.weight'"),
    (lambda: solid("resnet18"), "r3d", {"backbone": "res3d18"}, r"'conv1.weight' is \(8, 3, 7, 7, 7\) but \(8, 3, 3, 7, 7\)"),
    (lambda: solid("resnet18"), "tsm", {}, r"'conv1.weight' is \(8, 3, 7, 7, 7\) but \(8, 3, 7, 7\)"),
    (lambda: without(solid(), "downsample"), "r3d", {}, "shortcuts of type A"),
    (lambda: without(image(), "layer4.1"), "tsm", {}, "without 'backbone.layer4.1'"),
    (lambda: image(), "c3d", {}, r"'conv1.weight' is .*another network \(tsm, "),
    (lambda: image(), "vgg16", {}, r"torchvision ResNet with 0 of the 26 .*another network \(tsm, "),
    (lambda: image() | {"layer4.2.conv1.weight": torch.zeros(64, 64, 3, 3)}, "tsm", {},
     "such as 'backbone.layer4.2.conv1.weight'"),
    (lambda: image() | {"module.conv1.weight": torch.zeros(8, 3, 7, 7)}, "tsm", {}, "'conv1.weight' twice"),
    (lambda: image() | {"layer2.0.conv2.weight": torch.zeros(16, 16, 3, 3, dtype=torch.int8)}, "tsm", {}, "of int8"),
    (lambda: image() | {"layer2.0.conv1.weight": torch.zeros(8, 16, 3, 3)}, "tsm", {},
     r"'layer2.0.conv1.weight' is \(8, 16, 3, 3\) but \(16, 8, 3, 3\)"),
    (lambda: image() | {"bn1.running_var": torch.ones(9)}, "tsm", {}, r"'bn1.running_var' is \(9,\) but \(8,\)"),
    (lambda: image() | {"layer3.0.conv1.weight": torch.zeros(32, 16, 9)}, "tsm", {}, r"is \(32, 16, 9\)"),
    (lambda: image() | {"conv1.weight": torch.zeros(0, 3, 7, 7)}, "tsm", {}, r"is \(0, 3, 7, 7\)"),
    (lambda: image() | {"conv1.weight": torch.zeros(8, 0, 7, 7)}, "tsm", {}, r"is \(8, 0, 7, 7\)"),
    (lambda: image() | {"bn1.weight": torch.ones(8).to_sparse()}, "tsm", {}, "and sparse"),
    (lambda: image() | {"bn1.weight": torch.ones(8, device="meta")}, "tsm", {}, "without values"),
    (lambda: image() | {"bn1.weight": torch.ones(8, dtype=torch.complex64)}, "tsm", {}, "of complex64"),
])
def test_files_of_other_networks_are_refused(tmp_path: Path, made: Callable[[], dict[str, Tensor]], family: str,
                                             options: dict[str, Any], part: str) -> None:
    torch.manual_seed(0)
    path = saved(made(), tmp_path)
    net = tiny(family, **options)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ModaliftError, match=part) as told:
        load_weights(net, path)
    assert str(told.value).startswith(f"{path}: ")
    assert "\n" not in str(told.value)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize(("pattern", "other"), [("heavy", "i3d"), ("i3d", "heavy"), ("slowonly", "i3d"), ("i3d", "slowonly")])
def test_patterns_of_inflation_are_told_apart(tmp_path: Path, pattern: str, other: str) -> None:
    torch.save(tiny("i3d_resnet50", pattern=pattern).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ModaliftError, match="another network, backbone, width or pattern"):
        load_weights(tiny("i3d_resnet50", pattern=other), tmp_path / "w.pth")
    assert not load_weights(tiny("i3d_resnet50", pattern=pattern, strides="mmaction2"), tmp_path / "w.pth").missing


def test_long_reports_are_grouped(tmp_path: Path) -> None:
    told = load_weights(tiny("i3d_resnet50"), saved(image("resnet50"), tmp_path))
    assert "  adapted backbone.layer1.0.conv1.weight and 8 more: inflated: repeated over 3 frames and divided by 3" in str(told)
    assert len(str(told).splitlines()) < 8


@pytest.mark.parametrize(("family", "options"), [("tsm", {}), ("tsm", {"backbone": "resnet50"}), ("vgg16", {}),
                                                 ("r3d", {"backbone": "res3d18"})])
def test_round_trip(tmp_path: Path, family: str, options: dict[str, Any]) -> None:
    net = tiny(family, **options)
    state = to_torchvision(net)
    again = tiny(family, **options)
    with torch.no_grad():
        for p in again.parameters():
            p.zero_()
    told = load_weights(again, saved(state, tmp_path))
    assert told.format.startswith("torchvision ")
    assert not told.left
    assert len(told.loaded) == len(state)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("family", ["c3d", "i3d_resnet50", "r3d"])
def test_networks_without_counterpart(family: str) -> None:
    with pytest.raises(ModaliftError, match=f"'{family}' has no torchvision counterpart"):
        to_torchvision(tiny(family))


def test_every_family_loads_its_own_files_and_formats_name_known_families() -> None:
    assert all(formats_for(family)[0] == "modalift" for family in NETWORKS)
    assert formats_for("tcn") == ["modalift"]
    assert "torchvision ResNet" in formats_for("tsm")
    assert len({f.name for f in FORMATS}) == len(FORMATS)


def test_a_neck_neither_asks_for_weights_nor_forbids_them(tmp_path: Path) -> None:
    plain, necked = tiny(), tiny(neck="converter")
    told = load_weights(necked, saved(image(), tmp_path))
    assert {k.split(".")[0] for k in told.missing} == {"prepare", "neck"}
    torch.save(necked.state_dict(), tmp_path / "n.pt")
    told = load_weights(plain, tmp_path / "n.pt")
    assert not told.missing
    assert {k.split(".")[0] for k in told.left} == {"neck"}


def test_stacked_frames_of_flow_get_the_mean_of_a_pictures_colors(tmp_path: Path) -> None:
    state = image()
    net = Recognizer(NetworkSpec(2), ResNet(20, "resnet18", 8, "none"), MeanLogits(64, 5))  # ten frames of two channels at once
    told = load_weights(net, saved(state, tmp_path))
    assert told.adapted == {"backbone.conv1.weight": "mean of 3 channels, repeated 20 times"}
    assert all(torch.equal(net.state_dict()["backbone.conv1.weight"][:, c], state["conv1.weight"].mean(1)) for c in range(20))
    torch.save(to_torchvision(net), tmp_path / "flow.pth")
    net = Recognizer(NetworkSpec(2), ResNet(20, "resnet18", 8, "none"), MeanLogits(64, 5))
    assert not load_weights(net, tmp_path / "flow.pth").adapted
