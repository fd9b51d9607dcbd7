"""Late fusion of finished runs, and the fusion model of a run: evaluated on common clips, never shipped."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from modalift.engine.evaluate import evaluate
from modalift.engine.fuse import fuse
from modalift.engine.roles import RoleChoice
from modalift.engine.run import Run
from modalift.engine.ship import ship
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.models import Predictions
from modalift.recipe import load_recipe
from modalift.report.compare import compare_runs
from modalift.report.page import write_report
from tiny import write_tiny

DEPTH = {"name": "small", "view": "depth", "width": 4, "motion": "clip"}
POSE = {"name": "tcn", "view": "pose", "width": 8, "blocks": 1}
ONE = {"optim": {"epochs": 1}}


def made(recipe_file, where, scheme="single", networks=None, changes=(), **sections) -> Run:
    return train(load_recipe(recipe_file(scheme, networks=networks or {"student": DEPTH}, **{**ONE, **sections}),
                             [f"run.dir={where}", *changes]))


@pytest.fixture
def two(recipe_file, tmp_path) -> tuple[Run, Run]:
    return made(recipe_file, tmp_path / "a"), made(recipe_file, tmp_path / "b", networks={"student": POSE})


def ledger(run: Run) -> list[dict]:
    path = run.folder / "test_ledger.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def test_the_mean_of_two_runs_is_that_of_their_probabilities(two):
    found = fuse(two, "val")
    p = [Predictions.load(r.predictions_path("student", "val")) for r in two]
    mean = (p[0].probabilities + p[1].probabilities) / 2
    assert found["fusion"]["top1"] == (mean.argmax(1) == p[0].labels).mean()
    assert [m["top1"] for m in found["members"].values()] == [x.correct.mean() for x in p]
    assert list(found["members"]) == ["a:student", "b:student"]
    assert found["fusion"]["intervals"]["top1"]["clips"]
    assert (found["left_out"], found["fusion"]["n"]) == (0, 6)
    assert not ledger(two[0]), "only the test split is counted"


def test_a_fusion_on_the_test_split_is_entered_in_every_ledger(two):
    fuse(two)
    fuse(two)
    for run in two:
        roles = [line["role"] for line in ledger(run)]
        mean = "mean of a:student, b:student"
        assert roles == ["student", mean, mean], "evaluated once, fused twice"
    assert sorted(Run(two[0].folder).results()) == ["student"], "nothing else is written"


def test_a_run_of_several_networks_gives_all_of_them(recipe_file, tmp_path):
    run = made(recipe_file, tmp_path / "m", "mtut", {"depth": DEPTH, "pose": POSE})
    assert list(fuse([run], "val")["members"]) == ["m:depth", "m:pose"]
    with pytest.raises(ModaliftError, match="there is 1"):
        fuse([run], "val", ["depth"])
    with pytest.raises(ModaliftError, match="no run has a network in the role 'dept' - did you mean 'depth'"):
        fuse([run], "val", ["dept"])
    with pytest.raises(ModaliftError, match="given twice"):
        fuse([run, run], "val")


def test_clips_that_one_sensor_lacks_are_left_out_and_counted(recipe_file, tmp_path, two):
    old = Predictions.load(two[1].predictions_path("student", "val")) if fuse(two, "val") else None
    old.take(np.arange(1, 6)).save(two[1].predictions_path("student", "val"))
    found = fuse(two, "val")
    assert (found["fusion"]["n"], found["left_out"]) == (5, 1)
    none = replace(old, ids=[f"x{i}" for i in range(6)])
    none.save(two[1].predictions_path("student", "val"))
    with pytest.raises(ModaliftError, match="no clip of the split 'val' has predictions of all"):
        fuse(two, "val")
    replace(old, labels=(old.labels + 1) % 3).save(two[1].predictions_path("student", "val"))
    with pytest.raises(ModaliftError, match="has label"):
        fuse(two, "val")


def test_other_classes_and_unfinished_runs_are_refused(recipe_file, tmp_path, two):
    other = made(recipe_file, tmp_path / "c", data={"root": str(write_tiny(tmp_path / "two", classes=2))})
    with pytest.raises(ModaliftError, match=r"has the classes move0, move1 \(2\)"):
        fuse([two[0], other], "val")
    (other.folder / "compute.json").unlink()
    with pytest.raises(ModaliftError, match="finish it"):
        fuse([two[0], other], "val")


def test_cross_validations_are_fused_over_all_folds(recipe_file, tmp_path):
    runs = [made(recipe_file, tmp_path / n, networks={"student": s}, protocol={"folds": 2}) for n, s in
            (("a", DEPTH), ("b", POSE))]
    assert fuse(runs)["fusion"]["n"] == 24


@pytest.mark.parametrize("mode", ["late", "mid"])
def test_a_fusion_model_is_evaluated_and_never_ships(recipe_file, tmp_path, mode):
    run = made(recipe_file, tmp_path / "f", "fusion", {"depth": DEPTH, "pose": POSE}, optim={"epochs": 6, "lr": 1e-2},
               changes=[f"scheme.mode={mode}", "scheme.modality_dropout=0.2"])
    assert run.roles() == ["depth", "pose", "fusion"]
    assert [role for role in run.roles() if run.ships(role)] == ["depth", "pose"], "a fusion reads several sensors"
    found = evaluate(run, "val")
    assert list(found) == ["depth", "pose", "fusion"]
    assert found["fusion"]["n"] == 6
    if mode == "late":
        p = [Predictions.load(run.predictions_path(r, "val")).probabilities.astype(float) for r in ("depth", "pose")]
        geometric = np.exp((np.log(p[0]) + np.log(p[1])) / 2)
        stored = Predictions.load(run.predictions_path("fusion", "val")).probabilities
        np.testing.assert_allclose(stored, geometric / geometric.sum(1, keepdims=True), atol=1e-4)
    assert evaluate(run, "test", ["fusion"]).keys() == {"fusion"}
    assert [line["role"] for line in ledger(run)] == ["fusion"]
    with pytest.raises(ModaliftError, match="cannot be deployed - ship one of its networks: --student depth"):
        ship(run, "fusion", tmp_path / "no.modalift")
    assert ship(run, "depth", tmp_path / "yes.modalift")["view"] == "depth"
    assert "fusion" in write_report(run.folder).read_text()


def test_a_fusion_can_be_compared_with_a_single_sensor(recipe_file, tmp_path, two):
    run = made(recipe_file, tmp_path / "f", "fusion", {"depth": DEPTH, "pose": POSE})
    for r in (two[0], run):
        evaluate(r, "val")
    found = compare_runs({"single": [two[0].folder], "bound": [run.folder]}, split="val",
                         choice=RoleChoice(own={"bound": "fusion"}))
    assert [row["role"] for row in found["rows"]] == ["student", "fusion"]


def test_folds_of_a_fusion_are_scored_together(recipe_file, tmp_path):
    run = made(recipe_file, tmp_path / "f", "fusion", {"depth": DEPTH, "pose": POSE}, protocol={"folds": 2})
    assert evaluate(run)["fusion"]["n"] == 24
