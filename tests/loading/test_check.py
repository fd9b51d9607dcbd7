"""`modalift check`: each thing that is wrong is found, named in one line, and weighed."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recordings import record
from rich.console import Console

from modalift.datasets import Comparison
from modalift.loading import check
from modalift.modalities import Row, Table, Track, build_table, modality
from modalift.report import check as shown

VIEWS = {"depth": modality("depth"), "pose": modality("pose", 6)}


def write_clip(path: Path, seed: int, frames: int = 6, level: int = 1000) -> Path:
    rng = np.random.default_rng(seed)
    np.save(path, rng.integers(level, level + 500, (frames, 8, 8)).astype(np.uint16))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Eight healthy clips, two classes, four subjects, two of them in test."""
    rows = []
    for i in range(8):
        np.save(tmp_path / f"{i}-pose.npy", np.random.default_rng(i).normal(size=(6, 6)).astype(np.float32))
        rows.append(Row(f"c{i}", i % 2, f"s{i // 2}", "test" if i >= 4 else "train",
                        {"depth": Track(write_clip(tmp_path / f"{i}.npy", i)),
                         "pose": Track(tmp_path / f"{i}-pose.npy")}))
    return build_table("toy", ("wave", "stop"), VIEWS, rows)


def changed(table: Table, clip: str, **fields) -> Table:
    return table.map(lambda r: replace(r, **fields) if r.id == clip else r)


def with_depth(table: Table, clip: str, track: Track) -> Table:
    return table.map(lambda r: replace(r, tracks={**r.tracks, "depth": track}) if r.id == clip else r)


def told(table: Table, severity: str, part: str, **options) -> str:
    """The one problem whose reason holds ``part``; it has that severity and one line."""
    findings = check.examine(table, **options)
    hits = [p for p in findings.problems if part in p.reason]
    assert len(hits) == 1, [p.reason for p in findings.problems]
    assert hits[0].severity == severity
    assert "\n" not in hits[0].reason
    assert findings.has_errors == any(p.severity == "error" for p in findings.problems)
    return hits[0].reason


def test_a_healthy_table(table):
    found = check.examine(table)
    assert found.problems == []
    assert not found.has_errors
    assert found.clips == {"train": 4, "val": 0, "test": 4}
    assert found.classes == {"wave": {"train": 2, "val": 0, "test": 2}, "stop": {"train": 2, "val": 0, "test": 2}}
    assert found.subjects["s3"] == {"train": 0, "val": 0, "test": 2}
    depth = found.views["depth"]
    assert (depth.clips, depth.unreadable, depth.lengths, depth.sizes) == (8, 0, (6, 6.0, 6), {"8x8": 8})
    assert 1200 < depth.brightness[1] < 1300
    json.dumps(shown.as_json(found, Comparison("csv", True)))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(shown.render(found, Comparison("csv", True)))
    text = console.export_text()
    assert "8 clips (4 train, 4 test)" in text
    assert "no problem was found" in text


@pytest.mark.parametrize("decode", [True, False])
def test_bad_files_are_errors_and_named(table, tmp_path, decode):
    gone = with_depth(table, "c1", Track(tmp_path / "gone.mkv"))
    assert "clip 'c1', depth:" in told(gone, "error", "gone.mkv does not exist", decode=decode)
    (tmp_path / "empty.mkv").touch()
    told(with_depth(table, "c1", Track(tmp_path / "empty.mkv")), "error", "empty.mkv has zero bytes", decode=decode)
    cut = record(tmp_path, "ffv1_16")
    cut.write_bytes(cut.read_bytes()[:-3000])
    told(with_depth(table, "c1", Track(cut)), "error", "is truncated", decode=decode)
    late = with_depth(table, "c1", Track(tmp_path / "1.npy", end=7))
    told(late, "error", "has 6 frames, but its window ends at frame 7", decode=decode)
    found = check.examine(gone, decode=decode)
    assert list(found.unreadable) == ["c1"]
    assert found.views["depth"].unreadable == 1


