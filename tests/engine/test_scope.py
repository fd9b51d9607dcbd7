"""What an evaluation is of: clips that are counted or left out, and people and conditions that the split holds out."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from modalift.engine.evaluate import evaluate
from modalift.engine.fuse import fuse
from modalift.engine.run import Run
from modalift.engine.scope import held_out, joined_held_out, joined_scope
from modalift.engine.study import Cell, summary
from modalift.engine.tables import hold_out, open_table, take_fold
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.modalities import Row, Table, is_known
from modalift.recipe import load_recipe
from modalift.report.compare import compare_runs
from tiny import write_manifest, write_tiny


def tiny_of(folder: Path, change=lambda rows: None, clips: int = 24) -> Path:
    """The tiny dataset with changed rows of its manifest."""
    root = write_tiny(folder, clips=clips)
    rows = list(csv.DictReader((root / "manifest.csv").open()))
    change(rows)
    write_manifest(root, rows)
    return root


def rows_of(split: str, rows: list[dict]) -> list[dict]:
    return [r for r in rows if r["split"] == split]


def damage(root: Path, first: int, last: int) -> None:
    """Damages some of the test clips' depth files."""
    for row in rows_of("test", list(csv.DictReader((root / "manifest.csv").open())))[first:last]:
        (root / row["depth"]).write_bytes(b"x")


def test_five_of_twelve_unreadable_test_clips_are_counted(recipe_file, tmp_path):
    root = tiny_of(tmp_path / "data", clips=48)
    recipe = recipe_file(data={"root": str(root)}, optim={"epochs": 1})
    run, other = train(load_recipe(recipe)), train(load_recipe(recipe, ["run.seed=1", f"run.dir={tmp_path / 'b'}"]))
    damage(root, 0, 5)
    found = evaluate(run)["student"]
    assert found["n"] == 7
    assert found["coverage"] == {"clips": 12, "scored": 7, "left_out": {"unreadable": 5}, "unreadable_labeled": 5,
                                 "max_corrupt": 0.05}
    assert len(found["left_out"]) == 5
    ledger = [json.loads(line) for line in run.ledger_path.read_text().splitlines()]
    assert (ledger[-1]["clips"], ledger[-1]["left_out"]) == (7, 5)
    fused = fuse([run, other])
    for metrics in (fused["fusion"], *fused["members"].values()):
        assert (metrics["coverage"]["clips"], metrics["coverage"]["left_out"]) == (12, {"unreadable": 5})
        assert metrics["held_out"]["subject"] is True
    assert json.loads(other.ledger_path.read_text().splitlines()[-1])["left_out"] == 5


def test_every_reason_is_counted(recipe_file, tmp_path):
    def change(rows: list[dict]) -> None:
        test = rows_of("test", rows)
        test[0]["label"] = test[0]["label_name"] = ""
        test[1]["depth"] = ""
        train = rows_of("train", rows)
        train[0]["label"] = train[0]["label_name"] = ""
        train[2]["depth"] = ""

    root = tiny_of(tmp_path / "data", change, clips=48)
    run = train(load_recipe(recipe_file(data={"root": str(root), "limit": 10}, optim={"epochs": 1})))
    damage(root, 2, 4)
    found = evaluate(run)["student"]["coverage"]
    assert found["clips"] == 12
    assert found["left_out"] == {"unreadable": 2, "no_view": 1, "unlabeled": 1, "limit": 2}
    assert found["scored"] == 12 - sum(found["left_out"].values()) == 6
    assert run.compute()["coverage"]["left_out"] == {"no_view": 1, "unlabeled": 1}
    assert run.compute()["coverage"]["scored"] == run.compute()["clips"] == 8


