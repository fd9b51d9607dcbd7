"""Datasets with something wrong in them: named, left out, never a traceback."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import sample_nvgesture

from tiny import write_manifest, write_tiny


def rows_of(root: Path) -> list[dict]:
    with (root / "manifest.csv").open() as file:
        return list(csv.DictReader(file))


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
    code, _, said = modalift("train", recipe, "data.max_corrupt=0.01", f"run.dir={tmp_path / 'other'}")
    assert code == 2
    assert "error 1 of 24 clips cannot be read" in said


def test_a_derived_view_says_how_many_clips_lack_it(modalift, tmp_path):
    root = write_tiny(tmp_path / "data")
    (root / "c00_pose.npz").write_bytes(b"x")
    code, said, _ = modalift("derive", "pose_map", root, tmp_path / "out", "size=8")
    assert code == 0
    assert "1 clips lack 'pose_map'" in said
    code, said, _ = modalift("derive", "pose_map", root, tmp_path / "json", "size=8", "--json")
    assert json.loads(said)["without"] == {"pose_map": 1}


def test_the_terminal_counts_clips_that_were_left_out(modalift, recipe_file, tmp_path):
    """Five of twelve test clips are damaged after the training: no 100 % of 7 clips without a word."""
    root = write_tiny(tmp_path / "data", clips=48)
    assert "trained student on 24 clips in" in modalift("train", recipe_file(data={"root": str(root)}, optim={"epochs": 1}))[1]
    for row in [r for r in rows_of(root) if r["split"] == "test"][:5]:
        (root / row["depth"]).write_bytes(b"x")
    code, said, _ = modalift("eval", tmp_path / "run")
    assert code == 0
    assert "warning: student: 5 of 12 clips are unreadable (42 %, more than data.max_corrupt = 5 %)" in said.replace("\n", " ")
    assert "7 of 12" in said
    assert "student: 7 of 12 clips (5 left out: 5 unreadable; the first unreadable one: 'c09'" in said.replace("\n", " ")
    code, said, _ = modalift("eval", tmp_path / "run", "--json", "--no-report")
    assert json.loads(said)["student"]["coverage"]["left_out"] == {"unreadable": 5}
    assert "5 of 12 clips are unreadable" in (tmp_path / "run" / "report.html").read_text()


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


def test_joints_that_are_not_finite_are_left_out_by_name(modalift, recipe_file, tmp_path):
    root = write_tiny(tmp_path / "data")
    joints = np.load(root / "c03_pose.npz")["joints"]
    joints[2] = np.nan
    np.savez(root / "c03_pose.npz", joints=joints)
    networks = {"student": {"name": "tcn", "view": "pose", "width": 8, "blocks": 1}}
    code, _, said = modalift("train", recipe_file(networks=networks, data={"root": str(root)}, optim={"epochs": 1}))
    assert code == 0
    assert "left out c03" in said
    assert "not finite" in said


def test_index_writes_a_manifest_that_reads_back(modalift, tmp_path):
    root = write_tiny(tmp_path / "data")
    code, said, _ = modalift("index", "auto", root, "-o", tmp_path / "tables" / "tiny.csv", "--json")
    assert code == 0
    assert json.loads(said)["clips"] == {"train": 12, "val": 6, "test": 6}
    with (tmp_path / "tables" / "tiny.csv").open() as file:
        first = next(csv.DictReader(file))
    assert first["depth"].startswith("../data/"), "relative to the manifest"
    before = json.loads(modalift("check", root, "--json")[1])
    after = json.loads(modalift("check", tmp_path / "tables" / "tiny.csv", "--json")[1])
    assert {**after, "name": ""} == {**before, "name": ""}


def test_index_replaces_no_file_that_is_none_of_its_own(modalift, tmp_path):
    root = write_tiny(tmp_path / "data")
    (tmp_path / "mine.json").write_text("{}")
    for name, reason in (("mine.csv", "mine.json is not of a manifest"), ("mine.json", "a manifest's name ends in .csv")):
        code, _, said = modalift("index", "csv", root, "-o", tmp_path / name)
        assert code == 2
        assert reason in said.replace("\n", " ")
    assert (tmp_path / "mine.json").read_text() == "{}"
    assert not (tmp_path / "mine.csv").exists()


def test_check_compares_a_partial_download_with_its_release(modalift, tmp_path):
    sample_nvgesture.write(tmp_path / "data")
    for file in (tmp_path / "data" / "Video_data" / "class_02" / "subject3_r1").iterdir():
        file.unlink()
    code, said, _ = modalift("check", tmp_path / "data")
    plain = " ".join(said.split())
    assert code == 0
    assert "dataset: nvgesture (recognized from its files)" in plain
    assert "of the release: 2 of 1050 train clips, 2 of 482 test clips" in plain
    assert "1 clips of the dataset's lists have no recording here (class_02/subject3_r1) - add their files" in plain
    assert "note 1 clips lie in the folder of another class than their label's (class_01/subject4_r2)" in plain
    code, said, _ = modalift("check", tmp_path / "data", "--dataset", "nvgesture", "--json", "-o", "logs=false")
    found = json.loads(said)
    assert found["missing"] == ["class_02/subject3_r1"]
    assert found["release"]["clips"] == {"train": [2, 1050], "test": [2, 482]}
    assert [found["release"][key] for key in ("dataset", "guessed", "absent_views")] == ["nvgesture", False, []]
    code, said, _ = modalift("index", "nvgesture", tmp_path / "data", "-o", tmp_path / "nv.csv", "--option", "logs=false")
    assert code == 0
    assert "2 train, 2 test clips with the views rgb, depth, ir_left, ir_right" in " ".join(said.split())
    assert json.loads(modalift("check", tmp_path / "nv.csv", "--json")[1])["missing"] == ["class_02/subject3_r1"]


def test_a_download_without_its_list_or_recordings_is_told_so(modalift, tmp_path):
    sample_nvgesture.write(tmp_path / "data")
    (tmp_path / "data" / "nvgesture_test_correct_cvpr2016_v2.lst").unlink()
    code, _, said = modalift("check", tmp_path / "data")
    assert code == 2
    assert "the list nvgesture_test_correct_cvpr2016_v2.lst is not there - it is beside Video_data" in " ".join(said.split())


@pytest.fixture
def many_broken(tmp_path, tiny):
    """A dataset of which 40 clips have zero bytes, and one cannot be found."""
    rows = [["clip_id", "label", "subject", "split", "depth"]]
    for i in range(24):
        rows.append([f"c{i:02d}", i % 3, f"s{1 + i // 3 % 4}", "test" if i % 4 == 0 else "train", f"{tiny}/c{i:02d}_depth.npz"])
    (tmp_path / "in").mkdir()
    for i in range(40):
        (tmp_path / "in" / f"zero {i}.npz").touch()
        rows.append([f"z{i:02d}", i % 3, "s1", "train", f"zero {i}.npz"])
    rows.append(["gone", 0, "s1", "train", "gone.npz"])
    (tmp_path / "in" / "manifest.csv").write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return tmp_path / "in"


def test_equal_complaints_are_one_line_and_json_has_all(modalift, many_broken, recipe_file, tmp_path):
    zero = "zero 0.npz has zero bytes - record or copy it again"
    code, said, _ = modalift("check", many_broken)
    assert code == 1
    said = " ".join(said.split())
    assert f"error 40 times, the first: clip 'z00', depth: {many_broken}/{zero}" in said
    assert said.count("zero bytes") == said.count("gone.npz does not exist") == 1
    found = json.loads(modalift("check", "--json", many_broken)[1])
    assert len([p for p in found["problems"] if "zero bytes" in p["reason"]]) == len(found["unreadable"]) - 1 == 40

    code, said, _ = modalift("cache", many_broken, tmp_path / "cache")
    assert code == 0
    assert [line for line in said.splitlines() if line.startswith("left out")] == [
        f"left out 40 clips, the first z00: {many_broken}/{zero}",
        f"left out gone: {many_broken}/gone.npz does not exist - correct the path in the table, or the root folder"]
    (tmp_path / "cache2").mkdir()
    assert len(json.loads(modalift("cache", "--json", many_broken, tmp_path / "cache2")[1])["left_out"]) == 41

    data = {"root": str(many_broken), "max_corrupt": 0.9, "cache": ""}
    code, _, said = modalift("train", recipe_file(data=data, optim={"epochs": 1}))
    assert code == 0, said
    assert len([line for line in said.splitlines() if "zero bytes" in line]) == 1
    assert f"left out 40 clips, the first z00: {many_broken}/{zero}" in said
    modalift("ship", tmp_path / "run", "-o", tmp_path / "b.modalift")
    clips = [many_broken / f"zero {i}.npz" for i in range(40)]
    code, said, errors = modalift("predict", tmp_path / "b.modalift", *clips, "--json")
    assert code == 2
    assert errors == f"error 40 clips cannot be predicted, the first: {clips[0]} has zero bytes - write it again\n"
    assert len(json.loads(said)) == 40


def test_derive_names_what_it_left_out(modalift, tmp_path):
    (tmp_path / "in").mkdir()
    good = np.random.default_rng(0).integers(0, 255, (4, 24, 24, 3), np.uint8)
    np.save(tmp_path / "in" / "good.npy", good)
    for i in range(9):
        (tmp_path / "in" / f"z{i}.npy").touch()
    rows = ["id,label,split,rgb", "g,0,train,good.npy", *(f"z{i},0,train,z{i}.npy" for i in range(9))]
    (tmp_path / "in" / "manifest.csv").write_text("\n".join(rows) + "\n")
    code, said, _ = modalift("derive", "flow", tmp_path / "in", tmp_path / "out")
    assert code == 0
    reason = f"{tmp_path}/in/z0.npy has zero bytes - record or copy it again"
    assert f"'flow' was not computed for 9 clips, the first z0: {reason}" in said
    found = json.loads(modalift("derive", "flow", tmp_path / "in", tmp_path / "out2", "--json")[1])
    assert sorted(found["left_out"]) == [f"z{i}" for i in range(9)]
