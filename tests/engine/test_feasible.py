"""What cannot end well is refused before the first step, and a finished epoch is never lost to a check at the end."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from modalift.engine import feasible
from modalift.engine.build import assemble
from modalift.engine.evaluate import evaluate
from modalift.engine.run import Run
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.files import to_json
from modalift.recipe import load_recipe
from told import Told


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny dataset that a test may change."""
    return shutil.copytree(tiny, tmp_path / "data")


def change(root: Path, edit) -> None:
    """Edits the manifest's rows."""
    with (root / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        edit(row)
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def steps(run: Path) -> int:
    return (run / "log.jsonl").read_text().count('"kind": "step"') if (run / "log.jsonl").exists() else 0


def refused(plan, match: str) -> None:
    """The training is refused before its first step, and again."""
    for _ in range(2):
        with pytest.raises(ModaliftError, match=match):
            train(plan)
        assert not steps(plan.run.dir)
        assert not (plan.run.dir / "checkpoints" / "last.pt").exists()


@pytest.mark.parametrize("key", ["protocol.select=best", "optim.schedule=plateau"])
def test_validation_clips_without_labels_do_not_do(recipe_file, own, key):
    change(own, lambda row: row.update(label="", label_name="") if row["split"] == "val" else None)
    path = recipe_file(data={"root": str(own)})
    refused(load_recipe(path, [key]), f"{key} needs validation clips with labels, and none of its 6 clips has a label and")
    assert train(load_recipe(path)).finished, "nothing else needs them"


def test_validation_clips_without_the_students_view_do_not_do(recipe_file, own):
    change(own, lambda row: row.update(depth="") if row["split"] == "val" else None)
    path = recipe_file(data={"root": str(own)})
    refused(load_recipe(path, ["protocol.select=best"]), "needs validation clips with labels, and none of its 6 clips has")


def test_validation_clips_that_are_all_corrupt_do_not_do_until_they_are_mended(recipe_file, own):
    kept = shutil.copytree(own, own.with_name("kept"))
    for i in (6, 7, 8, 18, 19, 20):
        (own / f"c{i:02d}_depth.npz").write_bytes(b"")
    plan = load_recipe(recipe_file(data={"root": str(own), "max_corrupt": 1.0}), ["protocol.select=best"])
    refused(plan, "of its 6 clips 6 cannot be read")
    shutil.rmtree(own)
    shutil.copytree(kept, own)
    assert train(plan).finished


def test_a_student_among_several_that_is_not_validated_is_told(recipe_file, own):
    change(own, lambda row: row.update(pose="") if row["split"] == "val" else None)
    told = Told()
    train(load_recipe(recipe_file("mtut", data={"root": str(own)}), ["protocol.select=best", "optim.epochs=1"]), told)
    assert "networks.pose is not validated: no validation clip has what its metrics need" in told.lines


@pytest.mark.parametrize("key", ["protocol.select=best", "optim.schedule=plateau"])
def test_validations_that_never_come_are_refused(recipe_file, key):
    plan = load_recipe(recipe_file(), [key, "protocol.eval_every=3"])
    refused(plan, f"protocol.eval_every=3 is larger than optim.epochs=2, and {key} needs validations")


def test_the_last_epoch_is_always_validated(recipe_file, tmp_path):
    run = train(load_recipe(recipe_file(), ["protocol.eval_every=2", "optim.epochs=3", "protocol.select=best"]))
    entries = [json.loads(line) for line in run.log_path.read_text().splitlines()]
    assert [e["epoch"] for e in entries if "val" in e] == [1, 2]
    assert run.finished


def test_folds_are_checked_before_the_first_is_trained(recipe_file, tmp_path):
    """The validation subject is a test subject of the last fold."""
    plan = load_recipe(recipe_file(), ["protocol.folds=4", "protocol.val_subjects=[s4]"])
    with pytest.raises(ModaliftError, match="no training clip of subject 's4'"):
        train(plan)
    assert not (tmp_path / "run").exists()


def test_a_model_that_cannot_be_saved_is_refused(recipe_file, monkeypatch):
    def broken(cls, network):
        raise ModaliftError("its network cannot be described")

    monkeypatch.setattr("modalift.models.recognizer.RecognizerModel.describe", classmethod(broken))
    refused(load_recipe(recipe_file()), "its network cannot be described")


def test_costs_that_cannot_be_counted_are_found_before(recipe_file, monkeypatch):
    def broken(experiment):
        raise ModaliftError("cannot be counted")

    monkeypatch.setattr("modalift.engine.train.training_macs", broken)
    refused(load_recipe(recipe_file()), "cannot be counted")


def test_a_disk_without_room_is_told_before(recipe_file, monkeypatch):
    monkeypatch.setattr(feasible.shutil, "disk_usage", lambda folder: type("", (), {"free": 10_000})())
    refused(load_recipe(recipe_file(), ["data.cache="]), r"checkpoints and models take about .* GB, and the disk has")
    monkeypatch.undo()
    plan = load_recipe(recipe_file(), ["optim.ema=0.9", "protocol.select=best"])
    needed = feasible.bytes_needed(assemble(plan))
    run = train(plan)
    written = sum(p.stat().st_size for p in run.folder.rglob("*") if p.suffix in (".pt", ".modalift"))
    assert 0.8 * written < needed < 3 * written, "the estimate is of the right size"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_told_before(recipe_file, tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    refused(load_recipe(recipe_file()), "cannot be written")


def test_a_file_where_checkpoints_belong_is_told_before(recipe_file, tmp_path):
    plan = load_recipe(recipe_file())
    run = train(plan)
    shutil.rmtree(run.folder / "checkpoints")
    run.compute_path.unlink()
    run.log_path.unlink()
    (run.folder / "checkpoints").write_text("a file")
    refused(plan, "checkpoints: .*cannot be written")


def test_settings_without_effect_are_told(recipe_file):
    told = Told()
    options = ["optim.schedule=step", "optim.milestones=[1,5,7]", "optim.warmup=4", "optim.per_class=9"]
    train(load_recipe(recipe_file(), options), told)
    assert [line for line in told.lines if line.startswith("optim.")] == [
        "optim.milestones has no effect: those from epoch 2 on are not reached",
        "optim.warmup=4: the learning rate is not reached in optim.epochs=2",
        "optim.per_class=9: no class has that many training clips, at most 4; batches are shuffled plainly"]


def test_checks_leave_the_scheme_in_training_mode(recipe_file, tmp_path):
    experiment = assemble(load_recipe(recipe_file()))
    feasible.check_training(experiment, Run(tmp_path / "run"), Told())
    assert all(module.training for module in experiment.scheme.modules())


# ---- logs ----------------------------------------------------------------------------------------------------------------


def table_of(run: Run) -> list[dict[str, str]]:
    with run.metrics_path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_that_come_later_are_kept(recipe_file):
    run = train(load_recipe(recipe_file(), ["protocol.eval_every=2", "optim.epochs=5"]))
    rows = table_of(run)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [bool(row["val.student.top1"]) for row in rows] == [False, True, False, True, True]
    entries = [json.loads(line) for line in run.log_path.read_text().splitlines()]
    epochs = [e for e in entries if e["kind"] == "epoch"]
    assert [float(row["loss"]) for row in rows] == [e["loss"] for e in epochs]
    assert float(rows[3]["val.student.top1"]) == epochs[3]["val"]["student"]["top1"]


def test_the_table_of_a_resumed_run_is_that_of_a_run_that_was_not_stopped(recipe_file, tmp_path):
    """Stopped in an epoch after a column was added, with a checkpoint of before."""
    options = ["protocol.eval_every=2", "optim.epochs=5", "run.checkpoint_every_s=0.001"]
    path = recipe_file()
    whole = train(load_recipe(path, [*options, f"run.dir={tmp_path / 'whole'}"]))
    for stop in (1, 4, 6, 7, 10, 14):
        broken = load_recipe(path, [*options, f"run.dir={tmp_path / f'broken{stop}'}"])
        with pytest.raises(HaltError):
            train(broken, Stopper(stop))
        run = train(broken)
        drop = lambda rows: [{k: v for k, v in row.items() if k != "seconds"} for row in rows]  # noqa: E731
        assert drop(table_of(run)) == drop(table_of(whole)), stop
        assert list(table_of(run)[0]) == list(table_of(whole)[0])


class HaltError(Exception):
    """Ends a training where a kill would."""


class Stopper(Told):
    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def progress(self, task, total, done=0):
        return Stopping(self.at if task == "training" else 10**9)


class Stopping:
    def __init__(self, at: int) -> None:
        self.at = at

    def __enter__(self):
        def update(done: int, note: str = "") -> None:
            if done >= self.at:
                raise HaltError
        return update

    def __exit__(self, *_):
        return None


def test_numbers_that_are_not_finite_are_null(recipe_file, monkeypatch, tmp_path):
    found = {"student": {"top1": 0.5, "mean_class": float("nan"), "loss": float("inf")}}
    monkeypatch.setattr("modalift.engine.trainer.validate", lambda *_: found)
    run = train(load_recipe(recipe_file(), ["protocol.select=best"]))
    text = run.log_path.read_text() + run.compute_path.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    entries = [json.loads(line, parse_constant=pytest.fail) for line in run.log_path.read_text().splitlines()]
    assert next(e for e in entries if "val" in e)["val"]["student"] == {"top1": 0.5, "mean_class": None, "loss": None}
    assert {row["val.student.top1"] for row in table_of(run)} == {"0.5"}
    assert to_json([np.float64("nan"), {"a": (1.0, float("-inf"))}]) == '[null, {"a": [1.0, null]}]'


# ---- one training per folder -----------------------------------------------------------------------------------------------


def command(path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "modalift", "train", str(path), *more]


def wait_for(path: Path, seconds: float = 120) -> None:
    deadline = time.time() + seconds
    while not path.exists():
        assert time.time() < deadline
        time.sleep(0.01)


def test_a_second_training_in_the_folder_is_refused_and_a_killed_one_does_not_matter(recipe_file, tmp_path):
    path = recipe_file()
    long = ["optim.epochs=2000", "run.checkpoint_every_s=0.01", "run.workers=1"]
    first = subprocess.Popen(command(path, *long), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(tmp_path / "run" / "checkpoints" / "last.pt")
        second = subprocess.run(command(path, *long), capture_output=True, text=True, check=False)
        assert second.returncode == 2
        line = second.stderr.strip().splitlines()[-1]
        assert f"another training writes into this folder (process {first.pid} on " in line
        assert "set run.dir to another folder" in line
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    third = subprocess.Popen(command(path, *long), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        before = steps(tmp_path / "run")
        deadline = time.time() + 120
        while steps(tmp_path / "run") <= before and third.poll() is None and time.time() < deadline:
            time.sleep(0.01)
        assert third.poll() is None, third.stderr.read()
    finally:
        third.kill()
        third.wait()
        third.stderr.close()


def test_a_refused_training_leaves_no_folder(recipe_file, own, tmp_path):
    (own / "c00_depth.npz").write_bytes(b"")
    plan = load_recipe(recipe_file(data={"root": str(own), "max_corrupt": 0.0}), [f"run.dir={tmp_path / 'new' / 'run'}"])
    with pytest.raises(ModaliftError, match=r"1 of 24 clips cannot be read .* has zero bytes - restore these"):
        train(plan)
    assert not (tmp_path / "new" / "run").exists()


def _evaluate(folder: Path, split: str, done) -> None:
    evaluate(Run(folder), split)
    done.put(split)


def test_evaluations_at_the_same_time_keep_each_others_results(recipe_file):
    run = train(load_recipe(recipe_file()))
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    workers = [context.Process(target=_evaluate, args=(run.folder, split, done)) for split in ("train", "val", "test")]
    for worker in workers:
        worker.start()
    assert {done.get(timeout=120) for _ in workers} == {"train", "val", "test"}
    for worker in workers:
        worker.join()
    assert set(run.results()["student"]) == {"train", "val", "test"}


def test_a_clip_that_a_rank_could_not_read_is_known_to_all(recipe_file, monkeypatch):
    plan = load_recipe(recipe_file(), ["optim.epochs=1"])
    monkeypatch.setattr("modalift.engine.trainer.gather", lambda value, ranks: [value, {"c04": "torn on the other rank"}])
    assert train(plan).compute()["left_out"] == {"c04": "torn on the other rank"}