def test_damage_inside_a_file_needs_decoding(table, tmp_path):
    path = record(tmp_path, "ffv1_16")
    data = bytearray(path.read_bytes())
    data[len(data) // 2:len(data) // 2 + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(data)
    bad = with_depth(table, "c1", Track(path))
    assert check.examine(bad).unreadable
    assert check.examine(bad, decode=False).unreadable == {}
    assert check.examine(bad, limit=1).decoded == 1


def test_the_same_recording_in_train_and_test(table, tmp_path):
    (tmp_path / "copy.npy").write_bytes((tmp_path / "0.npy").read_bytes())
    copied = with_depth(table, "c6", Track(tmp_path / "copy.npy"))
    assert told(copied, "error", "same depth recording").startswith("clips 'c0' (train) and 'c6' (test)")
    told(with_depth(table, "c1", Track(tmp_path / "copy.npy")), "note", "more than once in one split (c0 = c1)")
    shared = with_depth(with_depth(table, "c0", Track(tmp_path / "0.npy", end=4)), "c6",
                        Track(tmp_path / "0.npy", start=3))
    told(shared, "error", "share frames of one depth file")
    apart = with_depth(with_depth(table, "c0", Track(tmp_path / "0.npy", end=3)), "c6",
                       Track(tmp_path / "0.npy", start=3))
    assert not check.examine(apart).has_errors


def test_the_same_joints_in_one_archive(table, tmp_path):
    joints = np.random.default_rng(0).normal(size=(6, 2, 3))
    np.savez(tmp_path / "all.npz", a=joints, b=joints, c=joints + 1)
    keys = {"c0": "a", "c5": "b", "c7": "c"}
    table = table.map(lambda r: replace(r, tracks={**r.tracks, "pose": Track(tmp_path / "all.npz", keys[r.id])})
                      if r.id in keys else r)
    assert "'c0' (train) and 'c5' (test)" in told(table, "error", "same pose recording")


def test_subjects(table):
    told(changed(table, "c0", subject="s3"), "note", "in train and in test: 1 of the 2 test subjects (s3)")
    told(table.map(lambda r: replace(r, subject="")), "note", "the subjects are unknown")
    told(table.map(lambda r: replace(r, subject="unknown")), "note", "the subjects are unknown")


def test_unknown_subjects_are_no_subject(table):
    """The same word in train and in test is not one person in both."""
    some = table.map(lambda r: replace(r, subject="n/a") if r.id in ("c0", "c7") else r)
    assert {r.split for r in some if r.subject == "n/a"} == {"train", "test"}
    findings = check.examine(some)
    assert "n/a" not in findings.subjects
    assert sum(findings.unknown_subject.values()) == 2
    reasons = [p.reason for p in findings.problems if p.kind == "subjects"]
    assert reasons == [
        "the subject of 2 of 8 clips is not known (c0, c7) - they may be of people of any split, and are no subject"
        " of their own"]


def test_labels(table):
    assert "'stop' has 2 clips" in told(table.map(lambda r: replace(r, label=0) if r.split == "train" else r),
                                       "error", "but none in train")
    gaps = replace(table, classes=("wave", "stop", "class 2", "call"))
    told(gaps, "note", "2 of 4 classes have no clip (class 2, call)")
    told(changed(table, "c0", label=None), "note", "1 of 8 clips are unlabeled")
    told(table.map(lambda r: replace(r, label=None) if r.split == "train" else r), "error",
         "no training clip is labeled")
    told(table.where(lambda r: r.split == "test" or r.label == 1), "error", "class 'wave' has 2 clips")
    told(table.split("train"), "note", "the test split is empty")
    told(table.split("test"), "error", "the train split is empty")
    told(table.where(lambda r: r.split == "train" or r.label == 1), "note", "have training clips but no test clips (wave)")


def test_views(table, tmp_path):
    nowhere = replace(table, views={**VIEWS, "rgb": modality("rgb")})
    told(nowhere, "error", "no clip has view 'rgb'")
    told(changed(table, "c0", tracks={"pose": table[0].tracks["pose"]}), "note", "1 of 8 clips lack 'depth'")
    told(changed(table, "c0", tracks={}), "error", "clip 'c0' has no recording - remove it")
    np.save(tmp_path / "wide.npy", np.ones((6, 8, 10), np.uint16))
    told(with_depth(table, "c0", Track(tmp_path / "wide.npy")), "note", "several frame sizes: 8x8 (7 clips), 10x8")


def test_readings_and_lengths(table, tmp_path):
    np.save(tmp_path / "still.npy", np.zeros((6, 8, 8), np.uint16))
    told(with_depth(table, "c0", Track(tmp_path / "still.npy")), "note", "1 clips are constant (c0)")
    write_clip(tmp_path / "wild.npy", 3, level=40000)
    told(with_depth(table, "c0", Track(tmp_path / "wild.npy")), "note", "outside 1 to 10000 mm (c0)")
    pose = np.random.default_rng(0).normal(size=(6, 6))
    pose[2, 2] = np.nan
    np.save(tmp_path / "nan.npy", pose)
    nan = table.map(lambda r: replace(r, tracks={**r.tracks, "pose": Track(tmp_path / "nan.npy")})
                    if r.id == "c1" else r)
    told(nan, "error", "1 clips hold values that are not finite (NaN or Inf: c1)")
    assert not check.examine(nan, decode=False).has_errors
    short = with_depth(table, "c0", Track(write_clip(tmp_path / "short.npy", 1, frames=1)))
    told(short, "note", "1 clips have a single frame (c0)")
    told(short, "note", "depth and pose differ in length in 1 of 8 clips (c0: 1 and 6)")


def test_errors_come_first(table, tmp_path):
    bad = changed(with_depth(table, "c7", Track(tmp_path / "gone.npy")), "c0", label=None)
    assert [p.severity for p in check.examine(bad).problems] == ["error", "note"]
