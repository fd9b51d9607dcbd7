"""Recipes: typed, and a wrong key is answered with the right one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from modalift.errors import ModaliftError
from modalift.recipe import find_recipes, load_recipe

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
    ("scheme.smoothin=.1", "unknown key 'scheme.smoothin' for scheme 'single' - did you mean 'smoothing'?"),
    ("scheme.smoothing=much", "scheme.smoothing = 'much'"),
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
    with pytest.raises(ModaliftError, match="not YAML"):
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
    with pytest.raises(ModaliftError, match="leads back to itself"):
        load_recipe(tmp_path / "loop.yaml")


def test_seed_and_fold_fill_paths(tmp_path):
    path = write(tmp_path, lambda t: t.update(run={"dir": "runs/x/seed{seed}-fold{fold}"}))
    recipe = load_recipe(path, ["run.seed=4", "protocol.fold=2"])
    assert recipe.run.dir == Path("runs/x/seed4-fold2")


@pytest.mark.parametrize("path", find_recipes([ROOT / "recipes"]), ids=lambda p: p.stem)
def test_every_recipe_that_ships_is_valid(path):
    recipe = load_recipe(path)
    assert recipe.paper.level
