"""UTD-MHAD: recordings found by their names, MATLAB's arrays with time last, and the official split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sample_utd_mhad

from modalift import datasets
from modalift.errors import ModaliftError
from modalift.loading import reading


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sample_utd_mhad.write(tmp_path / "data")
    return tmp_path / "data"


def test_views_and_split(root):
    table = datasets.open("utd_mhad", root)
    assert [(r.id, r.label, r.subject, r.split) for r in table] == [
        ("a1_s1_t1", 0, "s1", "train"), ("a1_s2_t1", 0, "s2", "test"), ("a27_s1_t1", 26, "s1", "train"),
        ("a27_s2_t1", 26, "s2", "test")]
    assert [set(row.tracks) for row in table] == [{"rgb", "depth", "pose", "imu"}] * 3 + [{"rgb", "depth", "pose"}]
    assert table[0].tracks["imu"].rate == 50


def test_readings_are_those_of_the_files_with_time_first(root):
    table = datasets.open("utd_mhad", root)
    tracks = table[0].tracks
    depth = reading.read(tracks["depth"], table.modality("depth"))
    assert depth.dtype == np.uint16
    assert np.array_equal(depth[..., 0], sample_utd_mhad.depth().transpose(2, 0, 1))
    pose = reading.read(tracks["pose"], table.modality("pose"), [5, 0])
    assert np.array_equal(pose[:, 0, 0], sample_utd_mhad.joints().transpose(2, 0, 1).reshape(6, 60)[[5, 0]].astype(np.float32))
    imu = reading.read(tracks["imu"], table.modality("imu"))
    assert np.array_equal(imu[:, 0, 0], sample_utd_mhad.inertial().astype(np.float32))


def test_the_whole_release_has_861_clips(tmp_path):
    absent = {"a8_s1_t4", "a23_s6_t4", "a27_s8_t4"}  # three clips were never released
    folder = tmp_path / "Inertial"
    folder.mkdir()
    for name in {f"a{a}_s{s}_t{t}" for a in range(1, 28) for s in range(1, 9) for t in range(1, 5)} - absent:
        (folder / f"{name}_inertial.mat").touch()
    table = datasets.open("utd_mhad", tmp_path)
    assert Counter(row.split for row in table) == {"train": 431, "test": 430}
    assert datasets.compare_with_release(table, "utd_mhad", True).clips == {"train": (431, 431), "test": (430, 430)}
    assert datasets.open("utd_mhad", tmp_path, test_subjects=["s1"]).counts(lambda r: r.split) == {"test": 107, "train": 754}


def test_what_is_wrong_is_told(root):
    (root / "Depth" / "a28_s1_t1_depth.mat").touch()
    with pytest.raises(ModaliftError, match=r"a28_s1_t1_depth\.mat: there is no action 28"):
        datasets.open("utd_mhad", root)
    (root / "Depth" / "a28_s1_t1_depth.mat").unlink()
    (root / "Depth2").mkdir()
    (root / "Depth2" / "A1_S1_T1_depth.mat").touch()
    with pytest.raises(ModaliftError, match="are the same recording by their names"):
        datasets.open("utd_mhad", root)
