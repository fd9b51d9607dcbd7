"""Recipes: typed, and a wrong key is answered with the right one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from modalift.errors import ModaliftError
from modalift.loading.framing import Framing
from modalift.modalities import modality
from modalift.recipe import NetworkSection, Recipe, find_recipes, load_recipe

ROOT = Path(__file__).resolve().parents[1]
GOOD = {
    "data": {"dataset": "folder", "root": "somewhere"},
    "networks": {"student": {"name": "small", "view": "depth"}},
    "optim": {"lr": 0.01},
}


def write(tmp_path: Path, change=None) -> Path:
    tree = yaml.safe_load(yaml.safe_dump(GOOD))
    if change:
        change(tree)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_good_recipe_and_its_overrides(tmp_path):
    recipe = load_recipe(write(tmp_path), ["optim.lr=1e-3", "networks.student.width=8", "run.seed=3"])
    assert recipe.optim.lr == 1e-3
    assert recipe.networks["student"].model_extra == {"width": 8}
    assert recipe.run.seed == 3


def test_the_resolved_recipe_reads_back_as_itself(tmp_path):
    recipe = load_recipe(write(tmp_path), ["networks.student.dropout=0.1"])
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml())
    assert load_recipe(again) == recipe


@pytest.mark.parametrize(("override", "message"), [
    ("optim.lrr=1", "unknown key 'optim.lrr' - did you mean 'optim.lr'?"),
    ("optim.name=adamm", "optim.name = 'adamm': Input should be 'adamw' or 'sgd'"),
    ("optim.lr=fast", "optim.lr = 'fast': Input should be a valid number"),
    ("optim.epochs=0", "optim.epochs = 0"),
    ("optin.lr=1", "unknown key 'optin' - did you mean 'optim'?"),
    ("scheme.name=singel", "unknown scheme 'singel' - did you mean 'single'?"),
    ("scheme.label_smoothin=.1", "unknown key 'scheme.label_smoothin' for scheme 'single' - did you mean 'label_smoothing'?"),
    ("scheme.label_smoothing=much", "scheme.label_smoothing = 'much'"),
    ("networks.student.width=wide", "networks.student.width = 'wide'"),
    ("networks.student.mean=5", "networks.student.mean = 5"),
    ("networks.student.motion=clipp", "networks.student.motion = 'clipp'"),
    ("networks.student.causal=perhaps", "networks.student.causal = 'perhaps'"),
    ("networks.student.name=smal", "unknown network 'smal' - did you mean 'small'?"),
    ("networks.student.widht=3", "unknown key 'networks.student.widht' for network 'small' - did you mean 'width'?"),
    ("networks.teacher.name=small", "scheme 'single' has no role 'teacher'"),
    ("data.dataset=foldr", "unknown dataset 'foldr' - did you mean 'folder'?"),
    ("scheme.name=distill", "needs a network in the role 'teacher'"),
    ("optim.lr", "is not of the form section.key=value"),
    ("optim.lr=[", "not YAML"),
])
def test_what_is_wrong_is_named_in_one_line_with_what_to_do(tmp_path, override, message):
    with pytest.raises(ModaliftError) as caught:
        load_recipe(write(tmp_path), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_sections_files_and_nonsense(tmp_path):
    with pytest.raises(ModaliftError, match="'data' is missing"):
        load_recipe(write(tmp_path, lambda t: t.pop("data")))
    with pytest.raises(ModaliftError, match="no such recipe"):
        load_recipe(tmp_path / "nothing.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ModaliftError, match="a recipe is a mapping"):
        load_recipe(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("data: [1,\n")
    with pytest.raises(ModaliftError, match="not valid YAML"):
        load_recipe(tmp_path / "broken.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModaliftError):
        load_recipe(tmp_path / "binary.yaml")


def test_a_base_is_merged_under_and_may_not_lead_back(tmp_path):
    write(tmp_path)
    child = tmp_path / "child.yaml"
    child.write_text("base: recipe.yaml\noptim: {epochs: 7}\n")
    recipe = load_recipe(child)
    assert (recipe.optim.epochs, recipe.optim.lr) == (7, 0.01)
    (tmp_path / "loop.yaml").write_text("base: loop.yaml\n")
    with pytest.raises(ModaliftError, match="its base files form a circle"):
        load_recipe(tmp_path / "loop.yaml")


def test_seed_and_fold_fill_paths(tmp_path):
    path = write(tmp_path, lambda t: t.update(run={"dir": "runs/x/seed{seed}-fold{fold}"}))
    recipe = load_recipe(path, ["run.seed=4", "protocol.fold=2"])
    assert recipe.run.dir == Path("runs/x/seed4-fold2")


@pytest.mark.parametrize("path", find_recipes([ROOT / "recipes"]), ids=lambda p: p.stem)
def test_every_recipe_that_ships_is_valid(path):
    recipe = load_recipe(path)
    assert recipe.paper.level


# ---- framing, augmentation and protocol are parts of a recipe ----------------------------------------------------


@pytest.mark.parametrize(("override", "message"), [
    ("data.frames=0", "data.frames = 0: must be 1 or more"),
    ("data.frmes=3", "unknown key 'data.frmes' - did you mean 'data.frames'?"),
    ("data.sampler=densse", "data.sampler = 'densse': Input should be 'segments', 'dense' or 'whole' - did you mean 'dense'?"),
    ("data.crop_ratio=2", "data.crop_ratio = 2: must lie in (0, 1]"),
    ("data.augment.rotat=3", "unknown key 'data.augment.rotat' - did you mean 'data.augment.rotate'?"),
    ("data.augment.rotate=999", "data.augment.rotate = 999: must lie in [0, 180]"),
    ("data.augment.rotate=wide", "data.augment.rotate = 'wide': Input should be a valid number"),
    ("data.augment.scale=[2, 1]", "data.augment.scale = [2, 1]: give the smaller number first"),
    ("data.augment.scale=[0, 1]", "data.augment.scale[0] = 0: must lie in [0.05, 4]"),
    ("data.augment=strong", "data.augment = 'strong': must be a section with keys, such as data.augment.crop"),
    ("data.per_view.rgb.sise=3", "unknown key 'data.per_view.rgb.sise' - did you mean 'data.per_view.rgb.size'?"),
    ("data.per_view.rgb.size=0", "data.per_view.rgb.size = 0: must be 1 or more"),
    ("data.per_view.rgb.region=vaild", "data.per_view.rgb.region = 'vaild': Input should be 'whole' or 'valid' - did you mean"),
    ("protocol.temporal_crops=0", "protocol.temporal_crops = 0: must lie in [1, 1000]"),
    ("protocol.spatial_crops=2", "protocol.spatial_crops = 2: Input should be 1, 3 or 5"),
    ("protocol.spatial_crop=3", "unknown key 'protocol.spatial_crop' - did you mean 'protocol.spatial_crops'?"),
])
def test_wrong_framing_augmentation_and_protocol_are_named(tmp_path, override, message):
    with pytest.raises(ModaliftError) as caught:
        load_recipe(write(tmp_path), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_in_the_spelling_of_a_person_are_understood(tmp_path):
    recipe = load_recipe(write(tmp_path), ["data.augment.rotate=1e1", "optim.lr=1e-3", "data.augment.scale=[8e-1, 1]"])
    assert recipe.data.augment.rotate == 10.0
    assert recipe.data.augment.scale == (0.8, 1.0)


def test_a_view_is_framed_as_the_section_says_but_for_its_own_keys(tmp_path):
    recipe = load_recipe(write(tmp_path), ["data.frames=4", "data.size=32", "data.region=valid",
                                           "data.per_view.rgb={size: 64, low_light: gamma}"])
    plain, own = recipe.data.framing("depth", modality("depth")), recipe.data.framing("rgb", modality("rgb"))
    assert type(plain) is Framing
    assert plain == Framing(frames=4, size=32, region="valid")
    assert own == plain.replace(size=64, low_light="gamma")
    signal = recipe.data.framing("pose", modality("pose"))
    assert (signal.frames, signal.size, signal.region) == (4, 1, "whole")
    assert yaml.safe_load(recipe.to_yaml())["data"]["per_view"] == {"rgb": {"size": 64, "low_light": "gamma"}}
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml())
    assert load_recipe(again) == recipe
    assert load_recipe(again).data.framing("rgb", modality("rgb")) == own


def test_a_changed_recipe_is_checked_again_and_the_first_one_stays(tmp_path):
    recipe = load_recipe(write(tmp_path, lambda t: t.update(run={"dir": "runs/{fold}"})))
    made = recipe.changed({"protocol.fold": 2, "data.per_view.depth.size": 16})
    assert (made.run.dir, made.protocol.fold, made.data.framing("depth", modality("depth")).size) == (Path("runs/2"), 2, 16)
    assert (recipe.run.dir, recipe.protocol.fold, recipe.data.per_view) == (Path("runs/{fold}"), None, {})
    with pytest.raises(ModaliftError, match=r"optim\.epochs = 0"):
        recipe.changed({"optim.epochs": 0})


def test_every_key_of_every_section_is_described():
    for name, section in Recipe.model_fields.items():
        model = NetworkSection if name == "networks" else section.annotation
        assert [k for k, field in model.model_fields.items() if not field.description] == [], name
