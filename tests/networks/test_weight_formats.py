"""The layouts of files that people have: every tensor lands on its layer, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks import Recognizer, load_weights
from modalift.networks.weight_formats import FORMATS, Format

LAYOUTS = Path(__file__).resolve().parents[2] / ".." / "shared" / "specs" / "state_dicts"
real_layouts = pytest.mark.skipif(not LAYOUTS.exists(), reason="../shared with the real layouts of keys is absent")

CONSTANTS = ["prepare.mean", "prepare.std"]


def shapes(layout: str, shrink: int = 1) -> dict[str, tuple[list[int], str]]:
    """Names, shapes and types of a real file; ``shrink`` divides every number of channels and of classes."""
    keys = json.loads((LAYOUTS / f"keys_{layout}.json").read_text())["keys"]
    return {k: ([n // shrink if n >= 16 else n for n in shape], kind) for k, (shape, kind) in keys.items()}


def fill(names: Mapping[str, tuple[list[int], str]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {k: torch.randn(shape, generator=generator) * 0.01 if kind == "float32" else torch.tensor(7)
            for k, (shape, kind) in names.items()}


@dataclass(frozen=True)
class Case:
    """A file, the network that it is for, and where some of its tensors must land."""

    layout: str
    family: str
    told: str
    classes: int
    lands: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    shrink: int = 1

    def build(self, **options: Any) -> Recognizer:
        torch.manual_seed(3)
        return networks.build(self.family, **({"classes": self.classes, "channels": 3, "size": 112} | self.options | options))


EIGHTH = {"width": 0.125}
INCEPTION = {"Conv3d_2c_3x3.bn.running_var": "backbone.Conv3d_2c_3x3.bn.running_var",
             "Mixed_3b.b0.conv3d.weight": "backbone.Mixed_3b.b0.conv3d.weight",
             "Mixed_4f.b1b.bn.bias": "backbone.Mixed_4f.b1b.bn.bias",
             "Mixed_5c.b3b.conv3d.weight": "backbone.Mixed_5c.b3b.conv3d.weight",
             "logits.conv3d.bias": "head.fc.bias"}
MMACTION = {"backbone.conv1.conv.weight": "backbone.conv1.weight", "backbone.conv1.bn.bias": "backbone.bn1.bias",
            "backbone.layer3.5.conv2.conv.weight": "backbone.layer3.5.conv2.weight",
            "backbone.layer4.0.downsample.conv.weight": "backbone.layer4.0.downsample.0.weight",
            "backbone.layer4.0.downsample.bn.running_mean": "backbone.layer4.0.downsample.1.running_mean",
            "cls_head.fc_cls.weight": "head.fc.weight"}

CASES = [
    Case("jfzhang95_c3d_487", "c3d", "C3D", 60, {
        "conv1.weight": "backbone.conv1.weight", "conv3b.bias": "backbone.conv3b.bias", "fc6.weight": "head.fc6.weight",
        "fc8.bias": "head.fc.bias"}, EIGHTH | {"frames": 16}, 8),
    Case("mmaction2_c3d", "c3d", "mmaction2 C3D", 50, {
        "backbone.conv1a.conv.weight": "backbone.conv1.weight", "backbone.conv2a.conv.bias": "backbone.conv2.bias",
        "backbone.conv5b.conv.weight": "backbone.conv5b.weight", "backbone.fc7.weight": "head.fc7.weight",
        "cls_head.fc_cls.weight": "head.fc.weight"}, EIGHTH | {"frames": 16}, 8),
    Case("gesrec_c3d_32f_83", "c3d", "GesRec C3D", 10, {
        "module.group3.4.running_mean": "backbone.group3.4.running_mean", "module.fc1.0.weight": "head.fc1.0.weight",
        "module.group5.3.weight": "backbone.group5.3.weight", "module.fc.0.bias": "head.fc.bias"},
        EIGHTH | {"variant": "gesrec", "frames": 32}, 8),
    Case("torchvision_vgg16", "vgg16", "torchvision VGG", 125, {
        "features.0.weight": "backbone.layers.0.weight", "features.28.bias": "backbone.layers.28.bias",
        "classifier.3.weight": "head.classifier.3.weight", "classifier.6.weight": "head.fc.weight"}, EIGHTH, 8),
    Case("torchvision_r3d_18", "r3d", "torchvision video ResNet", 50, {
        "stem.0.weight": "backbone.conv1.weight", "stem.1.bias": "backbone.bn1.bias",
        "layer2.1.conv2.0.weight": "backbone.layer2.1.conv2.weight",
        "layer3.0.conv1.1.running_var": "backbone.layer3.0.bn1.running_var",
        "layer4.0.downsample.0.weight": "backbone.layer4.0.downsample.0.weight",
        "fc.weight": "head.fc.weight"}, EIGHTH | {"backbone": "res3d18"}, 8),
    Case("gesrec_resnext101_32f_83", "resnext101_3d", "3-D ResNet (kenshohara, okankop)", 83, {
        "module.conv1.weight": "backbone.conv1.weight", "module.layer3.22.bn2.bias": "backbone.layer3.22.bn2.bias",
        "module.layer1.0.downsample.1.weight": "backbone.layer1.0.downsample.1.weight", "module.fc.bias": "head.fc.bias"}),
    *(Case(f"mmaction2_{name}", "i3d_resnet50", "mmaction2 3-D ResNet (I3D, SlowOnly)", 50, MMACTION,
           EIGHTH | {"pattern": pattern, "strides": strides}, 8)
      for name, pattern, strides in (("i3d_r50", "i3d", "mmaction2"), ("i3d_r50", "i3d", "slowfast"),
                                     ("i3d_r50_heavy", "heavy", "mmaction2"), ("slowonly_r50", "slowonly", "slowfast"))),
    *(Case(f"actionnet_r50_{data}_8f", "action_net", "ACTION-Net", classes, {
        "module.base_model.conv1.weight": "backbone.conv1.weight",
        "module.base_model.layer2.3.conv1.net.weight": "backbone.layer2.3.conv1.weight",
        "module.base_model.layer4.0.conv1.action_p3_bn1.running_var":
            "backbone.layer4.0.action.action_p3_bn1.running_var",
        "module.base_model.layer1.2.conv1.action_shift.weight": "backbone.layer1.2.action.action_shift.weight",
        "module.new_fc.weight": "head.fc.weight"}) for data, classes in (("egogesture83", 83), ("jester27", 27))),
    *(Case(f"pytorch_i3d_{name}", "i3d", "pytorch-i3d", classes, INCEPTION, {"channels": channels})
      for name, classes, channels in (("rgb_imagenet_400", 400, 3), ("flow_imagenet_400", 400, 2),
                                      ("rgb_charades_157", 157, 3))),
    Case("hassony2_i3d_rgb_400", "i3d", "hassony2 I3D", 400, {
        "conv3d_1a_7x7.conv3d.weight": "backbone.Conv3d_1a_7x7.conv3d.weight",
        "mixed_3c.branch_0.batch3d.running_mean": "backbone.Mixed_3c.b0.bn.running_mean",
        "mixed_4b.branch_1.0.conv3d.weight": "backbone.Mixed_4b.b1a.conv3d.weight",
        "mixed_4b.branch_2.1.conv3d.weight": "backbone.Mixed_4b.b2b.conv3d.weight",
        "mixed_5c.branch_3.1.batch3d.bias": "backbone.Mixed_5c.b3b.bn.bias",
        "conv3d_0c_1x1.conv3d.bias": "head.fc.bias"}),
    Case("tea50_8f_inner_174", "tea", "TEA", 174, {
        "conv1.weight": "backbone.conv1.weight", "layer1.0.me.conv3.weight": "backbone.layer1.0.me.conv3.weight",
        "layer3.5.shifts.3.conv.weight": "backbone.layer3.5.shifts.3.conv.weight", "fc.bias": "head.fc.bias"}),
]


def name_of(case: Case) -> str:
    return f"{case.layout}-{case.options.get('strides', case.family)}"


def saved(state: Mapping[str, Tensor], folder: Path, wrapping: str = "state_dict") -> Path:
    torch.save({"epoch": 3, wrapping: dict(state)} if wrapping else dict(state), folder / "w.pth")
    return folder / "w.pth"


def fingerprint(tensor: Tensor) -> tuple[float, ...]:
    flat = tensor.flatten().double()
    return (len(flat), float(flat.sum()), float(flat[0]), float(flat[-1]))


def trained(net: Recognizer) -> dict[str, Tensor]:
    return {k: v for k, v in net.state_dict().items() if not k.startswith("prepare.")}


@real_layouts
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_every_tensor_of_a_real_layout_lands_on_its_layer(tmp_path: Path, case: Case) -> None:
    state = fill(shapes(case.layout, case.shrink))
    net = case.build()
    told = load_weights(net, saved(state, tmp_path))
    assert (told.format, told.left, told.adapted, told.missing) == (case.told, {}, {}, CONSTANTS)
    own = trained(net)
    for theirs, ours in case.lands.items():
        assert torch.equal(own[ours], state[theirs].reshape(own[ours].shape)), ours
    # One to one, and to the bit: nothing of the network kept its start, nothing of the file was used twice.
    assert len(told.loaded) == len(state) == len(own)
    assert sorted(map(fingerprint, own.values())) == sorted(map(fingerprint, state.values()))


@real_layouts
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_another_number_of_classes_leaves_the_classifier_out(tmp_path: Path, case: Case) -> None:
    # A network for other clips loads the same file, save where its fully connected layers depend on them.
    other = {} if case.family == "c3d" else {"frames": 5, "size": 64}
    net = case.build(classes=case.classes + 1, **other)
    before = net.state_dict()["head.fc.weight"].clone()
    told = load_weights(net, saved(fill(shapes(case.layout, case.shrink)), tmp_path, ""))
    assert sorted(k.rsplit(".", 1)[1] for k in told.left) == ["bias", "weight"]
    assert all("other classes" in why for why in told.left.values())
    assert told.missing == [*CONSTANTS, "head.fc.weight", "head.fc.bias"]
    assert torch.equal(net.state_dict()["head.fc.weight"], before)


@real_layouts
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_files_of_older_programs_lack_counters(tmp_path: Path, case: Case) -> None:
    state = {k: v for k, v in fill(shapes(case.layout, case.shrink)).items() if not k.endswith("num_batches_tracked")}
    told = load_weights(case.build(), saved(state, tmp_path, "model"))
    assert told.missing == CONSTANTS
    assert len(told.loaded) == len(state)


def inflated(layout: str, shrink: int = 8) -> dict[str, Tensor]:
    """A 3D ResNet's file as kenshohara's code writes it: the names of the 2D one, cubes for squares."""
    return {f"module.{k}": v if v.dim() != 4 else v.unsqueeze(2).repeat(1, 1, v.shape[2], 1, 1) * torch.rand(v.shape[2], 1, 1)
            for k, v in fill(shapes(layout, shrink)).items()}


@real_layouts
@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
def test_3d_resnets(tmp_path: Path, backbone: str) -> None:
    state = inflated(f"torchvision_{backbone}")
    net = networks.build("r3d", backbone=backbone, classes=125, channels=3, width=0.125)
    told = load_weights(net, saved(state, tmp_path))
    assert (told.format, told.left, told.adapted, told.missing) == ("3-D ResNet (kenshohara, okankop)", {}, {}, CONSTANTS)
    own = trained(net)
    assert len(own) == len(state)
    assert all(torch.equal(own[f"{'head' if '.fc.' in k else 'backbone'}.{k.removeprefix('module.')}"], v)
               for k, v in state.items())


def slowfast() -> dict[str, Tensor]:
    """Names and shapes of SlowFast's I3D_8x8_R50, at an eighth of the width."""
    names: dict[str, tuple[list[int], str]] = {}

    def layer(conv: str, bn: str, shape: list[int]) -> None:
        names[f"{conv}.weight"] = (shape, "float32")
        for part in ("weight", "bias", "running_mean", "running_var"):
            names[f"{bn}.{part}"] = (shape[:1], "float32")
        names[f"{bn}.num_batches_tracked"] = ([], "int64")

    layer("s1.pathway0_stem.conv", "s1.pathway0_stem.bn", [8, 3, 5, 7, 7])
    inside = 8
    for stage, (count, times) in enumerate(((3, (3, 3, 3)), (4, (3, 1, 3, 1)), (6, (3, 1, 3, 1, 3, 1)), (3, (1, 3, 1)))):
        middle = 8 * 2**stage
        for i in range(count):
            block = f"s{stage + 2}.pathway0_res{i}"
            if i == 0:
                layer(f"{block}.branch1", f"{block}.branch1_bn", [4 * middle, inside, 1, 1, 1])
            layer(f"{block}.branch2.a", f"{block}.branch2.a_bn", [middle, inside, times[i], 1, 1])
            layer(f"{block}.branch2.b", f"{block}.branch2.b_bn", [middle, middle, 1, 3, 3])
            layer(f"{block}.branch2.c", f"{block}.branch2.c_bn", [4 * middle, middle, 1, 1, 1])
            inside = 4 * middle
    names["head.projection.weight"], names["head.projection.bias"] = ([50, 256], "float32"), ([50], "float32")
    return fill(names)