def test_a_split_without_labels_is_scored_in_no_number(recipe_file, tmp_path):
    def change(rows: list[dict]) -> None:
        for row in rows_of("test", rows):
            row["label"] = row["label_name"] = ""

    run = train(load_recipe(recipe_file(data={"root": str(tiny_of(tmp_path / "data", change))}, optim={"epochs": 1})))
    found = evaluate(run)["student"]
    assert (found["n"], found["top1"], found["coverage"]["left_out"]) == (0, None, {"unlabeled": 6})
    json.dumps(found, allow_nan=False)
    cell = Cell("a", Path("a.yaml"), 0, 0, 0, ())
    (tmp_path / "a").mkdir()
    run.folder.rename(tmp_path / "a" / "seed0")
    row = summary([cell], tmp_path)["rows"][0]
    assert (row["n"], row["top1"], row["mean"]) == (0, [], None)
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize(("subjects", "told", "shared"), [
    ({}, True, 0),
    ({"test": "s1"}, False, 1),
    ({"test": "unknown"}, None, 0),
    ({"train": ""}, None, 0),
    ({"train": "n/a", "test": "n/a"}, None, 0),
])
def test_held_out_people(recipe_file, tmp_path, subjects, told, shared):
    def change(rows: list[dict]) -> None:
        for split, subject in subjects.items():
            rows_of(split, rows)[0]["subject"] = subject

    recipe = recipe_file(data={"root": str(tiny_of(tmp_path / "data", change))}, optim={"epochs": 1})
    found = evaluate(train(load_recipe(recipe)))["student"]["held_out"]
    assert (found["clips"], found["subject"], found["shared_subjects"]) == (True, told, shared)


def test_validation_clips_that_select_the_checkpoint_are_not_held_out(recipe_file, tmp_path):
    run = train(load_recipe(recipe_file(optim={"epochs": 1}), ["protocol.select=best"]))
    assert evaluate(run, "val")["student"]["held_out"]["clips"] is False
    assert evaluate(run, "test")["student"]["held_out"]["clips"] is True
    last = train(load_recipe(recipe_file(optim={"epochs": 1}), [f"run.dir={tmp_path / 'last'}"]))
    assert evaluate(last, "val")["student"]["held_out"]["clips"] is True
    assert evaluate(last, "train")["student"]["held_out"] == {"clips": False, "subject": False, "shared_subjects": 2,
                                                              "metadata": {"lux": False}}


def test_people_that_only_the_teacher_saw(recipe_file, teacher, tmp_path):
    """The student's own training subjects are others than those of its teacher, who are tested."""
    root = Path(load_recipe(teacher).data.root)
    run = train(load_recipe(recipe_file("distill", networks={
        "student": {"name": "small", "view": "depth", "width": 4, "motion": "clip"}, "teacher": {"init": str(teacher)}},
        optim={"epochs": 1}), [f"data.root={root}"]))
    assert evaluate(run)["student"]["held_out"]["subject"] is True
    (teacher / "clips.json").rename(tmp_path / "clips.json")  # a run of an earlier version
    try:
        assert evaluate(run)["student"]["held_out"]["subject"] is None
    finally:
        (tmp_path / "clips.json").rename(teacher / "clips.json")


def table_of(**columns: list) -> Table:
    """A table of clips with these columns; the first half is for training, the second for the test."""
    n = len(next(iter(columns.values())))
    subjects = columns.pop("subject", ["s"] * n)
    return Table("t", (), {}, tuple(
        Row(f"c{i}", 0, subjects[i], "train" if i < n // 2 else "test", {},
            {k: v[i] for k, v in columns.items() if v[i] is not None}) for i in range(n)))


