"""Settings without an effect are said, with the reason; those with one are not."""

from __future__ import annotations

import dataclasses

import pytest

from modalift.engine.build import assemble
from modalift.engine.effects import flip_without_effect, without_effect
from modalift.recipe import load_recipe
from modalift.report import explain

DEPTH = {"student": {"name": "small", "view": "depth", "width": 4}}
POSE = {"student": {"name": "tcn", "view": "pose", "width": 8, "blocks": 1}}


def lines(recipe_file, networks, *changes: str) -> list[str]:
    return without_effect(assemble(load_recipe(recipe_file(networks=networks), changes)))


@pytest.mark.parametrize(("networks", "change", "reason"), [
    (DEPTH, "data.augment.flip=0.5", "does not say which class the mirror image of a class is"),
    (POSE, "data.augment.flip=0.5", "'pose' (pose) cannot be mirrored"),
    (DEPTH, "data.augment.brightness=0.3", "no view that is read has 8-bit images of light (depth)"),
    (DEPTH, "data.augment.hue=0.1", "no view that is read has color (depth)"),
    (DEPTH, "data.augment.signal_rotate=10", "no view that is read has joints (depth)"),
    (DEPTH, "data.augment.photometric=0.4", "all of them are 0"),
    (POSE, "data.augment.depth_scale=0.1", "no view that is read measures depth (pose)"),
    (POSE, "data.augment.rotate=10", "no view that is read has images (pose)"),
    (POSE, "data.augment.vertical=2", "it is the axis of data.augment.signal_rotate, which is 0"),
    (DEPTH, "data.stride=2", "it needs sampler=dense, for the view 'depth'"),
    (DEPTH, "data.pad=loop", "it needs sampler=dense or whole, for the view 'depth'"),
    (DEPTH, "data.margin=0.3", "it needs region=valid, for the view 'depth'"),
    (DEPTH, "optim.momentum=0.5", "it needs optim.name=sgd"),
    (DEPTH, "optim.milestones=[1]", "it needs optim.schedule=step or linear"),
    (DEPTH, "optim.patience=2", "it needs optim.schedule=plateau"),
    (DEPTH, "data.label_seed=3", "all labels are used (data.labeled = 1)"),
])
def test_a_setting_without_effect_has_its_reason(recipe_file, networks, change, reason):
    (line,) = lines(recipe_file, networks, change)
    key = change.partition("=")[0]
    assert line.startswith(f"{key} = ")
    assert reason in line


@pytest.mark.parametrize(("networks", "changes"), [
    (DEPTH, ["data.augment.depth_scale=0.1", "data.augment.rotate=10"]), (POSE, ["data.augment.signal_rotate=10"]),
    (DEPTH, ["data.stride=2", "data.pad=loop", "data.sampler=dense"]), (DEPTH, ["data.margin=0.3", "data.region=valid"]),
    (DEPTH, ["optim.momentum=0.5", "optim.name=sgd"]),
    (DEPTH, ["optim.milestones=[1]", "optim.schedule=step", "optim.gamma=0.5"]),
    (DEPTH, ["data.label_seed=3", "data.labeled=0.5"]), (DEPTH, ["protocol.eval_every=2"]), (DEPTH, []),
])
def test_a_setting_with_an_effect_is_not_named(recipe_file, networks, changes):
    assert lines(recipe_file, networks, *changes) == []


def test_a_mirror_map_that_lacks_classes(recipe_file):
    made = assemble(load_recipe(recipe_file(networks=DEPTH), ["data.augment.flip=0.5"]))
    made.table = dataclasses.replace(made.table, mirrored={0: 1, 1: 0})
    (line,) = flip_without_effect(made)
    assert "on 2 of 3 classes only: the mirror image of 'move2', for example, is not known" in line
    made.table = dataclasses.replace(made.table, mirrored={0: 1, 1: 0, 2: 2})
    assert flip_without_effect(made) == []


def test_explain_says_it(recipe_file):
    made = assemble(load_recipe(recipe_file(networks=DEPTH), ["data.augment.flip=0.5"]))
    assert any(note.startswith("data.augment.flip = 0.5 has no effect") for note in explain.as_json(made)["notes"])