@pytest.mark.parametrize("strides", ["slowfast", "mmaction2"])
def test_slowfast(tmp_path: Path, strides: str) -> None:
    state = slowfast()
    net = networks.build("i3d_resnet50", classes=50, channels=3, width=0.125, strides=strides)
    told = load_weights(net, saved(state, tmp_path, "model_state"))
    assert (told.format, told.left, told.adapted, told.missing) == ("SlowFast 3-D ResNet", {}, {}, CONSTANTS)
    assert "strides='slowfast'" in str(told)
    own = trained(net)
    assert len(own) == len(state) == 320
    for theirs, ours in {"s1.pathway0_stem.conv.weight": "backbone.conv1.weight",
                         "s1.pathway0_stem.bn.running_mean": "backbone.bn1.running_mean",
                         "s2.pathway0_res0.branch1.weight": "backbone.layer1.0.downsample.0.weight",
                         "s5.pathway0_res0.branch1_bn.bias": "backbone.layer4.0.downsample.1.bias",
                         "s4.pathway0_res5.branch2.b.weight": "backbone.layer3.5.conv2.weight",
                         "s3.pathway0_res3.branch2.c_bn.weight": "backbone.layer2.3.bn3.weight",
                         "head.projection.weight": "head.fc.weight"}.items():
        assert torch.equal(own[ours], state[theirs]), ours
    assert sorted(map(fingerprint, own.values())) == sorted(map(fingerprint, state.values()))