def test_held_out_conditions():
    table = table_of(scene=["hall"] * 4 + ["yard"] * 4, trial=[1.0, 2.0] * 4, file=[f"f{i}" for i in range(8)],
                     camera=["a", "b"] * 2 + ["c", None] * 2, lux=[0.1 * i for i in range(8)],
                     session=[float(i // 2) for i in range(8)], room=["unknown"] * 4 + ["r1", "r1", "r2", "r2"], site=["x"] * 8,
                     split_subject=["train", "test"] * 4)
    seen = {row.id for row in table.split("train")}
    found = held_out(table, table.split("test"), seen, True)["metadata"]
    assert found == {"scene": True, "trial": False, "camera": None, "session": True, "room": None}
    assert held_out(table, table.split("test"), seen, False)["metadata"]["scene"] is None, "not all training clips are known"


def test_joined_answers():
    yes, no = ({"clips": True, "subject": s, "shared_subjects": int(not s), "metadata": {"scene": s}} for s in (True, False))
    assert joined_held_out([yes, yes]) == yes
    assert joined_held_out([yes, no])["subject"] is False
    assert joined_held_out([yes, {**yes, "subject": None}])["subject"] is None
    assert joined_held_out([yes, None])["subject"] is None
    assert joined_held_out([no, None])["subject"] is False
    assert joined_held_out([None, {}]) is None
    part = {"left_out": {"a": "x"}, "held_out": yes,
            "coverage": {"clips": 3, "scored": 2, "left_out": {"unreadable": 1}, "unreadable_labeled": 1, "max_corrupt": 0.1}}
    other = {**part, "coverage": {**part["coverage"], "scored": 3, "left_out": {}, "unreadable_labeled": 0}}
    assert joined_scope([part, other])["coverage"] == {"clips": 6, "scored": 5, "left_out": {"unreadable": 1},
                                                       "unreadable_labeled": 1, "max_corrupt": 0.1}
    assert joined_scope([part, {"left_out": {}}])["coverage"] is None


def test_a_cross_validation_holds_people_out(recipe_file, tmp_path):
    run = train(load_recipe(recipe_file(optim={"epochs": 1}), ["protocol.folds=2"]))
    found = evaluate(run)["student"]
    assert found["held_out"]["subject"] is True
    assert found["coverage"] == {"clips": 24, "scored": 24, "left_out": {}, "unreadable_labeled": 0, "max_corrupt": 0.05}
    assert found["over_subjects"]["subjects"] == 4


def test_folds_and_held_out_subjects_need_known_subjects(recipe_file, tmp_path):
    table = open_table(load_recipe(recipe_file()))
    some = table.map(lambda r: replace(r, subject="none") if r.id in ("c03", "c07") else r)
    with pytest.raises(ModaliftError, match=r"subject of 2 of 24 clips of tiny.* is not known \('c03', \.\.\.\), and folds"):
        take_fold(some, 2, 0)
    with pytest.raises(ModaliftError, match=r"protocol.val_subjects: 'none' means that a subject is not known"):
        hold_out(some, ["none"])
    assert some.subjects == table.subjects
    assert not is_known("None")


def test_comparisons_and_studies_say_what_they_are_of(recipe_file, tmp_path):
    def change(rows: list[dict]) -> None:
        rows_of("test", rows)[0]["label"] = rows_of("test", rows)[0]["label_name"] = ""
        rows_of("test", rows)[1]["subject"] = "s1"

    root = tiny_of(tmp_path / "data", change, clips=48)
    recipe = recipe_file(data={"root": str(root)}, optim={"epochs": 1})
    cells = [Cell("a", recipe, seed, 0, 0, ()) for seed in range(2)] + [Cell("b", recipe, seed, 0, 0, ()) for seed in (0, 1)]
    for k, cell in enumerate(cells):
        run = train(load_recipe(recipe, [f"run.dir={cell.run(tmp_path).folder}", f"run.seed={k}"]))
        evaluate(run)
    found = summary(cells, tmp_path)["rows"]
    for row in (*found, *compare_runs([c.run(tmp_path).folder for c in cells[::2]])["rows"]):
        assert row["n"] == 11
        assert row["coverage"]["left_out"] == {"unlabeled": 1}
        assert (row["held_out"]["subject"], row["held_out"]["shared_subjects"]) == (False, 1)
        assert (row["subjects"], row["unknown_subject"]) == (2, 0)
    assert found[1]["against_first"]["intervals"]["clips"]
    json.dumps(found, allow_nan=False)


def test_runs_of_an_earlier_version_are_evaluated(recipe_file, tmp_path):
    run = train(load_recipe(recipe_file(optim={"epochs": 1})))
    run.clips_path.unlink()
    assert evaluate(Run(run.folder))["student"]["held_out"]["subject"] is True
