"""Derived views: flow that is right, heat maps where the joints are, and datasets that read back."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from modalift import datasets
from modalift.derive import DERIVED, derive
from modalift.derive.flow import flow_of
from modalift.derive.pose_map import heat_maps, project, write_lossless
from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.modalities import Row, Table, Track, build_table, modality

GRAY = modality("gray")


def texture(size: int = 80) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return (127 + 100 * smooth / np.abs(smooth).max()).astype(np.uint8)


def moving(frames: int, dx: float, dy: float, size: int = 80) -> np.ndarray:
    image = texture(size)
    return np.stack([cv2.warpAffine(image, np.float32([[1, 0, t * dx], [0, 1, t * dy]]), (size, size),
                                    borderMode=cv2.BORDER_REFLECT) for t in range(frames)])[..., None]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Three clips of a moving texture with joints; the ids would make bad file names; one file is broken."""
    root = tmp_path / "source"
    root.mkdir()
    rows = []
    joints = np.zeros((5, 20, 3), np.float32)
    joints[..., 1] = np.linspace(0, 1.6, 20)
    for i, clip in enumerate(("train/a", "train_a", "broken")):
        video = root / f"{i}.mkv"
        if clip == "broken":
            video.touch()
        else:
            write_lossless(video, np.repeat(moving(5, 2 - 3 * i, 1), 3, axis=3))
        np.savez(root / f"{i}.npz", joints=joints)
        rows.append(Row(clip, i % 2, "s1", "train", {"rgb": Track(video, rate=20.0, space="cam"),
                                                     "pose": Track(root / f"{i}.npz")}))
    rows.append(Row("blind", None, "s2", "test", {"pose": Track(root / "0.npz")}))
    return build_table("toy", ("x", "y"), {"rgb": modality("rgb"), "pose": modality("pose", 60)}, rows, {0: 1, 1: 0})


@pytest.mark.parametrize("method", ["dis", "farneback"])
def test_flow_is_the_displacement_to_the_next_frame(method):
    flow = flow_of(moving(4, 2.0, -1.0), GRAY, method)
    assert flow.shape == (4, 80, 80, 2)
    middle = flow[:, 20:60, 20:60]
    np.testing.assert_allclose(np.median(middle, axis=(1, 2)), [[2, -1]] * 4, atol=0.15)
    np.testing.assert_array_equal(flow[-1], flow[-2])
    assert not flow_of(moving(1, 2, 2), GRAY, method).any()


def test_flow_of_depth_ignores_the_unit():
    gray = moving(2, 2.0, 0.0)
    depth = (gray.astype(np.uint16) * 4 + 1500)
    depth[:, :10] = 0
    flow = flow_of(depth, modality("depth"))
    np.testing.assert_allclose(np.median(flow[0, 25:60, 20:60], axis=(0, 1)), [2, 0], atol=0.2)
    with pytest.raises(ModaliftError, match="at least 16 x 16 pixels, not 8 x 8"):
        flow_of(np.zeros((2, 8, 8, 1), np.uint8), GRAY)


def test_derive_flow_writes_a_dataset(table, tmp_path):
    before = sorted(p.name for p in (tmp_path / "source").iterdir())
    made = derive("flow", table, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "source").iterdir()) == before
    assert list(made.views) == ["rgb", "pose", "flow"]
    assert made.views["flow"] == modality("flow")
    rows = {r.id: r for r in made}
    assert list(rows) == ["train/a", "train_a", "broken", "blind"]
    assert "flow" not in rows["broken"].tracks
    assert "flow" not in rows["blind"].tracks
    assert "zero bytes" in json.loads((tmp_path / "out" / "skipped.json").read_text())["broken"]
    track = rows["train/a"].tracks["flow"]
    assert (track.rate, track.space) == (20.0, "cam")
    assert track.path != rows["train_a"].tracks["flow"].path
    flow = reading.read(track, made.views["flow"])
    assert flow.shape == (5, 80, 80, 2)
    assert flow.dtype == np.float32
    np.testing.assert_allclose(np.median(flow[0, 20:60, 20:60], axis=(0, 1)), [2, 1], atol=0.15)
    np.testing.assert_allclose(np.median(reading.read(rows["train_a"].tracks["flow"], made.views["flow"], [1]),
                                         axis=(0, 1, 2)), [-1, 1], atol=0.15)
    again = datasets.open(datasets.guess(tmp_path / "out"), tmp_path / "out")
    assert again == made
    assert again.mirrored == {0: 1, 1: 0}
    assert [r.label for r in again] == [0, 1, 0, None]