def test_two_pathways_are_another_network(tmp_path: Path) -> None:
    state = slowfast()
    state |= {k.replace("pathway0", "pathway1"): v for k, v in state.items() if "pathway0" in k}
    net = networks.build("i3d_resnet50", classes=50, channels=3, width=0.125)
    with pytest.raises(ModaliftError, match="tensors that this network lacks"):
        load_weights(net, saved(state, tmp_path))


def caffe() -> dict[str, Tensor]:
    """The file that C3D's PyTorch code starts from: a torch port of the Caffe layers, at an eighth of the width."""
    channels = {0: (8, 3), 3: (16, 8), 6: (32, 16), 8: (32, 32), 11: (64, 32), 13: (64, 64), 16: (64, 64), 18: (64, 64)}
    names = {f"features.{i}.weight": ([*c, 3, 3, 3], "float32") for i, c in channels.items()}
    names |= {f"features.{i}.bias": ([c[0]], "float32") for i, c in channels.items()}
    for i, c in {0: [512, 1024], 3: [512, 512], 6: [60, 512]}.items():
        names |= {f"classifier.{i}.weight": (c, "float32"), f"classifier.{i}.bias": (c[:1], "float32")}
    return fill(names)


def test_c3d_with_the_layers_of_caffe(tmp_path: Path) -> None:
    state = caffe()
    net = networks.build("c3d", classes=60, channels=3, frames=16, size=112, width=0.125)
    told = load_weights(net, saved(state, tmp_path))
    assert (told.format, told.left, told.missing) == ("C3D (Caffe layers)", {}, CONSTANTS)
    own = net.state_dict()
    assert torch.equal(own["backbone.conv5b.weight"], state["features.18.weight"])
    assert torch.equal(own["backbone.conv3a.bias"], state["features.6.bias"])
    assert torch.equal(own["head.fc6.weight"], state["classifier.0.weight"])
    assert torch.equal(own["head.fc.weight"], state["classifier.6.weight"])


