"""Settings without effect are named with the reason, by explain and once by train; those with an effect are not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modalift import datasets
from modalift.darkroom import simulate
from modalift.engine.build import assemble
from modalift.engine.monitor import Monitor
from modalift.engine.train import train
from modalift.engine.unused import augmentation, unused_settings, without_effect
from modalift.recipe import load_recipe


def unused(recipe, *overrides: str) -> dict[str, str]:
    return unused_settings(assemble(load_recipe(recipe, overrides), train=False))


@pytest.fixture(scope="module")
def dark(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("sim") / "dark", clips=12, size=32, frames=4, train_subjects=2, test_subjects=1)


@pytest.fixture
def of_view(tmp_path, dark):
    """A recipe over one view of simulated clips, whose classes have mirrored counterparts."""
    def make(view: str) -> str:
        network = "{name: tcn, view: pose, width: 8, blocks: 1}"
        if view != "pose":
            network = f"{{name: small, view: {view}, width: 4}}"
        path = tmp_path / f"{view}.yaml"
        path.write_text(f"data: {{dataset: darkroom, root: {dark}, frames: 4, size: 16}}\nnetworks: {{student: {network}}}\n"
                        "optim: {batch: 4}\n")
        return str(path)

    return make


def test_defaults_are_not_named(recipe_file, of_view):
    assert unused(recipe_file()) == {}
    for view in ("rgb", "depth", "thermal", "pose"):
        assert unused(of_view(view)) == {}


AUGMENT = {"flip": "0.5", "brightness": "0.2", "contrast": "0.2", "saturation": "0.2", "hue": "0.1", "noise": "4",
           "depth_scale": "0.1", "depth_offset": "100", "signal_scale": "0.1", "signal_rotate": "10", "signal_noise": "0.1",
           "crop": "random", "scale": "[0.9, 1]", "aspect": "[0.9, 1]", "rotate": "5", "shift": "0.1", "speed": "[0.9, 1]",
           "warp": "0.1"}
TIME, IMAGE = {"speed", "warp"}, {"crop", "scale", "aspect", "rotate", "shift", "flip"} | {"speed", "warp"}


@pytest.mark.parametrize(("view", "used"), [
    ("rgb", IMAGE | {"brightness", "contrast", "saturation", "hue", "noise"}),
    ("thermal", IMAGE | {"brightness", "contrast", "noise"}),
    ("depth", IMAGE | {"depth_scale", "depth_offset"}), ("pose", TIME | {"signal_scale", "signal_rotate", "signal_noise"})])
def test_augmentation_by_view(of_view, view, used):
    overrides = [f"data.augment.{key}={value}" for key, value in AUGMENT.items()]
    experiment = assemble(load_recipe(of_view(view), overrides), train=False)
    effects = {effect.key.removeprefix("data.augment."): effect for effect in augmentation(experiment)}
    assert set(effects) == set(AUGMENT)
    assert {key for key, effect in effects.items() if effect.on} == used
    assert all(bool(effect.on) != bool(effect.reason) for effect in effects.values())
    assert set(unused_settings(experiment)) == {f"data.augment.{key}" for key in set(AUGMENT) - used}
    assert effects["speed"].on == view


@pytest.mark.parametrize("key", sorted(AUGMENT))
def test_what_has_no_effect_changes_no_clip_and_what_has_one_changes_some(of_view, key):
    """The statements against the clips themselves."""
    for view in ("rgb", "depth", "thermal", "pose"):
        plain = assemble(load_recipe(of_view(view)), train=False)
        given = assemble(load_recipe(of_view(view), [f"data.augment.{key}={AUGMENT[key]}"]), train=False)
        clips = [e.clips(e.train, {view}, augment=True) for e in (plain, given)]
        same = all((clips[0][epoch, i]["clips"][view] == clips[1][epoch, i]["clips"][view]).all()
                   for epoch in range(4) for i in range(len(clips[0])))
        if f"data.augment.{key}" in unused_settings(given):
            assert same, f"{key} of {view} has an effect"
        elif key != "crop":  # whose position matters only where the crop is smaller than the image
            assert not same, f"{key} of {view} has none"


def test_flip(recipe_file, of_view, dark):
    found = unused(recipe_file(networks={"student": {"name": "small", "view": "depth", "width": 4}}), "data.augment.flip=0.5")
    assert found == {"data.augment.flip": "no class has a mirrored counterpart - name them in data.options.mirrored"}
    assert unused(of_view("rgb"), "data.augment.flip=0.5") == {}
    assert "'pose' (pose) cannot be mirrored, and all views of a clip are mirrored together" in \
        unused(recipe_file("mtut"), "data.augment.flip=0.5", "data.options.mirrored={move0: move1}")["data.augment.flip"]
    some = assemble(load_recipe(recipe_file(), ["data.augment.flip=0.5", "data.options.mirrored={move0: move1}"]), train=False)
    assert augmentation(some)[0].on == "2 of 3 classes, which have a mirrored counterpart"
    only = assemble(load_recipe(recipe_file(), ["data.augment.flip=0.5", "data.options.mirrored={move2: move2}"]), train=False)
    left = only.table.map(lambda r: replace(r, split="test") if r.label == 2 else r)
    only.table = left
    assert unused_settings(only) == {"data.augment.flip": "no class of the training clips has a mirrored counterpart"}
    assert "mirrored" in datasets.options_of("csv")


@pytest.mark.parametrize(("overrides", "found"), [
    (["optim.momentum=0.5"], {"optim.momentum": "only sgd uses it, and optim.name is adamw"}),
    (["optim.momentum=0.5", "optim.name=sgd"], {}),
    (["optim.betas=[0.5, 0.9]", "optim.name=sgd"], {"optim.betas": "only adamw uses it, and optim.name is sgd"}),
    (["optim.milestones=[1]"], {"optim.milestones": "only step and linear use it, and optim.schedule is cosine"}),
    (["optim.gamma=0.5", "optim.patience=2"], {"optim.gamma": "only step and plateau use it, and optim.schedule is cosine",
                                              "optim.patience": "only plateau uses it, and optim.schedule is cosine"}),
    (["optim.schedule=step", "optim.milestones=[1]", "optim.gamma=0.5"], {}),
    (["optim.schedule=step"], {"optim.schedule": "step needs optim.milestones below optim.epochs (2)"}),
    (["optim.schedule=step", "optim.milestones=[1, 5]"], {"optim.milestones": "those from epoch 2 on are not reached"}),
    (["optim.schedule=linear", "optim.milestones=[1, 1.5]"],
     {"optim.milestones": "optim.schedule=linear uses the first one only"}),
    (["optim.schedule=onecycle", "optim.warmup=1"], {"optim.warmup": "optim.schedule=onecycle has its own rise"}),
    (["optim.updates.all.momentum=0.5"], {"optim.updates.all.momentum": "only sgd uses it, and optim.name is adamw"}),
    (["optim.updates.all={momentum: 0.5, name: sgd}"], {}),
    (["data.stride=2"], {"data.stride": "data.sampler is not dense"}), (["data.stride=2", "data.sampler=dense"], {}),
    (["data.pad=zeros"], {"data.pad": "data.sampler=segments pads no clip"}), (["data.pad=zeros", "data.sampler=dense"], {}),
    (["data.margin=0.2"], {"data.margin": "data.region is not valid"}), (["data.margin=0.2", "data.region=valid"], {}),
    (["data.per_view.depth.stride=2"], {"data.per_view.depth.stride": "data.sampler is not dense"}),
    (["data.per_view.depth={stride: 2, sampler: dense}"], {}),
    (["data.per_view.pose.frames=3"], {"data.per_view.pose": "the scheme and its networks do not read this view"}),
    (["data.label_seed=3"], {"data.label_seed": "data.labeled is 1, so no labels are chosen"}),
    (["data.label_seed=3", "data.labeled=0.5"], {}), (["protocol.eval_every=2"], {}),
    (["data.augment.scale=[0.9, 1]", "data.augment.scales=[1, 0.9]"],
     {"data.augment.scale": "data.augment.scales is used instead"}),
    (["data.augment.photometric=0.5"],
     {"data.augment.photometric": "none of brightness, contrast, saturation, hue changes a view"}),
    (["networks.student.role=x"],
     {"networks.student.role": "networks.student.init is empty, so no network of a run is chosen"})])
def test_other_settings(recipe_file, overrides, found):
    assert unused(recipe_file(), *overrides) == found


def test_protocol(of_view):
    assert unused(of_view("depth"), "protocol.eval_every=2") == {"protocol.eval_every": "there are no validation clips"}
    assert unused(of_view("pose"), "protocol.spatial_crops=3") == {
        "protocol.spatial_crops": "no view of the networks that are evaluated is a video"}
    assert unused(of_view("depth"), "protocol.spatial_crops=3", "protocol.temporal_crops=2") == {}


class Said(Monitor):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str, *, warning: bool = False) -> None:
        if warning:
            self.lines.append(text)


def test_train_says_it_once(recipe_file):
    said = Said()
    train(load_recipe(recipe_file(optim={"epochs": 1}), ["data.augment.flip=0.5", "data.augment.signal_scale=0.1",
                                                       "data.augment.signal_noise=0.1", "protocol.folds=2"]), said)
    assert said.lines == [
        "data.augment.flip has no effect: no class has a mirrored counterpart - name them in data.options.mirrored",
        "data.augment.signal_scale, data.augment.signal_noise have no effect: no view is a signal"]


def test_keys_of_one_reason_share_a_line():
    assert without_effect({"a": "x", "b": "y", "c": "x"}) == ["a, c have no effect: x", "b has no effect: y"]
