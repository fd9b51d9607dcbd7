"""The command line as a stranger meets it: help that helps, and one line for every wrong input."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from modalift import cli, networks
from modalift.report.listing import listing
from tiny import write_manifest, write_tiny

VERBS = ("simulate", "check", "derive", "cache", "look", "list", "explain", "cost", "train", "eval", "compare", "diagnose",
         "study", "ship", "predict", "export")


@pytest.fixture
def modalift(monkeypatch, capsys):
    """Runs a command line in this process: ``(code, stdout, stderr)``."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["modalift", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def wrong(modalift):
    """Asserts that a command is refused with exit code 2 and one line, and returns the line."""

    def run(*words: object) -> str:
        code, _, said = modalift(*words)
        assert code == 2, said
        assert said.startswith("error ")
        assert len(said.strip().splitlines()) == 1, said
        assert "Traceback" not in said
        return said

    return run


def rows_of(root: Path) -> list[dict]:
    with (root / "manifest.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(modalift, verb):
    code, said, _ = modalift(verb, "--help")
    assert code == 0
    assert len(said.split()) > 25


def test_the_main_job_from_clips_to_an_answer(modalift, recipe_file, tiny, tmp_path):
    recipe = recipe_file(optim={"epochs": 3})
    code, said, _ = modalift("check", tiny, "--json")
    assert code == 0
    assert json.loads(said)
    code, said, _ = modalift("explain", recipe, "--json")
    assert json.loads(said)["cast"][0]["ships"] is True
    assert modalift("train", recipe)[0] == 0
    run = tmp_path / "run"
    code, said, _ = modalift("eval", run, "--json")
    assert set(json.loads(said)) == {"student"}
    assert (run / "report.html").is_file()
    bundle = tmp_path / "x.modalift"
    assert modalift("ship", run, "-o", bundle)[0] == 0
    code, said, _ = modalift("predict", bundle, tiny / "c00_depth.npz", "--json")
    assert code == 0
    shown = json.loads(said)
    assert shown[0]["label"].startswith("move")
    code, said, _ = modalift("export", bundle, "-o", tmp_path / "x.onnx", "--json")
    assert code == 0, said
    assert json.loads(said)["difference"] < 1e-4
    other = tmp_path / "other"
    assert modalift("train", recipe, "run.seed=1", f"run.dir={other}")[0] == 0
    assert modalift("eval", other)[0] == 0
    code, said, _ = modalift("compare", run, other, "--out", tmp_path / "c.html", "--json")
    assert code == 0
    assert json.loads(said)["rows"][1]["against_first"]["n"] == 6
    assert "http://" not in (tmp_path / "c.html").read_text().replace("http://www.w3.org", "")
    assert "https://" not in (tmp_path / "c.html").read_text()


def test_nothing_of_this_machine_goes_home(modalift, recipe_file, tmp_path, tiny):
    modalift("train", recipe_file(optim={"epochs": 1}))
    modalift("ship", tmp_path / "run", "-o", tmp_path / "x.modalift")
    assert str(tiny).encode() not in (tmp_path / "x.modalift").read_bytes()


def test_training_again_says_that_it_is_finished(modalift, recipe_file):
    recipe = recipe_file(optim={"epochs": 1})
    assert modalift("train", recipe)[0] == 0
    code, _, said = modalift("train", recipe)
    assert code == 0
    assert "is finished" in said


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
    networks = {"student": {"name": "small", "view": "depth"}, "teacher": {"init": "runs/none", "recipe": "t.yaml"}}
    assert "modalift train t.yaml run.dir=runs/none" in wrong("train", recipe_file("distill", networks=networks))


def test_a_teacher_of_other_classes(wrong, recipe_file, teacher, tmp_path):
    root = write_tiny(tmp_path / "two", clips=16, classes=2)
    networks = {"student": {"name": "small", "view": "depth"}, "teacher": {"init": str(teacher)}}
    said = wrong("train", recipe_file("distill", networks=networks, data={"root": str(root)}))
    assert "knows 3 classes" in said


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated"])
def test_damaged_clips_are_named_left_out_and_too_many_stop_the_run(modalift, recipe_file, tmp_path, damage):
    root = write_tiny(tmp_path / "data")
    path = root / "c00_depth.npz"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:200])
    recipe = recipe_file(data={"root": str(root)}, optim={"epochs": 1})
    code, said, _ = modalift("check", root)
    assert code == 1
    assert "c00" in said
    code, _, said = modalift("train", recipe)
    assert code == 0, said
    assert "left out c00" in said
    assert json.loads((tmp_path / "run" / "compute.json").read_text())["clips"] == 11
    code, _, said = modalift("train", recipe, "data.max_bad=0.01", f"run.dir={tmp_path / 'other'}")
    assert code == 2
    assert "error 1 of 24 clips cannot be read" in said


