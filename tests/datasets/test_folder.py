"""The datasets folder and darkroom."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from modalift import datasets
from modalift.darkroom import simulate
from modalift.errors import ModaliftError
from modalift.loading import reading


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def fails(match: str, root: Path, **options) -> None:
    with pytest.raises(ModaliftError, match=match) as told:
        datasets.open("folder", root, **options)
    assert "\n" not in str(told.value)


def test_split_class_clip_view(tmp_path):
    root = touch(tmp_path, "training/wave/s03_1/rgb.mp4", "training/wave/s03_1/depth.mkv", "training/stop/s10_2/rgb.avi",
                 "testing/wave/p2_1/rgb.mp4", "training/unlabeled/x/rgb.mp4", "README.md", "training/.hidden",
                 "training/wave/notes.txt")
    folder = root / "testing" / "stop" / "p2_9" / "rgb"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "1.png"), np.zeros((8, 8, 3), np.uint8))
    table = datasets.open("folder", root, mirrored={"wave": "wave"}, spaces=[["rgb", "depth"]], rate=30)
    assert datasets.guess(root) == "folder"
    assert table.classes == ("stop", "wave")
    assert list(table.views) == ["depth", "rgb"]
    rows = {r.id: r for r in table}
    assert set(rows) == {"training/wave/s03_1", "training/stop/s10_2", "testing/wave/p2_1", "training/unlabeled/x",
                         "testing/stop/p2_9"}
    first = rows["training/wave/s03_1"]
    assert (first.label, first.subject, first.split) == (1, "s03", "train")
    assert first.tracks["rgb"].space == first.tracks["depth"].space == "rgb+depth"
    assert first.tracks["rgb"].rate == 30
    assert rows["training/unlabeled/x"].label is None
    assert rows["training/unlabeled/x"].subject == ""
    assert set(rows["testing/wave/p2_1"].tracks) == {"rgb"}
    assert reading.read(rows["testing/stop/p2_9"].tracks["rgb"], table.views["rgb"]).shape == (1, 8, 8, 3)
    assert table.mirrored == {1: 1}


def test_view_class_clip(tmp_path):
    root = touch(tmp_path, "rgb/wave/s1_a.mp4", "depth/wave/s1_a.mkv", "rgb/wave/s2_a.mp4", "rgb/halt/s2_b.mp4")
    fails(r"no train and test folders - give test_subjects \(subjects: s1, s2\)", root)
    table = datasets.open("folder", root, test_subjects=["s2"])
    assert {r.id: r.split for r in table} == {"wave/s1_a": "train", "wave/s2_a": "test", "halt/s2_b": "test"}
    assert set(table[0].tracks) == {"depth", "rgb"}


def test_layouts_that_do_not_fit(tmp_path):
    fails("is a file", touch(tmp_path, "a.txt") / "a.txt")
    fails("holds no folders - arrange", tmp_path)
    fails("holds 'stuff', which is neither a split nor a view", touch(tmp_path / "1", "train/a/b/rgb.mp4",
                                                                      "stuff/a/b/rgb.mp4"))
    fails("rgb.mp4 is a file where a clip folder is expected", touch(tmp_path / "2", "train/wave/rgb.mp4"))
    fails("are both view 'rgb' of one clip", touch(tmp_path / "3", "train/a/b/rgb.mp4", "train/a/b/rgb.avi"))
    fails("its name contains no modality", touch(tmp_path / "4", "train/a/b/front.mp4"))
    fails("no clip was found", touch(tmp_path / "5", "train/a/b/rgb.txt"))
    fails("class folder 'b' is not among `classes`", touch(tmp_path / "6", "train/b/c/rgb.mp4"), classes=["a"])
    fails("there is no view 'dept' - did you mean 'depth'", touch(tmp_path / "7", "train/a/b/depth.mkv"),
          spaces=[["dept"]])
    table = datasets.open("folder", tmp_path / "4", modalities={"front": "rgb"})
    assert table.views["front"].name == "rgb"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("sim") / "dark", clips=12, size=32, frames=4, train_subjects=2,
                    test_subjects=1)


def test_the_simulators_output(simulated):
    assert datasets.guess(simulated) == "darkroom"
    table = datasets.open("darkroom", simulated)
    assert len(table) == 12
    assert len(table.classes) == 10
    assert list(table.views) == ["rgb", "rgb_day", "depth", "nir", "thermal", "pose"]
    left, right = table.classes.index("turn_left"), table.classes.index("turn_right")
    assert table.mirrored[left] == right
    assert table.mirrored[right] == left
    assert len(table.mirrored) == 10
    tracks = table[0].tracks
    assert tracks["rgb"].space == tracks["rgb_day"].space != tracks["thermal"].space
    assert tracks["rgb"].rate == 2.0
    assert isinstance(table[0].metadata["lux"], float)
    for view, kind in table.views.items():
        assert len(reading.read(tracks[view], kind)) == 4


def test_csv_reads_the_simulators_output_too(simulated):
    plain, named = datasets.open("csv", simulated), datasets.open("darkroom", simulated)
    assert plain.classes == named.classes[:len(plain.classes)]
    assert plain.views == named.views
    assert [(r.id, r.label, r.split, r.subject) for r in plain] == [(r.id, r.label, r.split, r.subject) for r in named]


def test_darkroom_of_another_folder(tmp_path):
    with pytest.raises(ModaliftError, match=r"dataset.json does not exist - make the dataset with `modalift simulate"):
        datasets.open("darkroom", tmp_path)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(ModaliftError, match="does not describe simulated clips"):
        datasets.open("darkroom", tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_classes_and_clips_of_any_name(tmp_path):
    names = ["²", "①", "１", "1", "01", "a1", "A1", "caf\udce9", "a\nb", "a\tb", "[red]x", "a\x1b[31mb", "trail ", ":smile:",
             "-x", "on", "null", "x" * 250, "9" * 250, "a,b", "~", "*", "e\u0301", "é"]
    for k, name in enumerate(names):
        for split in ("train", "test"):
            folder = tmp_path / split / name / f"s{k % 3}_{name[:100]}"
            folder.mkdir(parents=True)
            np.savez(folder / "depth.npz", frames=np.full((3, 8, 8), k, np.uint16))
    table = datasets.open("folder", tmp_path)
    assert sorted(table.classes) == sorted(name if name != "caf\udce9" else r"caf\xe9" for name in names)
    assert table.classes == datasets.open("folder", tmp_path).classes
    ordered = ["01", "1", "１", "9" * 250]  # by value, then by name
    assert [c for c in table.classes if c in ordered] == ordered
    for row in table:
        (row.id + table.classes[row.label]).encode()  # text that can be stored
        assert reading.read(row.tracks["depth"], table.views["depth"]).shape == (3, 8, 8, 1)
    assert len({row.id for row in table}) == 2 * len(names)


def test_natural_order_of_digits_of_any_kind_and_number():
    names = ["b²", "b①", "b10", "b9", "b09", "b１0", "b" + "1" * 5000, "B9", "b"]
    assert sorted(names, key=reading.natural) == ["b", "B9", "b09", "b9", "b10", "b１0", "b" + "1" * 5000, "b²", "b①"]
    assert len({reading.natural(name) for name in names}) == len(names)
