"""Every figure belongs to weights, a protocol, clips and the contents of files; none is shown, reused or shipped for others."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from modalift.engine.evaluate import current_predictions, evaluate
from modalift.engine.fuse import fuse
from modalift.engine.provenance import Evidence, RecordedClips, changed_clips, joined, summarized
from modalift.engine.run import Run
from modalift.engine.ship import ship
from modalift.engine.study import study
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.models import Predictions, load
from modalift.recipe import load_recipe
from modalift.report.compare import compare_runs, write_comparison
from modalift.report.page import write_report
from modalift.report.record import read_record
from tiny import write_manifest, write_tiny

DEPTH = {"name": "small", "view": "depth", "width": 4, "motion": "clip"}
POSE = {"name": "tcn", "view": "pose", "width": 8, "blocks": 1}
TEST = [f"c{i:02d}" for i in (9, 10, 11, 21, 22, 23)]  # of subject s4


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "data")


@pytest.fixture
def trained(recipe_file, data: Path):
    """Trains a recipe over a dataset that the test may change: ``trained(name, networks=..., changes=...)``."""

    def make(name: str = "run", scheme: str = "single", networks: dict | None = None, changes=(), **sections) -> Run:
        path = recipe_file(scheme, name, networks or {"student": DEPTH}, data={"root": str(data)}, optim={"epochs": 1},
                           **sections)
        return train(load_recipe(path, [f"run.dir={data.parent / name}", *changes]))

    return make


class Said:
    """A monitor that keeps its messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str, *, warning: bool = False) -> None:
        self.lines.append(text)