@pytest.mark.parametrize(("frames", "size"), [(32, 112), (16, 160)])
def test_c3d_for_other_clips_says_what_the_file_was_made_for(tmp_path: Path, frames: int, size: int) -> None:
    net = networks.build("c3d", classes=60, channels=3, frames=frames, size=size, width=0.125)
    told = load_weights(net, saved(caffe(), tmp_path))
    assert list(told.left) == ["classifier.0.weight"]
    assert "made for clips of 16 frames of 112 x 112" in told.left["classifier.0.weight"]
    assert "head.fc6.weight" in told.missing


def layout_of(name: str) -> Format:
    return next(f for f in FORMATS if f.name == name)


@real_layouts
def test_hassony2_names_mean_what_the_published_map_says() -> None:
    there = json.loads((LAYOUTS / "keymap_hassony2_to_piergiaj.json").read_text())["map_hassony2_to_piergiaj"]
    ours = {k: layout_of("hassony2 I3D").translate(k) for k in there}
    assert ours == {k: layout_of("pytorch-i3d").translate(v) for k, v in there.items()}
    assert len(set(ours.values())) == len(ours) == 344


@real_layouts
@pytest.mark.parametrize(("modality", "channels", "view"), [("rgb", 3, "rgb"), ("depth", 1, "depth"), ("depth", 1, "left")])
def test_the_modality_chooses_a_network_of_mtut(tmp_path: Path, modality: str, channels: int, view: str) -> None:
    state = fill(shapes("mmpose_mtut_i3d_nvgesture"))
    net = networks.build("i3d", classes=25, view=view, modality_name=modality, channels=channels, padding="symmetric")
    told = load_weights(net, saved(state, tmp_path))
    mine = {k: v for k, v in state.items() if f".{modality}." in k}
    assert (told.format, told.adapted, told.missing) == ("mmpose MTUT I3D", {}, CONSTANTS)
    assert set(told.left) == set(state) - set(mine)
    assert set(told.left.values()) == {"of another sensor's network in the file"}
    assert "padding='symmetric'" in told.note
    own = trained(net)
    assert len(told.loaded) == len(mine) == len(own) == 344
    assert torch.equal(own["backbone.Conv3d_1a_7x7.conv3d.weight"], mine[f"backbone.{modality}.conv3d_1a_7x7.conv3d.weight"])
    assert torch.equal(own["backbone.Mixed_4e.b1b.bn.running_var"],
                       mine[f"backbone.{modality}.mixed_4e.branch_1.1.batch3d.running_var"])
    assert torch.equal(own["head.fc.bias"], mine[f"cls_head.output_conv.{modality}.bias"])
    assert sorted(map(fingerprint, own.values())) == sorted(map(fingerprint, mine.values()))


