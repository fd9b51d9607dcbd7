"""One recipe of each kind (scheme, network families, sensors) trains, at a scale of seconds, and what it ships answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalift import darkroom, datasets
from modalift.derive import derive
from modalift.engine.evaluate import evaluate
from modalift.engine.run import Run
from modalift.engine.ship import ship
from modalift.engine.train import train
from modalift.recipe import TINY, Recipe, find_recipes, load_recipe

ROOT = Path(__file__).resolve().parents[2]


def kind(recipe: Recipe) -> tuple:
    networks = sorted((s.name or "from a run", s.view) for s in recipe.networks.values())
    return recipe.data.dataset, recipe.scheme.name, *networks


def one_of_each() -> list[Path]:
    kinds: dict[tuple, Path] = {}
    for path in find_recipes([ROOT / "recipes"]):
        kinds.setdefault(kind(load_recipe(path)), path)
    return list(kinds.values())


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Path:
    return darkroom.simulate(tmp_path_factory.mktemp("darkroom") / "data", clips=24, size=32, frames=4)


@pytest.fixture(scope="module")
def with_joints_drawn(tmp_path_factory) -> Path:
    """The real recordings with the view that some recipes ask to be derived first."""
    out = tmp_path_factory.mktemp("utd") / "data"
    table = datasets.open("csv", ROOT / "../shared/data/utd_mhad_depth")
    kept = {r.id for split in ("train", "test") for r in table.split(split).rows[:40]}
    derive("pose_map", table.where(lambda r: r.id in kept), out)
    return out


def views_of(recipe: Recipe) -> set[str]:
    """The views that a recipe frames by themselves, or those of a recipe that its networks start from."""
    return set(recipe.data.per_view).union(*(load_recipe(s.recipe).data.per_view for s in recipe.networks.values() if s.recipe))


def made(path: Path | str, changes: list[str], folder: Path) -> Run:
    """The run of a recipe, after those that its networks start from."""
    own = [*changes, f"run.dir={folder}"]
    for role, section in load_recipe(path).networks.items():
        if section.recipe:
            own.append(f"networks.{role}.init={made(section.recipe, changes, Path(f'{folder}-{role}')).folder}")
    return train(load_recipe(path, own))


@pytest.mark.parametrize("path", one_of_each(), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_recipe_trains_and_ships(path, simulated, tmp_path, monkeypatch, request):
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(path)
    changes = [*TINY, "data.cache="]
    if recipe.data.dataset == "darkroom":
        changes.append(f"data.root={simulated}")
    elif not recipe.data.root.exists():
        pytest.skip("../shared with the real recordings is absent")
    elif "pose_map" in views_of(recipe):
        changes.append(f"data.root={request.getfixturevalue('with_joints_drawn')}")
    run = made(path, changes, tmp_path / "run")
    assert isinstance(run, Run)
    found = evaluate(run)
    for role in run.roles():
        assert found[role]["n"] == 8 or recipe.data.dataset == "darkroom"
        assert ship(run, role, tmp_path / f"{role}.modalift")["bytes"] > 1000