def rows_of(data: Path) -> list[dict]:
    with (data / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rewrite(data: Path, clip: str, view: str = "depth") -> None:
    """Another recording under the same name, of the same size."""
    name, key = data / f"{clip}_{view}.npz", "frames" if view == "depth" else "joints"
    with np.load(name) as held:
        changed = held[key][::-1].copy()
    np.savez(name, **{key: changed})


def move(data: Path, split: str, *clips: str) -> None:
    rows = rows_of(data)
    for row in rows:
        row["split"] = split if row["clip_id"] in clips else row["split"]
    write_manifest(data, rows)


# ---- what an evaluation says about itself ----------------------------------------------------------------------------


def test_a_figure_has_its_evidence(trained):
    run = trained()
    metrics = evaluate(run)["student"]
    evidence = Evidence.parse(metrics["evidence"])
    assert (evidence.split, evidence.crops, evidence.conditions, evidence.frames) == ("test", "1x1", "", "recordings")
    assert list(evidence.contents) == ["depth"]
    assert evidence.recipe == run.compute()["fingerprint"]
    assert Run(run.folder).results()["student"]["test"]["evidence"] == metrics["evidence"]
    assert Predictions.load(run.predictions_path("student", "test")).evidence == metrics["evidence"]


def test_other_crops_and_other_data_do_not_take_the_place_of_the_runs_own_figures(trained, data, tmp_path):
    run = trained()
    own = evaluate(run)["student"]
    shutil.copytree(data, tmp_path / "copy")
    shutil.copytree(data, tmp_path / "other")
    for clip in TEST:
        rewrite(tmp_path / "other", clip)
    assert evaluate(run, overrides=["protocol.temporal_crops=2"])["student"]["evidence"]["conditions"] == "2x1 crops"
    elsewhere = evaluate(run, overrides=[f"data.root={tmp_path / 'other'}"])["student"]["evidence"]
    assert elsewhere["conditions"].startswith("data ")
    assert evaluate(run, overrides=[f"data.root={tmp_path / 'copy'}"])["student"]["evidence"] == own["evidence"], "a copy"
    keys = list(run.results()["student"])
    assert keys == ["test", "test, 2x1 crops", f"test, {elsewhere['conditions']}"]
    assert run.results()["student"]["test"]["top1"] == own["top1"]
    assert Predictions.load(run.predictions_path("student", "test")).evidence == own["evidence"]
    ledger = run.ledger_path.read_text().splitlines()
    assert ['"conditions"' in line for line in ledger] == [False, True, True, False]
    text = write_report(run.folder).read_text()
    assert "test, 2x1 crops" in text
    assert read_record(run.folder).headline() == ("student", "test")


def test_changed_recordings_are_evaluated_as_they_are_and_named(trained, data):
    run, said = trained(), Said()
    before = evaluate(run)["student"]
    rewrite(data, TEST[0])
    after = evaluate(run, monitor=said)["student"]
    assert before["evidence"]["contents"] != after["evidence"]["contents"]
    assert f"the recordings of 1 test clips have changed since the training ('{TEST[0]}', ...)" in said.lines[0]


@pytest.mark.parametrize("renamed", [False, True])
def test_clips_that_were_trained_on_measure_nothing(trained, data, renamed):
    run = trained()
    evaluate(run)
    move(data, "test", "c00", "c01")
    if renamed:
        rows = rows_of(data)
        for row in rows:
            row["clip_id"] = f"new_{row['clip_id']}"
        write_manifest(data, rows)
    name = "new_c00" if renamed else "c00"
    with pytest.raises(ModaliftError, match=f"was trained on 2 of the 8 test clips \\('{name}', ...\\)"):
        evaluate(run)
    evaluate(run, "train")


def test_a_recording_that_was_twice_in_the_dataset_from_the_start_is_no_reason_to_stop(trained, data):
    shutil.copy(data / "c00_depth.npz", data / f"{TEST[0]}_depth.npz")
    assert evaluate(trained())["student"]["n"] == 6


def test_another_recording_under_the_id_of_a_training_clip_was_not_trained_on(trained, data):
    run = trained()
    rewrite(data, "c00")
    move(data, "test", "c00")
    assert evaluate(run)["student"]["n"] == 7


def test_the_teachers_clips_count_too(trained, data):
    teacher = trained("teacher", networks={"student": POSE})
    move(data, "test", "c00")
    networks = {"student": DEPTH, "teacher": {"init": str(teacher.folder)}}
    with pytest.raises(ModaliftError, match=r"networks.teacher.init: .* was trained on 1 clips that this recipe holds out"):
        trained("student", "distill", networks)
    move(data, "train", "c00")
    student = trained("student", "distill", networks)
    assert set(RecordedClips.of(teacher).trained_on) <= set(RecordedClips.of(student).trained_on)


# ---- what is not taken for the same --------------------------------------------------------------------------------


def test_a_finished_run_of_changed_recordings_is_refused(trained, data):
    trained()
    rewrite(data, TEST[0])
    trained()  # the test split may change
    rewrite(data, "c00")
    with pytest.raises(ModaliftError, match=r"the recordings of 1 training clips have changed .* \('c00', ...\)"):
        trained()


def test_a_finished_run_of_another_recipe_says_what_differs(trained):
    trained()
    with pytest.raises(ModaliftError, match=r"another recipe \(optim.lr is 0.003 there and 0.5 here\)"):
        trained(changes=["optim.lr=0.5"])


def test_a_run_belongs_to_the_weights_that_it_started_from(trained, data):
    teacher = trained("teacher", networks={"student": POSE})
    networks = {"student": DEPTH, "teacher": {"init": str(teacher.folder)}}
    trained("student", "distill", networks)
    trained("student", "distill", networks)
    shutil.rmtree(teacher.folder)
    trained("teacher", networks={"student": POSE}, changes=["run.seed=5"])
    with pytest.raises(ModaliftError, match="the weights that it starts from differ"):
        trained("student", "distill", networks)


def test_figures_of_other_weights_are_neither_shown_nor_compared(trained):
    a, b = trained("a"), trained("b", changes=["run.seed=1"])
    for run in (a, b):
        evaluate(run)
    assert compare_runs([a.folder, b.folder])["rows"]
    shutil.copy(a.model_path("student"), b.model_path("student"))
    record = read_record(b.folder)
    assert record.results == {}
    assert any("not those of its present weights" in p for p in record.problems)
    with pytest.raises(ModaliftError, match=r"b: the predictions of 'student' on the split 'test' are of other weights"):
        compare_runs([a.folder, b.folder])
    assert current_predictions(b, "student", "test") is None


def test_runs_that_were_evaluated_on_different_recordings_are_not_compared(trained, data):
    a, b = trained("a"), trained("b", changes=["run.seed=1"])
    evaluate(a)
    rewrite(data, TEST[0])
    evaluate(b)
    with pytest.raises(ModaliftError, match=r"b: was evaluated on other recordings, windows or labels than .*a"):
        compare_runs([a.folder, b.folder])
    evaluate(a)
    assert len(compare_runs([a.folder, b.folder])["rows"]) == 2


def test_labels_count_for_runs_of_different_sensors(trained, data):
    a, b = trained("a"), trained("b", networks={"student": POSE})
    evaluate(a)
    rows = rows_of(data)
    for row in rows:
        row["subject"] = "s9" if row["clip_id"] == TEST[0] else row["subject"]
    write_manifest(data, rows)
    evaluate(b)
    with pytest.raises(ModaliftError, match="other recordings, windows or labels"):
        compare_runs([a.folder, b.folder])


def test_clips_are_not_drawn_beside_predictions_of_other_recordings(trained, data, tmp_path):
    a, b = trained("a"), trained("b", changes=["run.seed=1"])
    for run in (a, b):
        evaluate(run)
    assert "recordings have changed" not in write_comparison([a.folder, b.folder], tmp_path / "page.html").read_text()
    rewrite(data, TEST[0])
    assert "recordings have changed" in write_comparison([a.folder, b.folder], tmp_path / "page.html").read_text()
    assert "recordings have changed" in write_report(a.folder).read_text()


def test_fusion_reuses_only_predictions_of_the_present_clips_and_weights(trained, data):
    a, b = trained("a"), trained("b", networks={"student": POSE})
    first = fuse([a, b])
    assert len(a.ledger_path.read_text().splitlines()) == 2, "evaluated and fused"
    fuse([a, b])
    assert len(a.ledger_path.read_text().splitlines()) == 3, "fused again"
    for clip in TEST:
        rewrite(data, clip)
    again = fuse([a, b])
    assert len(a.ledger_path.read_text().splitlines()) == 5, "evaluated again, since its recordings changed"
    assert len(b.ledger_path.read_text().splitlines()) == 4, "the other sensor's recordings are the same"
    assert again["members"]["a:student"]["evidence" if "evidence" in again["members"]["a:student"] else "n"]
    assert first["members"]["b:student"]["top1"] == again["members"]["b:student"]["top1"]
    evaluate(a, overrides=["protocol.temporal_crops=2"])
    fuse([a, b])
    assert len(b.ledger_path.read_text().splitlines()) == 5
    shutil.rmtree(data)
    assert fuse([a, b])["fusion"]["n"] == 6, "predictions of the present weights serve without the recordings"


def test_folds_are_joined_with_their_evidence(trained, data):
    run = trained(protocol={"folds": 2})
    evaluate(run)
    found = Predictions.load(run.predictions_path("student", "test"))
    parts = [Predictions.load(f.predictions_path("student", "test")) for f in run.folds()]
    assert found.evidence == joined([p.evidence for p in parts]) != {}
    assert current_predictions(run, "student", "test") is not None
    rewrite(data, "c05")
    assert current_predictions(run, "student", "test") is None


# ---- studies ------------------------------------------------------------------------------------------------------


def test_a_study_does_not_reuse_a_cell_of_another_recipe_or_other_recordings(recipe_file, data):
    one = recipe_file(name="one", networks={"student": DEPTH}, data={"root": str(data)}, optim={"epochs": 1})
    two = recipe_file(name="two", networks={"student": POSE}, data={"root": str(data)}, optim={"epochs": 1})
    out = data.parent / "study"
    first = study([one, two], out, seeds=1)
    assert study([one, two], out, seeds=1) == first
    with pytest.raises(ModaliftError, match=r"one/seed0: holds a run of another recipe \(optim.lr is 0.003 there and 0.5 here"):
        study([one, two], out, seeds=1, overrides=["optim.lr=0.5"])
    edited = recipe_file(name="two", networks={"student": {**POSE, "width": 4}}, data={"root": str(data)}, optim={"epochs": 1})
    with pytest.raises(ModaliftError, match=r"two/seed0: .* \(networks.student.width is 8 there and 4 here"):
        study([one, edited], out, seeds=1)
    recipe_file(name="two", networks={"student": POSE}, data={"root": str(data)}, optim={"epochs": 1})
    for clip in TEST:
        rewrite(data, clip)
    lines = (out / "one" / "seed0" / "test_ledger.jsonl").read_text().splitlines()
    study([one, two], out, seeds=1)
    assert len((out / "one" / "seed0" / "test_ledger.jsonl").read_text().splitlines()) == len(lines) + 1, "evaluated again"
    rewrite(data, "c00")
    with pytest.raises(ModaliftError, match="recordings of 1 training clips have changed"):
        study([one, two], out, seeds=1)


def test_a_study_compares_networks_that_read_the_same_view(recipe_file, data):
    single = recipe_file(name="single", networks={"student": DEPTH}, data={"root": str(data)}, optim={"epochs": 1})
    mtut = recipe_file("mtut", "mtut", {"depth": DEPTH, "pose": POSE}, data={"root": str(data)}, optim={"epochs": 1})
    rows = study([single, mtut], data.parent / "study", seeds=1)["rows"]
    assert [row["role"] for row in rows] == ["student", "depth"]
    with pytest.raises(ModaliftError, match=r"mtut trained depth \(reads depth\), pose \(reads pose\) - name one"):
        study([mtut], data.parent / "other", seeds=1)
    assert not (data.parent / "other").exists(), "before anything is trained"


# ---- bundles --------------------------------------------------------------------------------------------------------


def test_a_bundle_has_only_figures_of_its_own_weights_protocol_and_data(trained, data, tmp_path):
    run, said = trained(), Said()
    evaluate(run, "val")
    own = evaluate(run)["student"]
    evaluate(run, overrides=["protocol.temporal_crops=2"])
    shutil.copytree(data, tmp_path / "other")
    for clip in TEST:
        rewrite(tmp_path / "other", clip)
    evaluate(run, overrides=[f"data.root={tmp_path / 'other'}"])
    ship(run, "", tmp_path / "x.modalift", said)
    measured = load(tmp_path / "x.modalift").provenance["measured"]
    assert set(measured) == {"val", "test"}
    assert measured["test"]["top1"] == own["top1"]
    assert measured["test"]["evidence"] == own["evidence"]
    assert said.lines == []


def test_figures_without_evidence_do_not_ship(trained, tmp_path):
    run, said = trained(), Said()
    evaluate(run)
    text = run.results_path.read_text()
    run.results_path.write_text(text.replace('"evidence"', '"earlier"'))
    ship(run, "", tmp_path / "x.modalift", said)
    assert load(tmp_path / "x.modalift").provenance["measured"] == {}
    assert "evaluate it again" in said.lines[0]


# ---- parts ----------------------------------------------------------------------------------------------------------


def test_contents():
    then = {"a": {"rgb": "1:0:", "depth": "2:0:"}, "b": {"rgb": ":0:"}, "c": {"rgb": "3:0:9"}}
    assert changed_clips(then, {"a": {"rgb": "1:0:"}, "b": {"rgb": "7:0:"}, "c": {"rgb": "3:0:9"}, "d": {"rgb": "4:0:"}}) == []
    assert changed_clips(then, {"a": {"rgb": "1:0:", "depth": "9:0:"}}) == ["a"]
    assert changed_clips(then, {"c": {"rgb": "3:1:9"}}) == ["c"], "another window"
    one, other = {"a": {"rgb": "1:0:"}}, {"b": {"rgb": "2:0:"}}
    assert summarized({**one, **other}) == summarized({**other, **one}) != summarized(one)
    assert summarized({"a": {"rgb": ":0:"}, **other}) == {"rgb": ""}, "files that are gone"


def test_a_damaged_record_of_clips_is_named(trained):
    run = trained()
    run.clips_path.write_text("{}")
    with pytest.raises(ModaliftError, match=r"clips.json: is damaged"):
        evaluate(run)