@real_layouts
def test_mtut_has_no_network_for_other_sensors(tmp_path: Path) -> None:
    net = networks.build("i3d", classes=25, view="thermal")
    with pytest.raises(ModaliftError, match=r"a network each for depth and rgb, none for 'thermal' - .*'depth' or 'rgb'"):
        load_weights(net, saved(fill(shapes("mmpose_mtut_i3d_nvgesture")), tmp_path))


@real_layouts
@pytest.mark.parametrize(("file", "channels", "done"), [
    ("rgb_imagenet_400", 2, "mean of 3 channels, repeated 2 times"), ("rgb_imagenet_400", 1, "sum over 3 channels"),
    ("flow_imagenet_400", 3, "mean of 2 channels, repeated 3 times"), ("flow_imagenet_400", 1, "sum over 2 channels"),
])
def test_inception_for_other_sensors(tmp_path: Path, file: str, channels: int, done: str) -> None:
    net = networks.build("i3d", classes=400, channels=channels, mean=(0.0,), std=(1.0,))
    told = load_weights(net, saved(fill(shapes(f"pytorch_i3d_{file}")), tmp_path))
    assert told.adapted == {"backbone.Conv3d_1a_7x7.conv3d.weight": done}
    assert len(told.loaded) == 343


@real_layouts
def test_tea_behind_its_wrapper(tmp_path: Path) -> None:
    inner = fill(shapes("tea50_8f_inner_174"))
    state = {f"module.base_model.{k}".replace("module.base_model.fc.", "module.new_fc."): v for k, v in inner.items()}
    told = load_weights(networks.build("tea", classes=174, channels=3), saved(state, tmp_path))
    assert (told.format, told.left, told.missing, len(told.loaded)) == ("TEA", {}, CONSTANTS, 784)


