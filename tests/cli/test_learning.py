"""train and eval: wrong recipes, teachers and runs are refused in one line."""

from __future__ import annotations

import pytest

from tiny import write_tiny


def test_training_again_says_that_it_is_finished(modalift, recipe_file):
    recipe = recipe_file(optim={"epochs": 1})
    assert modalift("train", recipe)[0] == 0
    code, _, said = modalift("train", recipe)
    assert code == 0
    assert "is already finished" in said


@pytest.mark.parametrize(("words", "message"), [
    (("optim.lrr=1",), "did you mean 'optim.lr'?"),
    (("optim.lr=quick",), "optim.lr = 'quick'"),
    (("networks.student.view=rgb",), "has no view 'rgb'"),
    (("data.root=/nowhere",), "/nowhere does not exist"),
    (("data.augment={rotat: 3}",), "rotat"),
    (("data.augment={rotate: 999}",), "augment.rotate"),
    (("run.device=cuda",), "run.device"),
    (("protocol.val_subjects=[nobody]",), "nobody"),
    (("networks.student.causal=true",), "motion='running'"),
])
def test_a_wrong_recipe_is_one_line(wrong, recipe_file, words, message):
    assert message in wrong("train", recipe_file(), *words).replace("\n", " ")


def test_a_teacher_that_was_never_trained(wrong, recipe_file):
    networks = {"student": {"name": "small", "view": "depth"},
                "teacher": {"init": "runs/none", "recipe": "utd_mhad/single_pose"}}
    assert "modalift train utd_mhad/single_pose run.dir=runs/none" in wrong("train", recipe_file("distill", networks=networks))


def test_a_teacher_of_other_classes(wrong, recipe_file, teacher, tmp_path):
    root = write_tiny(tmp_path / "two", clips=16, classes=2)
    networks = {"student": {"name": "small", "view": "depth"}, "teacher": {"init": str(teacher)}}
    said = wrong("train", recipe_file("distill", networks=networks, data={"root": str(root)}))
    assert "has 3 classes" in said


def test_names_with_brackets_are_shown_as_they_are(modalift, recipe_file, tmp_path):
    run = tmp_path / "a [red]b[/x]"
    code, said, _ = modalift("train", recipe_file(optim={"epochs": 1}), f"run.dir={run}")
    assert code == 0
    assert "a [red]b[/x]" in said.replace("\n", "")
    assert modalift("eval", run, "--no-report")[0] == 0


def test_an_unfinished_run_is_not_evaluated(wrong, modalift, recipe_file, tmp_path):
    modalift("train", recipe_file(optim={"epochs": 1}))
    (tmp_path / "run" / "compute.json").unlink()
    assert "no trained network" in wrong("eval", tmp_path / "run")


def test_what_was_trained_is_what_is_evaluated(wrong, modalift, recipe_file, tmp_path):
    modalift("train", recipe_file(optim={"epochs": 1}))
    assert "evaluated as it was trained" in wrong("eval", tmp_path / "run", "data.limit=2")


@pytest.mark.parametrize("damage", ["{bad", "[]"])
def test_damaged_results_say_how_they_are_made_again(wrong, modalift, recipe_file, tmp_path, damage):
    modalift("train", recipe_file(optim={"epochs": 1}))
    (tmp_path / "run" / "results.json").write_text(damage)
    assert "results.json" in wrong("ship", tmp_path / "run", "-o", tmp_path / "x.modalift")