def test_a_clip_of_one_frame_trains_and_is_answered(modalift, recipe_file, tmp_path):
    root = write_tiny(tmp_path / "data")
    for name in ("c00", "c03"):
        frames = np.load(root / f"{name}_depth.npz")["frames"][:1]
        np.savez(root / f"{name}_depth.npz", frames=frames)
    recipe = recipe_file(data={"root": str(root)}, optim={"epochs": 1})
    assert modalift("train", recipe)[0] == 0
    assert modalift("eval", tmp_path / "run", "--no-report")[0] == 0


def test_labels_with_gaps_and_a_class_of_the_test_split_alone(modalift, recipe_file, tmp_path):
    root = write_tiny(tmp_path / "data")
    rows = rows_of(root)
    for row in rows:
        if row["label"] == "2" and row["split"] != "test":
            row["label"], row["label_name"] = "5", "move5"
    write_manifest(root, rows)
    _, said, _ = modalift("check", root)
    assert "move2" in said, "the class that only the test split has is named"
    assert modalift("train", recipe_file(data={"root": str(root)}, optim={"epochs": 1}))[0] == 0


def test_bundles_that_are_none(wrong, tmp_path, tiny):
    import pickle

    (tmp_path / "pickle.modalift").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "empty.modalift").write_bytes(b"")
    for name in ("pickle", "empty", "missing"):
        assert f"{name}.modalift" in wrong("predict", tmp_path / f"{name}.modalift", tiny / "c00_depth.npz").replace("\n", "")


#: Network, its options and clip, classes -> parameters, MACs, and the GFLOPs that the MSD paper prints.
MSD_COLUMNS = {
    "tsm": ([], "3x8x224x224", 83, 23_678_099, 32_698_449_920, "28.2"),
    "tea": ([], "3x8x224x224", 83, 24_269_821, 34_536_004_864, "31.1"),
    "action_net": ([], "3x8x224x224", 83, 27_895_919, 34_435_490_416, "29.8"),
    "c3d": (["variant=gesrec"], "3x32x112x112", 83, 65_584_339, 71_482_120_192, "71.7"),
    "i3d": ([], "3x64x224x224", 400, 12_697_264, 111_153_143_808, "88.2"),
    "resnext101_3d": ([], "3x32x112x112", 83, 47_691_283, 19_133_962_240, "13.9"),
}


@pytest.mark.parametrize("name", MSD_COLUMNS)
def test_the_msd_papers_columns_come_out_to_the_printed_digit(modalift, name):
    options, clip, classes, parameters, macs, gflops = MSD_COLUMNS[name]
    asked = ("cost", name, *options, "--input", clip, "--classes", classes, "--paper-msd")
    code, said, _ = modalift(*asked, "--json")
    assert code == 0, said
    found = json.loads(said)
    assert (found["parameters"], found["macs"], found["flops"]) == (parameters, macs, 2 * macs)
    assert f"{found['paper_msd_flops'] / 1e9:.1f}" == gflops
    code, said, _ = modalift(*asked)
    assert code == 0
    for figure in (f"{parameters:,}", f"{macs:,}", f"{2 * macs:,}", gflops, "known defect"):
        assert figure in said


def test_cost_of_a_signal_a_wide_video_and_without_an_input(modalift):
    for words, clip in ((("signal", "--input", "30x16x1x1"), "30x16x1x1"), (("small", "--input", "1x4x32x48"), "1x4x32x48"),
                        (("signal",), "60x32x1x1"), (("small", "causal=true", "motion=running"), "3x16x56x56")):
        code, said, _ = modalift("cost", *words, "--json")
        assert code == 0, said
        found = json.loads(said)
        assert found["input"] == clip
        assert found["activation_bytes"] > 0
        assert "paper_msd_flops" not in found
    code, said, _ = modalift("cost", "small", "--input", "3x16x56x56")
    assert "116,075" in said
    assert "MiB" in said
    assert "defect" not in said