@real_layouts
def test_tea_begins_from_res2net(tmp_path: Path) -> None:
    inner = fill(shapes("tea50_8f_inner_174"))
    state = {k: v for k, v in inner.items() if ".me." not in k and ".shifts." not in k}
    told = load_weights(networks.build("tea", classes=174, channels=3), saved(state, tmp_path, ""))
    assert (told.format, told.left, len(told.loaded)) == ("Res2Net", {}, len(state))
    assert all(".me." in k or ".shifts." in k or k.startswith("prepare.") for k in told.missing)


@real_layouts
@pytest.mark.parametrize("layout", ["torchvision_resnet50", "tsm_official_r50_jester", "mmaction2_tsn_r50"])
def test_action_net_begins_from_a_resnet(tmp_path: Path, layout: str) -> None:
    state = fill(shapes(layout))
    net = networks.build("action_net", classes=7, channels=3)
    before = {k: v.clone() for k, v in trained(net).items()}
    told = load_weights(net, saved(state, tmp_path))
    assert len(told.loaded) == len(state) - 2 == len(state) - len(told.left)
    assert all(".action." in k or k.startswith(("prepare.", "head.")) for k in told.missing)
    assert all(torch.equal(trained(net)[k], before[k]) for k in told.missing if ".action." in k)


NARROW: dict[str, dict[str, Any]] = {
    "tsm": {"backbone": "resnet50"}, "tea": {}, "action_net": {}, "vgg16": {}, "c3d": {"frames": 16},
    "r3d": {"backbone": "resnet50"},
    "i3d": {}, "i3d_resnet50": {}, "resnext101_3d": {}}


@real_layouts
@pytest.mark.parametrize("layout", [
    "aimagelab_gesture_transformer_r18", "dsn_T64_249", "dsnv2_T64_249", "ni3d_249", "raar_249", "torchvision_resnet101",
    "torchvision_resnet34", "torchvision_resnet50", "tsm_official_r50_jester", "mmaction2_i3d_r50_heavy", "mmaction2_c3d",
    "actionnet_r50_jester27_8f", "tea50_8f_inner_174", "pytorch_i3d_rgb_imagenet_400", "hassony2_i3d_rgb_400",
    "torchvision_vgg16", "torchvision_r3d_18", "jfzhang95_c3d_487", "gesrec_c3d_32f_83", "gesrec_resnext101_32f_83"])
def test_no_file_goes_silently_into_a_network_that_it_is_not_for(tmp_path: Path, layout: str) -> None:
    path = saved(fill(shapes(layout, 8)), tmp_path)
    for family, options in NARROW.items():
        net = networks.build(family, **({"classes": 7, "channels": 3, "size": 112, "width": 0.125} | options))
        try:
            told = load_weights(net, path).format
        except ModaliftError:
            continue
        assert family in layout_of(told).families