def test_derived_sets_can_be_derived_from(table, tmp_path):
    first = derive("flow", table, tmp_path / "one", name="motion", method="farneback")
    second = derive("pose_map", first, tmp_path / "two", size=32, parts="three")
    assert list(second.views) == ["rgb", "pose", "motion", "pose_map"]
    assert second.views["motion"].name == "flow"
    assert second.views["pose_map"].channels == 3
    got = reading.read(second[0].tracks["pose_map"], second.views["pose_map"])
    assert got.shape == (5, 32, 32, 3)
    assert got.max(axis=(0, 1, 2)).min() > 150


def test_two_runs_write_the_same_bytes(table, tmp_path):
    for name in ("one", "two"):
        derive("flow", table, tmp_path / name)
        derive("pose_map", table, tmp_path / f"{name}-maps", size=16)
    for made in ("", "-maps"):
        files = sorted(p.relative_to(tmp_path / f"one{made}") for p in (tmp_path / f"one{made}").rglob("*.??*")
                       if p.is_file())
        assert len(files) >= 4
        for file in files:
            assert (tmp_path / f"one{made}" / file).read_bytes() == (tmp_path / f"two{made}" / file).read_bytes(), file


def test_heat_maps_are_gaussians_at_the_joints():
    places = np.array([[[10.0, 4.0], [25.5, 20.0], [np.nan, 3.0]]])
    got = heat_maps(places, [[0, 2], [1]], 32, 2.0)[0]
    assert got.shape == (32, 32, 2)
    assert got[4, 10, 0] == 255
    assert np.unravel_index(got[..., 0].argmax(), (32, 32)) == (4, 10)
    assert got[4, 12, 0] == round(255 * np.exp(-0.5))
    assert got[20, 25, 1] == got[20, 26, 1] > 240
    assert not heat_maps(np.full((1, 3, 2), np.nan), [[0, 1, 2]], 16, 1.0).any()


def test_projection():
    joints = np.zeros((2, 2, 3))
    joints[:, 1] = [0.0, 1.0, 2.0]
    up = project(joints, 100, "+y", None)
    assert up[0, 1, 1] < up[0, 0, 1], "what is up in the world is up in the image"
    assert project(joints, 100, "-y", None)[0, 1, 1] > 50
    assert 0 < up.min() < up.max() < 99
    seen = project(np.array([[[0.5, 0.0, 2.0], [0.0, 0.0, -1.0]]]), 100, "-y", 1.0)
    np.testing.assert_allclose(seen[0, 0], [0.5 * 100 + 25 - 0.5, 49.5])
    assert np.isnan(seen[0, 1]).all()


def test_what_people_get_wrong(table, tmp_path):
    def fails(match: str, name: str = "flow", out: str = "out", of: Table = table, **options) -> None:
        with pytest.raises(ModaliftError, match=match) as told:
            derive(name, of, tmp_path / out, **options)
        assert "\n" not in str(told.value)
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".*"))

    fails("unknown derived view 'flo' - did you mean 'flow'", "flo")
    fails("unknown key 'flow.metod' for derived view 'flow' - did you mean 'method'", metod="dis")
    fails("flow.method = 'farnebäck'.* - did you mean 'farneback'", method="farnebäck")
    fails("toy has no view 'rbg'", view="rbg")
    fails(r"flow cannot be computed from 'pose' \(pose\)", view="pose")
    fails("source exists and is not empty", out="source")
    fails("can be computed for no clip: .*zero bytes", of=table.where(lambda r: r.id == "broken"))
    fails("pose_map.sigma = 'wide': ", "pose_map", sigma="wide")
    fails("one or three", "pose_map", parts=[[1], [2]])
    fails("name joint 20, but joints are numbered 0 to 19", "pose_map", parts=[[20]])
    fails("pose_map.up = 'y'", "pose_map", up="y")
    with pytest.raises(ModaliftError, match="has a view 'rgb' already"):
        DERIVED["flow"](table, None, tmp_path / "out", name="rgb")
