"""The training loop: it learns, stops at losses that are not finite, and loses nothing to a full disk."""

from __future__ import annotations

import csv
import errno
import json
import math

import pytest
import torch

from modalift import files
from modalift.engine import checkpoint as checkpoints
from modalift.engine.build import assemble
from modalift.engine.checkpoint import read_checkpoint
from modalift.engine.compute import epoch_macs, match_compute
from modalift.engine.evaluate import evaluate
from modalift.engine.optim import MovingAverage, Plateau, freeze_others, lr_multiplier
from modalift.engine.run import Run
from modalift.engine.ship import ship
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.models import Model
from modalift.networks import cost
from modalift.recipe import OptimSection, load_recipe
from modalift.schemes import Update
from tiny import write_manifest, write_tiny


def test_it_learns_a_simple_task(recipe_file):
    run = train(load_recipe(recipe_file(optim={"epochs": 40, "lr": 5e-3, "batch": 6})))
    found = evaluate(run, "train")["student"]
    assert found["top1"] > 0.85, "three motions, twelve clips"
    entries = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    epochs = [e for e in entries if e["kind"] == "epoch"]
    assert len(epochs) == 40
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert "top1" in epochs[-1]["val"]["student"]
    assert len((run.folder / "metrics.csv").read_text().splitlines()) == 41


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_term(recipe_file, monkeypatch):
    recipe = load_recipe(recipe_file(run={"checkpoint_every_s": 1e-6}, optim={"epochs": 5}))
    from modalift.schemes.single import Single

    forward, calls = Single.forward, [0]

    def poisoned(self, batch, progress):
        calls[0] += 1
        terms = forward(self, batch, progress)
        if calls[0] == 6:
            terms["kd/teacher>student"] = (1.0, torch.tensor(float("nan")))
        return terms

    monkeypatch.setattr(Single, "forward", poisoned)
    with pytest.raises(ModaliftError, match=r"term 'kd/teacher>student'.*last good checkpoint is .*last\.pt"):
        train(recipe)
    checkpoint = read_checkpoint(Run(recipe.run.dir).last_checkpoint_path)
    assert checkpoint["position"]["step"] == 5
    assert all(torch.isfinite(v).all() for v in checkpoint["scheme"].values() if v.is_floating_point())


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 178368 vs 178264"),  # torch's message
])
def test_a_full_disk_keeps_the_last_checkpoint(recipe_file, monkeypatch, error):
    recipe = load_recipe(recipe_file(run={"checkpoint_every_s": 1e-6}, optim={"epochs": 3}))
    save, calls = torch.save, [0]

    def full(content, path):
        calls[0] += 1
        if calls[0] > 3:
            path.write_bytes(b"half")
            raise error
        save(content, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ModaliftError, match=r"is the disk full|the disk is full") as caught:
        train(recipe)
    assert "\n" not in str(caught.value)
    folder = Run(recipe.run.dir).last_checkpoint_path.parent
    assert [p.name for p in folder.iterdir()] == ["last.pt"], "nothing half-written"
    assert read_checkpoint(folder / "last.pt")["position"]["step"] == 3
    monkeypatch.undo()
    assert train(recipe).finished, "with space again, the same command resumes"


def test_a_full_disk_of_linux_gives_a_one_line_error(tmp_path):
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    with pytest.raises(ModaliftError, match="disk is full"), files.disk_errors(link), link.open("w") as file:
        file.write("x" * 100000)


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def fails(to):
        to.write_text("new")
        raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        files.write_beside(path, fails)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_teacher_is_refused_with_the_command_that_trains_it(recipe_file):
    networks = {"student": {"name": "small", "view": "depth"},
                "teacher": {"init": "runs/none", "recipe": "utd_mhad/single_pose"}}
    with pytest.raises(ModaliftError, match=r"modalift train utd_mhad/single_pose run.dir=runs/none"):
        train(load_recipe(recipe_file("distill", networks=networks)))


def test_a_view_that_the_table_lacks_is_named(recipe_file):
    with pytest.raises(ModaliftError, match="no view 'thermal'"):
        assemble(load_recipe(recipe_file(networks={"student": {"name": "small", "view": "thermal"}})))


def test_the_same_seed_gives_the_same_student_under_every_scheme(recipe_file, teacher):
    one = assemble(load_recipe(recipe_file(networks={"student": {"name": "small", "view": "depth"}})))
    two = assemble(load_recipe(recipe_file("distill", networks={
        "student": {"name": "small", "view": "depth"}, "teacher": {"init": str(teacher)}})))
    for a, b in zip(one.scheme.roles["student"].parameters(), two.scheme.roles["student"].parameters(), strict=True):
        assert torch.equal(a, b)


def test_hidden_labels_are_the_same_share_of_each_class(recipe_file):
    few = assemble(load_recipe(recipe_file("mtut", data={"labeled": 0.5}))).train
    assert len(few) == 12
    assert sum(r.label is not None for r in few) == 6
    student_only = assemble(load_recipe(recipe_file(data={"labeled": 0.5}))).train
    assert {r.id for r in student_only} == {r.id for r in few if r.label is not None}, "single does not use the others"


