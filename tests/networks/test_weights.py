"""Weights from files: real layouts of keys filled with random numbers, and everything that can be wrong with a file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks import Recognizer, load_weights
from modalift.networks.weights import to_torchvision

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
LAYOUTS = SHARED / "specs" / "state_dicts"
real_layouts = pytest.mark.skipif(not LAYOUTS.exists(), reason="../shared with the real layouts of keys is absent")


def filled(layout: str) -> dict[str, Tensor]:
    """A state dict with the keys and shapes of a real file and random numbers."""
    generator = torch.Generator().manual_seed(0)
    keys = json.loads((LAYOUTS / f"keys_{layout}.json").read_text())["keys"]
    return {k: torch.randn(shape, generator=generator) * 0.01 if kind == "float32" else torch.tensor(7)
            for k, (shape, kind) in keys.items()}


def tiny(classes: int = 5, channels: int = 3, **options: object) -> Recognizer:
    torch.manual_seed(3)
    return networks.build("tsm", **({"backbone": "resnet18", "width": 0.125, "classes": classes,  # type: ignore[arg-type]
                                     "channels": channels} | options))


def torchvision_like(classes: int = 5) -> dict[str, Tensor]:
    return {k: v + 0.25 if v.is_floating_point() else v for k, v in to_torchvision(tiny(classes)).items()}


@real_layouts
@pytest.mark.parametrize(("layout", "backbone", "classes", "first", "head"), [
    ("torchvision_resnet18", "resnet18", 1000, "conv1.weight", "fc.weight"),
    ("torchvision_resnet34", "resnet34", 1000, "conv1.weight", "fc.weight"),
    ("torchvision_resnet50", "resnet50", 1000, "conv1.weight", "fc.weight"),
    ("tsm_official_resnet18", "resnet18", 400, "module.base_model.conv1.weight", "module.new_fc.weight"),
    ("tsm_official_resnet34", "resnet34", 400, "module.base_model.conv1.weight", "module.new_fc.weight"),
    ("tsm_official_r50_jester", "resnet50", 27, "module.base_model.conv1.weight", "module.new_fc.weight"),
    ("tsm_official_r50_k400_8f", "resnet50", 400, "module.base_model.conv1.weight", "module.new_fc.weight"),
    ("tsm_official_r50_sthv2", "resnet50", 174, "module.base_model.conv1.weight", "module.new_fc.weight"),
    ("tsn_official_r50_k400", "resnet50", 400, "module.base_model.conv1.weight", "module.new_fc.weight"),
    ("mmaction2_tsm_r50", "resnet50", 400, "backbone.conv1.conv.weight", "cls_head.fc_cls.weight"),
    ("mmaction2_tsn_r50", "resnet50", 400, "backbone.conv1.conv.weight", "cls_head.fc_cls.weight"),
])
def test_real_layouts(tmp_path: Path, layout: str, backbone: str, classes: int, first: str, head: str) -> None:
    state = filled(layout)
    torch.save({"epoch": 3, "state_dict": state} if "official" in layout else state, tmp_path / "w.pth")
    net = networks.build("tsm", backbone=backbone, classes=classes, channels=3)
    told = load_weights(net, tmp_path / "w.pth")
    assert not told.left
    assert not told.adapted
    assert told.missing == ["prepare.mean", "prepare.std"]
    own = net.state_dict()
    assert torch.equal(own["backbone.conv1.weight"], state[first])
    assert torch.equal(own["head.fc.weight"], state[head])
    assert own["backbone.layer3.1.bn2.num_batches_tracked"] == 7
    # Nothing kept its random start: every tensor of the trunk is one of the file's.
    assert len(told.loaded) == len(state)

    other = networks.build("tsm", backbone=backbone, classes=classes + 1, channels=3)
    before = other.head.fc.weight.clone()
    told = load_weights(other, tmp_path / "w.pth")
    assert set(told.left) == {head, head.replace("weight", "bias")}
    assert "other classes" in told.left[head]
    assert torch.equal(other.head.fc.weight, before)


def test_round_trip_through_torchvision_names(tmp_path: Path) -> None:
    net = tiny()
    state = to_torchvision(net)
    assert {"conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight", "fc.bias"} <= set(state)
    assert not any(k.startswith(("backbone", "head", "prepare")) for k in state)
    save_file(state, tmp_path / "w.safetensors")
    again = networks.build("tsm", backbone="resnet18", width=0.125, classes=5, channels=3)
    assert load_weights(again, tmp_path / "w.safetensors").format == "torchvision ResNet"
    clip = torch.rand(1, 3, 4, 32, 32) * 255
    with torch.no_grad():
        assert torch.equal(again.eval()(clip), net.eval()(clip))


@real_layouts
@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
def test_written_names_are_exactly_torchvisions(backbone: str) -> None:
    keys = json.loads((LAYOUTS / f"keys_torchvision_{backbone}.json").read_text())["keys"]
    state = to_torchvision(networks.build("tsm", backbone=backbone, classes=1000, channels=3))
    assert {k: list(v.shape) for k, v in state.items()} == {k: shape for k, (shape, _) in keys.items()}


def test_networks_without_counterpart_are_not_written() -> None:
    for net in (tiny(backbone="resnet8"), networks.build("small", classes=3, view="rgb")):
        with pytest.raises(ModaliftError, match="no torchvision counterpart"):
            to_torchvision(net)


@pytest.mark.parametrize("name", ["small", "tcn"])
def test_own_files(tmp_path: Path, name: str) -> None:
    options = {"view": "pose", "channels": 9} if name == "tcn" else {"view": "depth", "mean": (1500.0,)}
    net = networks.build(name, classes=5, **options)
    save_file(net.state_dict(), tmp_path / "w.safetensors", metadata={"format": "modalift-network/1"})
    options.pop("mean", None)
    again = networks.build(name, classes=5, **options)
    told = load_weights(again, tmp_path / "w.safetensors")
    assert not told.missing
    assert not told.left
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in again.state_dict().items())  # constants too


def test_gray_input_sums_the_colors(tmp_path: Path) -> None:
    state = torchvision_like()
    torch.save({"model": state}, tmp_path / "w.pth")
    color, gray = tiny(), tiny(channels=1, mean=(120.0,), std=(60.0,))
    load_weights(color, tmp_path / "w.pth")
    told = load_weights(gray, tmp_path / "w.pth")
    assert told.adapted == {"backbone.conv1.weight": "sum over 3 channels"}
    assert torch.equal(gray.backbone.conv1.weight, state["conv1.weight"].sum(1, keepdim=True))
    image = torch.rand(1, 1, 1, 32, 32)
    with torch.no_grad():
        seen = color.eval().backbone(image.expand(-1, 3, -1, -1, -1))
        torch.testing.assert_close(gray.eval().backbone(image), seen)


@pytest.mark.parametrize("channels", [2, 5])
def test_other_inputs_repeat_the_mean(tmp_path: Path, channels: int) -> None:
    state = torchvision_like()
    torch.save(state, tmp_path / "w.pth")
    net = tiny(channels=channels)
    told = load_weights(net, tmp_path / "w.pth")
    assert told.adapted == {"backbone.conv1.weight": f"mean of 3 channels, repeated {channels} times"}
    mean = state["conv1.weight"].mean(1)
    assert all(torch.equal(net.backbone.conv1.weight[:, c], mean) for c in range(channels))


@pytest.mark.parametrize("channels", [1, 3])
def test_motion_channels_begin_at_zero(tmp_path: Path, channels: int) -> None:
    torch.save(torchvision_like(), tmp_path / "w.pth")
    plain, moving = tiny(channels=channels), tiny(channels=channels, motion="clip")
    load_weights(plain, tmp_path / "w.pth")
    told = load_weights(moving, tmp_path / "w.pth")
    assert f"{channels} motion channels at zero" in told.adapted["backbone.conv1.weight"]
    clip = torch.rand(1, channels, 3, 32, 32) * 255
    with torch.no_grad():
        torch.testing.assert_close(moving.eval()(clip), plain.eval()(clip))


def test_missing_counters_are_nothing_to_tell(tmp_path: Path) -> None:
    state = {k: v for k, v in torchvision_like().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pth")
    assert load_weights(tiny(), tmp_path / "w.pth").missing == ["prepare.mean", "prepare.std"]


def test_what_is_missing_or_left_is_named(tmp_path: Path) -> None:
    state = torchvision_like(classes=9)
    del state["layer2.0.bn1.weight"]
    state["layer9.extra"] = torch.zeros(2)
    torch.save(state, tmp_path / "w.pth")
    told = load_weights(tiny(), tmp_path / "w.pth")
    assert "backbone.layer2.0.bn1.weight" in told.missing
    assert set(told.left) == {"layer9.extra", "fc.weight", "fc.bias"}
    assert "layer9.extra: the network has no such layer" in str(told)
    assert "missing backbone.layer2.0.bn1.weight" in str(told)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code from a file ran')",)


def wrong(folder: Path, kind: str) -> Path:
    path = folder / "w.pth"
    good = torchvision_like()
    if kind == "code":
        path.write_bytes(pickle.dumps({"conv1.weight": Trap()}))
    elif kind == "code in zip":
        torch.save({**good, "x": Trap()}, path)
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("<html>404 not found</html>")
    elif kind == "cut":
        torch.save(good, path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind.startswith("cut old"):
        torch.save(good, path, _use_new_zipfile_serialization=False)
        data = path.read_bytes()
        path.write_bytes(data[:{"start": 3, "end": -1}.get(kind.split()[-1], 5000)])
    elif kind == "module":
        torch.save(torch.nn.Linear(2, 2), path)
    elif kind == "scrambled":
        torch.save(good, path)
        path.write_bytes(b"PK" + bytes(range(256)) * 40)
    elif kind == "cut safetensors":
        path = folder / "w.safetensors"
        save_file(good, path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "list":
        torch.save([torch.zeros(3)], path)
    elif kind == "no tensors":
        torch.save({"epoch": 3}, path)
    elif kind == "unknown layout":
        torch.save({"a.b": torch.zeros(3)}, path)
    elif kind == "other width":
        torch.save(to_torchvision(tiny(width=0.25)), path)
    elif kind == "other depth":
        torch.save({k: v for k, v in good.items() if k.startswith(("conv1", "bn1", "layer1.0"))}, path)
    elif kind == "deeper":
        torch.save(to_torchvision(tiny(backbone="resnet34")), path)
    elif kind == "shallower":
        torch.save({k: v for k, v in good.items() if not k.startswith("layer3.1")}, path)
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(("kind", "part"), [
    ("absent", "no such weights file"), ("folder", "no such weights file"),
    ("code", "could run code"), ("code in zip", "could run code"),
    ("empty", "not a PyTorch"), ("text", "not a PyTorch weights file"), ("cut", "not a readable"),
    ("cut safetensors", "not a readable"),
    ("cut old", "not a readable"), ("cut old at its end", "not a readable"), ("cut old at its start", "not a readable"),
    ("scrambled", "damage, so opening it could run code"), ("module", "holds a torch.nn.modules.linear.Linear, so opening it"),
    ("list", "no named tensors but a list"), ("no tensors", "no named tensors"), ("unknown layout", "a.b"),
    ("other width", r"'conv1.weight' is \(16, 3, 7, 7\) but \(8, 3, 7, 7\)"),
    ("other depth", "with 15 of the 100 tensors"),
    ("deeper", "tensors that this network lacks, such as 'backbone.layer1.2.conv1.weight'"),
    ("shallower", "without 'backbone.layer3.1'"),
])
def test_wrong_files_are_told_in_one_line_and_change_nothing(tmp_path: Path, kind: str, part: str) -> None:
    path = wrong(tmp_path, kind)
    net = tiny()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ModaliftError, match=part) as told:
        load_weights(net, path)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