@pytest.mark.parametrize(("words", "message"), [
    (("tsm", "--input", "3x8x224"), "channels x frames x height x width"),
    (("tsm", "--input", "3x8x-2x4"), "channels x frames x height x width"),
    (("tsm", "--input", ""), "channels x frames x height x width"),
    (("tsm", "--input", "0x8x32x32"), "each extent must be 1 or more"),
    (("tsm", "--input", "3x100000x100000x100000"), "their product at most"),
    (("tsm", "--input", "3x8x1x1"), "reads video"),
    (("signal", "--input", "60x8x4x4"), "reads signals"),
    (("tsm", "--classes", "0"), "classes=0"),
    (("tsm", "--classes", "1000000000000000000"), "overflow"),
    (("tsm", "width=1e9"), "overflow"),
    (("tsm", "resnet50"), "'resnet50' is not of the form key=value"),
    (("tsm", "=3"), "'=3' is not of the form key=value"),
    (("tsm", "widht=2"), "did you mean 'width'"),
    (("tsm", "classes=3"), "--classes"),
    (("tsm", "size=64"), "--input"),
    (("tsm", "name=small"), "modalift cost small"),
    (("tsmm",), "did you mean 'tsm'"),
    (("tsm", "backbone=[1]"), "backbone"),
])
def test_a_wrong_question_of_cost_is_one_line(wrong, words, message):
    assert message in wrong("cost", *words)


def test_networks_are_listed_with_what_they_cost_and_load(modalift):
    code, said, _ = modalift("list", "networks", "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(said)}
    assert set(rows) == set(networks.NETWORKS)
    assert (rows["tsm"]["parameters"], rows["tsm"]["macs"]) == (23_563_355, 32_697_532_416)
    assert rows["small"]["streams"] is True
    assert all(row["what it is"] and row["input"] for row in rows.values())
    assert "torchvision ResNet" in rows["tsm"]["weights"]


def test_the_table_of_networks_fits_a_terminal(capsys):
    _, table = listing("networks")
    Console(width=120, no_color=True).print(table)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 120
    first = [line.split("│")[1].strip() for line in said.splitlines() if line.startswith("│")]
    assert {name for name in first if name} == set(networks.NETWORKS), "no name is cut"
    assert "…" not in said


def test_other_wrong_things(wrong, tmp_path, recipe_file):
    assert "not a run folder" in wrong("eval", tmp_path)
    assert "two run folders" in wrong("compare", tmp_path)
    assert "did you mean 'schemes'" in wrong("list", "shemes")
    assert "no such Python file" in wrong("--plugin", tmp_path / "none.py", "list")
    assert "did you mean 'small'" in wrong("cost", "smal")
    assert "only 'tiny'" in wrong("train", recipe_file(), "--scale", "huge")


def test_a_plugin_adds_a_scheme(modalift, recipe_file, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from modalift.schemes.single import Single\nfrom modalift.schemes import scheme\n\n"
        "@scheme('mine')\nclass Mine(Single):\n    '''Mine.'''\n")
    code, said, _ = modalift("--plugin", tmp_path / "mine.py", "train", recipe_file(), "scheme.name=mine", "optim.epochs=1")
    assert code == 0, said


def test_as_a_program_it_exits_with_2_and_without_a_traceback(tmp_path):
    done = subprocess.run([sys.executable, "-m", "modalift.cli", "train", str(tmp_path / "no.yaml")], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error ")
    assert "Traceback" not in done.stderr


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


@pytest.mark.parametrize(("code", "message"), [("def (", "SyntaxError"), ("import nowhere_at_all", "nowhere_at_all"),
                                               ("raise SystemExit(7)", "SystemExit")])
def test_a_broken_plugin_is_one_line(wrong, tmp_path, code, message):
    (tmp_path / "mine.py").write_text(code)
    assert message in wrong("--plugin", tmp_path / "mine.py", "list")


def test_joints_that_are_no_numbers_are_left_out_by_name(modalift, recipe_file, tmp_path):
    root = write_tiny(tmp_path / "data")
    joints = np.load(root / "c03_pose.npz")["joints"]
    joints[2] = np.nan
    np.savez(root / "c03_pose.npz", joints=joints)
    networks = {"student": {"name": "signal", "view": "pose", "width": 8, "blocks": 1}}
    code, _, said = modalift("train", recipe_file(networks=networks, data={"root": str(root)}, optim={"epochs": 1}))
    assert code == 0
    assert "left out c03" in said
    assert "not finite" in said


def test_usage_errors_are_one_line_too(wrong):
    assert "Did you mean 'train'" in wrong("trian")
    assert "--help` explains" in wrong("train")
