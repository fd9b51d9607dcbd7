"""Datasets of simulated clips: reproducible, balanced, aligned as stated, and refused when asked for nonsense."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from modalift import datasets
from modalift.darkroom import GESTURES, PRESETS, VIEWS, sheet, simulate
from modalift.darkroom.body import JOINTS
from modalift.darkroom.simulate import BASELINE, FOV, Settings, plan, render
from modalift.errors import ModaliftError
from modalift.loading import reading

TINY = {"clips": 6, "size": 24, "frames": 3, "seed": 5}


def digest(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("dark") / "one", **TINY)  # type: ignore[arg-type]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_same_seed_same_bytes_whatever_the_workers(made: Path, tmp_path: Path) -> None:
    again = simulate(tmp_path / "two", workers=2, **TINY)  # type: ignore[arg-type]
    assert digest(again) == digest(made)
    other = simulate(tmp_path / "three", **{**TINY, "seed": 6, "clips": 1})  # type: ignore[arg-type]
    name = "thermal/clip000000.mkv"
    assert digest(other)[name] != digest(made)[name]


def test_a_clip_depends_on_neither_the_views_nor_the_number_of_clips(made: Path) -> None:
    full = render(Settings(**TINY), plan(Settings(**TINY), 2))  # type: ignore[arg-type]
    part = Settings(**{**TINY, "clips": 6, "modalities": ("thermal",)})  # type: ignore[arg-type]
    assert np.array_equal(render(part, plan(part, 2)).videos["thermal"], full.videos["thermal"])


def test_files_hold_what_the_manifest_says(made: Path) -> None:
    table = rows(made)
    assert [r["clip_id"] for r in table] == [f"clip{i:06d}" for i in range(6)]
    joints = np.load(made / "pose.npz")
    about = json.loads((made / "dataset.json").read_text())
    assert about["joints"] == list(JOINTS)
    assert about["classes"] == list(GESTURES)
    assert about["mirrored"]["turn_left"] == "turn_right"
    for row in table:
        assert row["label_name"] == GESTURES[int(row["label"])]
        assert 1.0 <= float(row["lux"]) <= 8.0
        assert joints[row["clip_id"]].shape == (3, len(JOINTS), 3)
        for view in VIEWS:
            if view == "pose":
                continue
            with av.open(str(made / row[view])) as video:
                frames = [f.to_ndarray(format="gray16le" if view == "depth" else "gray") for f in video.decode(video=0)]
                assert float(video.streams.video[0].average_rate) == pytest.approx(float(row["rate"]))  # type: ignore[arg-type]
            assert len(frames) == int(row["frames"]) == 3
            assert frames[0].dtype == (np.uint16 if view == "depth" else np.uint8)
    # Depth is lossless and in millimeters.
    settings = Settings(**TINY)  # type: ignore[arg-type]
    with av.open(str(made / table[0]["depth"])) as video:
        stored = np.stack([f.to_ndarray() for f in video.decode(video=0)])
    assert np.array_equal(stored, render(settings, plan(settings, 0)).videos["depth"])


def test_splits_share_no_person_and_balance_the_classes() -> None:
    settings = Settings(clips=480, val_subjects=3)
    plans = [plan(settings, i) for i in range(480)]
    people = {s: {p.subject for p in plans if p.split == s} for s in ("train", "val", "test")}
    assert {s: len(v) for s, v in people.items()} == {"train": 13, "val": 3, "test": 5}
    assert len(set.union(*people.values())) == 21
    assert sum(p.split == "test" for p in plans) == 160
    for split in people:
        counts = Counter(p.label for p in plans if p.split == split)
        assert len(counts) == 10
        assert len(set(counts.values())) == 1
    assert {p.split for p in (plan(Settings(clips=50, test_subjects=0), i) for i in range(50))} == {"train"}


def test_night_and_day_show_the_same_motion_and_night_is_darker() -> None:
    settings = Settings(clips=30, size=32, frames=4, lux=(0.5, 0.5), modalities=("rgb", "rgb_day"))
    for index in (0, 7):
        clip = render(settings, plan(settings, index)).videos
        assert clip["rgb"].shape == clip["rgb_day"].shape == (4, 32, 32, 3)
        assert clip["rgb"].mean() < 0.6 * clip["rgb_day"].mean()


def test_joints_project_onto_the_person_in_depth_and_thermal_has_other_pixels() -> None:
    settings = Settings(clips=60, size=64, frames=2, modalities=("depth", "nir", "thermal"))
    off, brighter = [], []
    for index in range(0, 60, 9):
        clip = render(settings, plan(settings, index))
        depth, nir = clip.videos["depth"], clip.videos["nir"]
        assert depth.shape == nir.shape == (2, 64, 64)
        assert clip.videos["thermal"].shape == (2, 60, 80)
        focal = 32 / np.tan(np.radians(FOV["depth"] / 2))
        chest = clip.pose[0, JOINTS.index("chest")] - [BASELINE["depth"], 0, 0]
        column, line = (int(focal * chest[i] / chest[2] + 32) for i in (0, 1))
        patch = depth[0, line - 2:line + 3, column - 2:column + 3]
        off.append(chest[2] - np.median(patch[patch > 0]) / 1000)
        behind = (depth[0] > 1000 * (chest[2] + 0.6)) | (depth[0] == 0)
        brighter.append(nir[0, line - 2:line + 3, column - 2:column + 3].mean() - nir[0][behind].mean())
    # The chest's surface lies a hand's breadth in front of its joint, more where an arm passes.
    assert 0.02 < np.median(off) < 0.3
    assert min(off) > -0.05
    assert np.median(brighter) > 10


def test_thermal_shows_the_face_warm_without_any_light() -> None:
    settings = Settings(clips=20, frames=2, lux=(0.01, 0.01), modalities=("rgb", "thermal"))
    clip = render(settings, plan(settings, 1)).videos
    assert clip["thermal"].std() > 25
    assert clip["rgb"].mean() < 25


def test_the_likeness_of_mgr_dark(tmp_path: Path) -> None:
    assert PRESETS["mgr_dark"]["frames"] == (45, 210)
    settings = Settings(clips=300, **PRESETS["mgr_dark"])
    lengths = [settings.length(i) for i in range(300)]
    assert (min(lengths), max(lengths)) == (45, 210)
    people = {s: {plan(settings, i).subject for i in range(300) if plan(settings, i).split == s} for s in ("train", "test")}
    assert {s: len(p) for s, p in people.items()} == {"train": 16, "test": 5}
    out = simulate(tmp_path / "x", clips=4, size=16, seed=1, **{**PRESETS["mgr_dark"], "frames": (4, 9)})
    table = datasets.open("darkroom", out)
    assert list(table.views) == ["rgb", "rgb_day", "depth", "thermal", "depth_day", "thermal_day"]
    for row, written in zip(table, rows(out), strict=True):
        found = {view: reading.read(track, table.modality(view)) for view, track in row.tracks.items()}
        assert {len(frames) for frames in found.values()} == {int(written["frames"])}
        assert {track.rate for track in row.tracks.values()} == {25.0}
        assert not np.array_equal(found["depth"], found["depth_day"])
        both = (found["depth"] > 0) & (found["depth_day"] > 0)
        assert np.median(np.abs(found["depth"][both].astype(float) - found["depth_day"][both])) < 40, "the same scene"
        assert row.tracks["depth"].space == row.tracks["depth_day"].space
    assert len({int(row["frames"]) for row in rows(out)}) > 1
    assert sheet(tmp_path / "sheet.png", out, columns=4, cell=16).is_file()


def test_a_gesture_fills_its_clip(tmp_path: Path) -> None:
    slow = Settings(clips=10, size=16, frames=32, fps=4.0, modalities=("pose",))
    usual = Settings(clips=10, size=16, frames=32, modalities=("pose",))
    for index in (0, 4):
        poses = [render(settings, plan(settings, index)).pose for settings in (slow, usual)]
        assert np.allclose(poses[0], poses[1], atol=1e-5), "8 s instead of 2 s, the same motion frame by frame"


@pytest.mark.parametrize(("wrong", "says"), [
    ({"frames": (9, 4), "fps": 25.0}, "frames is 9 to 4"), ({"frames": (4, 9)}, "fps is not given"), ({"fps": 0.0}, "fps is 0"),
    ({"frames": 601}, "frames is 601"), ({"modalities": ["rgb_days"]}, "did you mean 'rgb_day'"),
    ({"clips": 0}, "clips is 0"), ({"size": 4}, "size is 4"), ({"frames": 1}, "frames is 1"),
    ({"lux": (8.0, 1.0)}, "lower bound first"), ({"lux": (0.0, 1.0)}, "above 0"), ({"seed": -1}, "seed is -1"),
    ({"workers": 0}, "workers is 0"), ({"modalities": ["termal"]}, "did you mean 'thermal'"),
    ({"modalities": []}, "modalities is empty"), ({"val_subjects": 16}, "val_subjects is 16"),
    ({"test_share": 1.0}, "test_share is 1"), ({"lux": (float("nan"), 1.0)}, "lux"),
])
def test_wrong_arguments_are_named(tmp_path: Path, wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ModaliftError, match=says):
        simulate(tmp_path / "x", **{**TINY, **wrong})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ModaliftError, match="not empty"):
        simulate(tmp_path, **TINY)  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ModaliftError, match="not empty"):
        simulate(tmp_path / "mine.txt", **TINY)  # type: ignore[arg-type]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert (simulate(empty, clips=1, size=16, frames=2, modalities=["nir"]) / "nir/clip000000.mkv").exists()


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "x", progress=stop, **TINY)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_only_the_asked_views_are_written(tmp_path: Path) -> None:
    out = simulate(tmp_path / "x", clips=2, size=16, frames=2, modalities=["thermal", "rgb"])
    assert sorted(p.name for p in out.iterdir()) == ["dataset.json", "manifest.csv", "rgb", "thermal"]
    assert rows(out)[0]["depth"] == rows(out)[0]["pose"] == ""


def test_contact_sheet(made: Path, tmp_path: Path) -> None:
    drawn = cv2.imread(str(sheet(tmp_path / "sheet.png", made, columns=3, cell=32)))
    assert drawn is not None
    assert drawn.shape[1] > 2 * 3 * 32
    assert drawn.std() > 20
    with pytest.raises(ModaliftError, match=r"dataset\.json"):
        sheet(tmp_path / "other.png", tmp_path)
    with pytest.raises(ModaliftError, match="clip 99"):
        sheet(tmp_path / "other.png", made, clips=[99])
    assert not (tmp_path / "other.png").exists()