def test_compute_is_counted_and_matched(recipe_file, teacher):
    networks = {"student": {"name": "small", "view": "depth", "width": 4}, "teacher": {"init": str(teacher)}}
    taught = train(load_recipe(recipe_file("distill", networks=networks)))
    student_only = load_recipe(recipe_file(networks={"student": networks["student"]}))
    matched = match_compute(student_only, load_recipe(taught.folder))
    experiment = assemble(student_only)
    net = experiment.scheme.roles["student"]
    assert epoch_macs(experiment) == 3 * cost(net, net.frames, net.size).macs * 12
    spent = taught.compute()["training_macs"]
    assert spent > taught.compute()["own_macs"], "the teacher's training counts"
    assert matched.optim.epochs == math.ceil(spent / epoch_macs(experiment)) > student_only.optim.epochs


def test_evaluating_the_test_split_is_entered_in_the_ledger(recipe_file):
    run = train(load_recipe(recipe_file()))
    evaluate(run, "val")
    assert not (run.folder / "test_ledger.jsonl").exists()
    evaluate(run, "test")
    evaluate(run, "test")
    assert len((run.folder / "test_ledger.jsonl").read_text().splitlines()) == 2


def test_the_best_checkpoint_is_chosen_on_validation_and_never_without_it(recipe_file):
    run = train(load_recipe(recipe_file(protocol={"select": "best"})))
    assert run.best_checkpoint_path.is_file()
    with pytest.raises(ModaliftError, match="needs validation clips"):
        assemble(load_recipe(recipe_file(data={"options": {"test_subjects": ["s3", "s4"]}}, protocol={"select": "best"}),
                          [f"run.dir={run.folder}2"]))


