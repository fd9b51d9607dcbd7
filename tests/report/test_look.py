"""The contact sheet shows the very tensors: a hole is hatched, an absent sensor said, a mirrored label told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from modalift.errors import ModaliftError
from modalift.loading.clips import ClipSet
from modalift.loading.collation import collate
from modalift.loading.framing import Augment, Framing
from modalift.loading.stores import MemoryStore
from modalift.modalities import Row, Table, Track, build_table, modality
from modalift.report import look as sheet
from modalift.report.look import draw, look

VIEWS = {"rgb": modality("rgb"), "depth": modality("depth"), "flow": modality("flow"), "pose": modality("pose", 12),
         "imu": modality("imu", 3)}


def data(augment: Augment | None = None) -> ClipSet:
    rng = np.random.default_rng(0)
    arrays = {
        ("a", "rgb"): np.full((5, 24, 24, 3), (250, 10, 30), np.uint8),
        ("a", "depth"): np.full((5, 24, 24, 1), 2000, np.uint16),
        ("a", "flow"): rng.normal(size=(5, 24, 24, 2)).astype(np.float32),
        ("a", "pose"): rng.normal(size=(9, 1, 1, 12)).astype(np.float32),
        ("a", "imu"): rng.normal(size=(30, 1, 1, 3)).astype(np.float32),
        ("b", "rgb"): np.full((5, 24, 24, 3), 90, np.uint8),
    }
    arrays["a", "depth"][:, :12] = 0
    arrays["a", "depth"][:, 12:, 12:] = 4000
    rows = [Row(n, k, "s1", "train", {v: Track(Path(v)) for i, v in arrays if i == n}) for k, n in enumerate("ab")]
    table: Table = build_table("things", ("wave", "punch"), VIEWS, rows, {0: 1, 1: 0})
    framings = {v: Framing(frames=4, size=24 if VIEWS[v].kind == "video" else 1) for v in VIEWS}
    return ClipSet(table, framings, augment=augment, store=MemoryStore(arrays))


def test_the_sheet_is_written_whole(tmp_path):
    out = look(data(), [0, 1], tmp_path / "sheet.png")
    image = cv2.imread(str(out))
    assert image.shape[1] >= 720
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_colors_and_holes_are_those_of_the_tensors(monkeypatch):
    clips = data()
    seen: dict[str, list[np.ndarray]] = {}
    inner = sheet._cells

    def spy(clip, valid, kind, chosen, here):
        cells = inner(clip, valid, kind, chosen, here)
        seen.setdefault(kind.name, cells)
        return cells

    monkeypatch.setattr(sheet, "_cells", spy)
    draw(clips, collate([clips[0, 0]]))
    rgb, depth = seen["rgb"][0], seen["depth"][0]
    assert rgb.shape == (144, 144, 3), "a whole factor: a pixel stays a square"
    assert (rgb == (30, 10, 250)).all(), "BGR for OpenCV, the colors as recorded"
    hatch = sheet._hatched(144, 144)
    assert np.array_equal(depth[:72], hatch[:72]), "holes are hatched"
    near, far = depth[100, 20].astype(int), depth[100, 120].astype(int)
    assert near.sum() > far.sum(), "near is bright"
    assert not np.array_equal(depth[72:], hatch[72:])
    assert len(seen["pose"]) == 4
    assert len(seen["imu"]) == 1, "one wide image of curves"


def test_an_absent_sensor_and_a_mirrored_label_are_told(monkeypatch):
    clips = data(Augment(flip=1.0))
    written: list[str] = []
    monkeypatch.setattr(sheet, "_write", lambda s, text, *rest: written.append(text))
    clips._mirrors_views = True  # as if no view forbade it
    draw(clips, collate([clips[0, 1]]))
    assert written.count("sensor absent") == 4
    assert any("wave" in t and "mirrored, was punch" in t and "subject s1" in t for t in written)


def test_what_a_network_makes_of_a_clip_is_drawn_too():
    clips = data()
    batch = collate([clips[0, 0]])
    plain = draw(clips, batch)
    more = draw(clips, batch, prepare=lambda view, clip: clip.float() / 1000 - 1)
    assert more.shape[0] > plain.shape[0] + 5 * 144


@pytest.mark.parametrize(("indices", "name", "said"), [
    ([0], "sheet.jpg", r"sheet\.jpg: the contact sheet is a PNG image"), ([2], "a.png", "no clip 2: there are 2"),
    ([], "a.png", "no clip was selected"), ([-1], "a.png", "no clip -1")])
def test_wrong_wishes_are_named(tmp_path, indices, name, said):
    with pytest.raises(ModaliftError, match=said):
        look(data(), indices, tmp_path / name)
    assert not list(tmp_path.iterdir())
