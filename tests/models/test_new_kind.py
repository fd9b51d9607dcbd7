"""One file adds a kind of model: it is trained, selected, evaluated, reported and shipped like the built-in ones."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import modalift
from modalift.engine.evaluate import evaluate
from modalift.engine.ship import ship
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.models import KINDS
from modalift.networks.registry import FAMILIES, NETWORKS
from modalift.recipe import load_recipe
from modalift.report.page import write_report
from modalift.schemes import SCHEMES

REGISTRIES = (KINDS, NETWORKS, FAMILIES, SCHEMES)


@pytest.fixture
def plugin() -> Iterator[None]:
    """The file is loaded, and forgotten afterwards."""
    saved = [dict(registry._entries) for registry in REGISTRIES]
    spec = importlib.util.spec_from_file_location("meter", Path(__file__).with_name("meter.py"))
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield
    for registry, entries in zip(REGISTRIES, saved, strict=True):
        registry._entries.clear()
        registry._entries.update(entries)


@pytest.fixture
def recipe(plugin, recipe_file) -> Path:
    return recipe_file("measure", networks={"student": {"name": "meter", "view": "depth"}}, optim={"epochs": 30, "lr": 0.05},
                       protocol={"select": "best"})


def test_it_goes_through_train_eval_report_and_ship(recipe, tmp_path):
    run = train(load_recipe(recipe))
    log = [json.loads(line) for line in run.log_path.read_text().splitlines()]
    validated = [entry["val"]["student"]["error"] for entry in log if entry["kind"] == "epoch"]
    assert validated[-1] < validated[0], "it learns"
    found = evaluate(run, "test")["student"]
    assert (found["kind"], found["n"]) == ("meter", 6)
    assert evaluate(run, "val")["student"]["error"] == pytest.approx(min(validated)), "the lowest error is the best"
    assert json.loads(run.ledger_path.read_text())["error"] == found["error"]
    page = write_report(run.folder, samples=[]).read_text()
    assert "mean error, m" in page
    assert f"{found['error']:.3f}" in page
    facts = ship(run, "", tmp_path / "meter.modalift")
    assert facts["view"] == "depth"
    model = modalift.load(tmp_path / "meter.modalift")
    assert (type(model).__name__, model.kind) == ("MeterModel", "meter")
    assert model.provenance["measured"]["test"]["error"] == found["error"]


def test_without_its_file_the_bundle_says_what_is_missing(recipe, tmp_path):
    run = train(load_recipe(recipe, ["optim.epochs=1"]))
    ship(run, "", tmp_path / "meter.modalift")
    del KINDS._entries["meter"]
    with pytest.raises(ModaliftError, match=r"a model of the kind 'meter', which is not registered here .*--plugin"):
        modalift.load(tmp_path / "meter.modalift")