def test_validation_leaves_unlabeled_clips_out(recipe_file, tmp_path):
    root = write_tiny(tmp_path / "data")
    with (root / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    held_out = [row for row in rows if row["split"] == "val"]
    for row in held_out[1:]:
        row["label"] = row["label_name"] = ""
    write_manifest(root, rows)
    run = train(load_recipe(recipe_file(data={"root": str(root)}, protocol={"select": "best"})))
    val = [json.loads(line) for line in run.log_path.read_text().splitlines()][-1]["val"]["student"]
    assert val["top1"] in (0.0, 1.0), "one labeled clip"
    held_out[0]["label"] = held_out[0]["label_name"] = ""
    write_manifest(root, rows)
    with pytest.raises(ModaliftError, match="needs validation clips with labels"):
        train(load_recipe(recipe_file(data={"root": str(root)}, protocol={"select": "best"}), [f"run.dir={run.folder}2"]))
    run = train(load_recipe(recipe_file(data={"root": str(root)}), [f"run.dir={run.folder}3"]))
    assert [json.loads(line) for line in run.log_path.read_text().splitlines()][-1]["val"] == {}, "no metric, and no NaN"


def test_a_cross_validation_has_no_model_of_its_own(recipe_file, tmp_path):
    run = train(load_recipe(recipe_file(protocol={"folds": 2}, optim={"epochs": 1})))
    with pytest.raises(ModaliftError, match=r"cross-validation with a model per fold - name .*fold0"):
        ship(run, "", tmp_path / "x.modalift")


def test_folds_hold_each_subject_out_once(recipe_file):
    tested = []
    for fold in range(4):
        table = assemble(load_recipe(recipe_file(protocol={"folds": 4, "fold": fold}))).table
        test, rest = table.split("test").subjects, table.split("train").subjects
        assert not set(test) & set(rest)
        tested += test
    assert sorted(tested) == ["s1", "s2", "s3", "s4"]
    with pytest.raises(ModaliftError, match="4 subjects"):
        assemble(load_recipe(recipe_file(protocol={"folds": 9})))


def test_cross_validation_trains_every_fold_and_scores_them_together(recipe_file):
    run = train(load_recipe(recipe_file(protocol={"folds": 4}, optim={"epochs": 1})))
    assert [f.folder.name for f in run.folds()] == ["fold0", "fold1", "fold2", "fold3"]
    found = evaluate(run, "test")["student"]
    assert found["n"] == 24, "every clip is tested once"


def test_weights_that_are_not_finite_are_never_saved(recipe_file, monkeypatch):
    recipe = load_recipe(recipe_file(run={"checkpoint_every_s": 1e-6}, optim={"epochs": 1}))
    from modalift.schemes.single import Single

    after, calls = Single.after_step, [0]

    def poison(self, batch):
        after(self, batch)
        calls[0] += 1
        if calls[0] == 3:
            self.student.head.fc.bias.data.fill_(float("nan"))

    monkeypatch.setattr(Single, "after_step", poison)
    with pytest.raises(ModaliftError, match=r"weights .*fc\.bias.* are not finite"):
        train(recipe)
    assert read_checkpoint(Run(recipe.run.dir).last_checkpoint_path)["position"]["step"] == 2


def test_a_corrupt_clip_is_left_out_everywhere_and_a_finished_run_stays_finished(recipe_file, tmp_path):
    root = write_tiny(tmp_path / "data")
    for clip in ("c00", "c09"):  # a training clip and a test clip
        (root / f"{clip}_depth.npz").write_bytes(b"")
    recipe = load_recipe(recipe_file(data={"root": str(root), "max_corrupt": 0.2}))
    run = train(recipe)
    found = evaluate(run, "test")["student"]
    assert (found["n"], list(found["left_out"])) == (5, ["c09"])
    assert train(recipe).finished
    assert evaluate(run, "test", overrides=["data.cache=", "run.workers=1"])["student"]["top1"] == found["top1"]


def test_the_last_checkpoint_is_written_though_every_epoch_is_the_best_so_far(recipe_file, monkeypatch):
    recipe = load_recipe(recipe_file(optim={"epochs": 4}, run={"checkpoint_every_s": 0.01}))
    order, save = [], checkpoints.TrainingState.save
    monkeypatch.setattr(checkpoints.TrainingState, "save", lambda self, path: (order.append(path.name), save(self, path)))
    train(recipe)
    assert order.index("last.pt") < len(order) - 1, "a kill before the end must find a checkpoint to resume from"


def test_accumulation_over_more_clips_than_there_are_is_refused(recipe_file):
    with pytest.raises(ModaliftError, match="16, but there are 12 training clips"):
        train(load_recipe(recipe_file(optim={"batch": 4, "accumulate": 4})))


def test_with_a_moving_average_validation_uses_the_weights_that_ship(recipe_file):
    run = train(load_recipe(recipe_file(optim={"epochs": 3, "ema": 0.9})))
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    validated = lines[-1]["val"]["student"]
    shipped = evaluate(run, "val")["student"]
    assert shipped["top1"] == validated["top1"]
    assert shipped["nll"] == pytest.approx(validated["loss"], rel=1e-4)


def test_a_run_stopped_between_its_networks_is_not_finished(recipe_file, monkeypatch):
    recipe = load_recipe(recipe_file("mtut"))
    write, calls = Model.save, [0]

    def stop(*args, **kwargs):
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return write(*args, **kwargs)

    monkeypatch.setattr(Model, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        train(recipe)
    monkeypatch.undo()
    assert not Run(recipe.run.dir).finished
    assert train(recipe).roles() == ["depth", "pose"]


def test_a_teacher_trained_on_held_out_clips_is_refused(recipe_file, teacher):
    networks = {"student": {"name": "small", "view": "depth", "width": 4}, "teacher": {"init": str(teacher)}}
    with pytest.raises(ModaliftError, match="was trained on 6 clips that this recipe holds out"):
        train(load_recipe(recipe_file("distill", networks=networks, protocol={"folds": 4, "fold": 0})))


def test_of_two_updates_each_has_its_own_gradients(recipe_file):
    made = assemble(load_recipe(recipe_file("mtut"))).scheme
    made.updates = lambda: [Update("one", ("depth",)), Update("two", ("pose",))]
    with freeze_others(made, made.updates()[0]):
        assert all(p.requires_grad for p in made.roles["depth"].parameters())
        assert not any(p.requires_grad for p in made.roles["pose"].parameters())
    assert all(p.requires_grad for p in made.roles["pose"].parameters())


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "onecycle", "plateau"])
def test_schedules_start_end_and_warm_up(schedule):
    section = OptimSection(schedule=schedule, epochs=10, warmup=2, milestones=[5, 8])
    values = [lr_multiplier(section, e / 10) for e in range(100)]
    assert all(0 <= v <= 1 + 1e-9 for v in values)
    if schedule != "onecycle":
        assert values[0] < 0.01
        assert values[10] == pytest.approx(0.5, abs=0.01)
    if schedule == "constant":
        assert lr_multiplier(section, 9.0, scale=0.01) == 1, "only plateau depends on validation"
    if schedule in ("cosine", "onecycle"):
        assert values[-1] < 0.01
    if schedule == "step":
        assert values[85] == pytest.approx(0.01)


def test_plateau_waits_and_then_lowers():
    plateau = Plateau(OptimSection(patience=2, gamma=0.1))
    for loss in (1.0, 0.5, 0.5, 0.5, 0.5):
        plateau.step(loss)
    assert plateau.scale == pytest.approx(0.1)


def test_the_moving_average_is_what_its_formula_says():
    net = torch.nn.Linear(1, 1)
    with torch.no_grad():
        net.weight.fill_(1.0)
    average = MovingAverage({"student": net}, 0.9)
    with torch.no_grad():
        net.weight.fill_(2.0)
    average.update({"student": net}, 10**6)
    assert average.of("student")["weight"].item() == pytest.approx(1.1)
