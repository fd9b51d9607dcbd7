"""A run's folder that was damaged, or that is another run's: one line that says what to do, and nothing is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from modalift.engine.checkpoint import read_checkpoint
from modalift.engine.evaluate import evaluate
from modalift.engine.run import Run
from modalift.engine.study import Cell
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.models import container, is_whole, load
from modalift.recipe import load_recipe


@pytest.fixture
def recipe(recipe_file) -> Path:
    return recipe_file(optim={"epochs": 1})


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xff")])
def test_the_same_command_writes_a_lost_model_again(recipe, damage):
    run = train(load_recipe(recipe))
    file = run.model_path("student")
    before = file.read_bytes()
    damage(file)
    assert not is_whole(file)
    with pytest.raises(ModaliftError, match=r"modalift train"):
        evaluate(run)
    train(load_recipe(recipe))
    assert file.read_bytes() == before


def test_a_refused_recipe_leaves_that_of_the_folder(recipe):
    run = train(load_recipe(recipe))
    run.compute_path.unlink()  # as if it had been killed
    before = run.recipe_path.read_bytes()
    with pytest.raises(ModaliftError, match="started with another recipe"):
        train(load_recipe(recipe, ["run.seed=5"]))
    assert run.recipe_path.read_bytes() == before
    train(load_recipe(run.folder))
    assert run.finished


def test_a_cross_validation_and_a_run_do_not_share_a_folder(recipe):
    run = train(load_recipe(recipe))
    before = run.recipe_path.read_bytes()
    with pytest.raises(ModaliftError, match="holds a run that is not a cross-validation"):
        train(load_recipe(recipe, ["protocol.folds=2"]))
    assert run.recipe_path.read_bytes() == before
    folds = train(load_recipe(recipe, ["protocol.folds=2", f"run.dir={run.folder}2"]))
    with pytest.raises(ModaliftError, match="holds the folds of a cross-validation"):
        train(load_recipe(recipe, [f"run.dir={folds.folder}"]))
    with pytest.raises(ModaliftError, match=r"name the run of one fold, e\.g\. .*fold0"):
        folds.model()
    with pytest.raises(ModaliftError, match=r"networks\.student\.init: .*run2 is a cross-validation .*fold0, or .*\{fold\}"):
        train(load_recipe(recipe, [f"networks.student.init={folds.folder}", "run.dir=elsewhere"]))


@pytest.mark.parametrize("damage", [
    lambda held: held.pop("scheme"), lambda held: held["scheme"].popitem(), lambda held: held.update(optimizers={}),
    lambda held: held.update(random=torch.zeros(3)),
    lambda held: held.update(log_sizes=None), lambda held: held.update(position=3),
    lambda held: held["position"].update(epoch="a")])
def test_a_checkpoint_that_lacks_a_part_is_named(recipe, damage):
    run = train(load_recipe(recipe))
    run.compute_path.unlink()
    held = read_checkpoint(run.last_checkpoint_path)
    damage(held)
    torch.save(held, run.last_checkpoint_path)
    with pytest.raises(ModaliftError, match=r"last\.pt: a part of the training state .* remove it to start again"):
        train(load_recipe(recipe))
    run.last_checkpoint_path.unlink()
    train(load_recipe(recipe))
    assert run.finished


@pytest.mark.parametrize("text", ["[" * 100_000, '{"student": 3}', '{"student": {"test": 4}}', "{"])
def test_damaged_results_are_named(tmp_path, text):
    run = Run(tmp_path)
    run.results_path.write_text(text)
    with pytest.raises(ModaliftError, match=r"results\.json: is damaged .* writes it again"):
        run.results()
    run.compute_path.write_text(text)
    with pytest.raises(ModaliftError, match=r"compute\.json: is damaged .* writes it again"):
        run.compute()


def test_eval_computes_where_it_is_told(recipe):
    run = train(load_recipe(recipe))
    with pytest.raises(ModaliftError, match=r"run\.device = 'zz' is no device here - use cpu, cuda or auto"):
        evaluate(run, overrides=["run.device=zz"])
    assert not run.results_path.exists()


def test_a_split_without_clips_is_named(recipe, tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "data")
    manifest = tmp_path / "data" / "manifest.csv"
    manifest.write_text("".join(line for line in manifest.read_text().splitlines(keepends=True) if ",val," not in line))
    run = train(load_recipe(recipe, [f"data.root={manifest.parent}"]))
    with pytest.raises(ModaliftError, match="has no val clips - give another --split"):
        evaluate(run, "val")


def test_weights_that_are_not_finite_are_not_loaded(recipe, tmp_path):
    held = container.read(train(load_recipe(recipe)).model_path("student"))
    next(t for t in held.tensors.values() if t.is_floating_point()).view(-1)[0] = float("nan")
    container.write(tmp_path / "nan.modalift", held.tensors, held.document)
    with pytest.raises(ModaliftError, match=r"nan\.modalift: the weight '.*' is not finite"):
        load(tmp_path / "nan.modalift")


def test_the_best_checkpoint_must_be_there(recipe_file):
    recipe = load_recipe(recipe_file(optim={"epochs": 1}, protocol={"select": "best"}))
    run = train(recipe)
    seconds = json.loads(run.compute_path.read_text())["seconds"]
    assert seconds > 0
    run.compute_path.unlink()
    shutil.move(run.best_checkpoint_path, run.best_checkpoint_path.with_name("elsewhere.pt"))
    with pytest.raises(ModaliftError, match=r"best\.pt: is missing, and protocol.select=best needs it at the end - restore it"):
        train(recipe)


def test_a_network_starts_from_no_damaged_file_and_from_none_of_another_kind(recipe, tmp_path):
    run = train(load_recipe(recipe))
    file = tmp_path / "start.modalift"
    file.write_bytes(run.model_path("student").read_bytes()[:-1] + b"\xff")
    asked = ["run.dir=" + str(tmp_path / "other"), f"networks.student.init={file}"]
    with pytest.raises(ModaliftError, match=r"start\.modalift: its weights do not match"):
        train(load_recipe(recipe, asked))
    held = container.read(run.model_path("student"))
    file.unlink()
    container.write(file, held.tensors, {**held.document, "kind": "translator"})
    with pytest.raises(ModaliftError, match=r"networks\.student\.init: .* holds a translator, not a recognizer"):
        train(load_recipe(recipe, asked))


def test_the_cells_of_a_study_load_its_plugins(tmp_path):
    cell = Cell("a", "a.yaml", 0, 0, 0, (), plugins=(Path("mine.py"),))
    assert [words[:3] for words in cell.commands(tmp_path)] == [["--plugin", "mine.py", verb] for verb in ("train", "eval")]
