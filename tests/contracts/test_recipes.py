"""One recipe of each kind (scheme, network families, sensors) trains, at a scale of seconds, and what it ships answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalift import darkroom, datasets, networks
from modalift.datasets.writing import write_manifest
from modalift.derive import derive
from modalift.engine.build import assemble
from modalift.engine.evaluate import evaluate
from modalift.engine.run import Run
from modalift.engine.ship import ship
from modalift.engine.train import train
from modalift.loading.framing import Framing
from modalift.recipe import TINY, Recipe, load_recipe
from modalift.recipe_files import recipe_names
from modalift.report import explain as explaining
from small_models import save_model

ROOT = Path(__file__).resolve().parents[2]


def kind(recipe: Recipe) -> tuple:
    """What a recipe is one of: on the simulator settings count too, so that every row is trained."""
    members = sorted((s.name or "from a run", s.view) for s in recipe.networks.values())
    own = (recipe.scheme.model_extra, recipe.data.per_view, [bool(s.init) for s in recipe.networks.values()])
    return recipe.data.dataset, recipe.scheme.name, *members, *(map(str, own) if simulates(recipe) else ())


def simulates(recipe: Recipe) -> bool:
    """Whether a recipe's clips are simulated, with or without a view that was translated."""
    return recipe.data.root.name.startswith("darkroom")


def one_of_each() -> list[str]:
    kinds: dict[tuple, str] = {}
    for name in recipe_names():
        kinds.setdefault(kind(load_recipe(name)), name)
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


def translated(data: Path, out: Path, view: str, target: str, name: str) -> Path:
    """Recordings with what a translator (here: one that has learned nothing) draws of a view."""
    net = networks.build("translator", view=view, target=target, backbone="resnet_4", ngf=4, frames=1, size=32)
    bundle = save_model(out.parent / "drawn.modalift", net, framing=Framing(frames=1, size=32), classes=[])
    derive("pseudo_ir", datasets.open("csv", data), out, view=view, bundle=str(bundle), name=name)
    return out


@pytest.fixture(scope="module")
def darkroom_pseudo(simulated, tmp_path_factory) -> Path:
    table = datasets.open("darkroom", simulated)
    (listed := tmp_path_factory.mktemp("listed") / "data").mkdir()
    write_manifest(table, listed)
    return translated(listed, tmp_path_factory.mktemp("drawn") / "data", "rgb", "thermal", "pseudo_ir")


@pytest.fixture(scope="module")
def utd_mhad_translated(with_joints_drawn, tmp_path_factory) -> Path:
    return translated(with_joints_drawn, tmp_path_factory.mktemp("drawn") / "data", "depth", "gray", "pseudo_map")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """``(recipe, changes) -> Run`` of what others start from, each trained once."""
    runs: dict[tuple[str, ...], Run] = {}

    def run(name: str, changes: list[str]) -> Run:
        key = (name, *changes)
        if key not in runs:
            runs[key] = made(name, changes, tmp_path_factory.mktemp("trained") / "run", run)
        return runs[key]

    return run


def views_of(recipe: Recipe) -> set[str]:
    """The views that a recipe frames by themselves, or those of a recipe that its networks start from."""
    return set(recipe.data.per_view).union(*(load_recipe(s.recipe).data.per_view for s in recipe.networks.values() if s.recipe))


def made(name: str, changes: list[str], folder: Path, trained) -> Run:
    """The run of a recipe, after those that its networks start from."""
    own = [*changes, f"run.dir={folder}"]
    for role, section in load_recipe(name).networks.items():
        if section.recipe:
            own.append(f"networks.{role}.init={trained(section.recipe, changes).folder}")
    return train(load_recipe(name, own))


@pytest.mark.parametrize("name", one_of_each())
def test_a_recipe_trains_and_ships(name, trained, tmp_path, monkeypatch, request):
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(name)
    root, derived = recipe.data.root, ("darkroom_pseudo", "utd_mhad_translated")
    if not simulates(recipe) and not (ROOT / ("../shared" if root.name in derived else root)).exists():
        pytest.skip("../shared with the real recordings is absent")
    if simulates(recipe) or root.name in derived or "pose_map" in views_of(recipe):
        made_by = root.name if root.name in derived else "simulated" if simulates(recipe) else "with_joints_drawn"
        root = request.getfixturevalue(made_by)
    changes = [*TINY, "data.cache=", f"data.root={root}"]
    if simulates(recipe):
        told = explaining.as_json(assemble(load_recipe(name, changes), train=False))
        assert {member["role"] for member in told["networks"]} >= recipe.networks.keys()
        assert told["terms"]
    run = made(name, changes, tmp_path / "run", trained)
    assert isinstance(run, Run)
    found = evaluate(run)
    for role in run.roles():
        assert found[role]["n"] == 8 or simulates(recipe)
        if run.ships(role):
            assert ship(run, role, tmp_path / f"{role}.modalift")["bytes"] > 1000
