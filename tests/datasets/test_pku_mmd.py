"""PKU-MMD: windows of long recordings, splits, and the anomalies of the labels; counts over the genuine lists."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import genuine
import pytest
import sample_pku_mmd

from modalift import datasets
from modalift.datasets.pku_mmd import COUNTS
from modalift.errors import ModaliftError
from modalift.loading import check, reading


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sample_pku_mmd.write(tmp_path / "data")
    return tmp_path / "data"


def test_actions_are_windows(root):
    table = datasets.open("pku_mmd", root)
    assert [kind.name for kind in table.views.values()] == ["rgb", "nir", "depth", "pose"]
    assert len(table.classes) == len(set(table.classes)) == 51
    assert [row.id for row in table][:2] == ["0002-L/1", "0002-L/2"]
    row = table[0]
    assert (table.classes[row.label], row.split, row.metadata) == ("salute", "train", {"recording": "0002-L", "camera": "left"})
    assert {(t.start, t.end) for t in row.tracks.values()} == {(4, 9)}
    for view, kind in table.views.items():
        assert len(reading.read(row.tracks[view], kind)) == 5, view
    assert reading.read(row.tracks["pose"], table.modality("pose")).shape == (5, 1, 1, 150)


def test_lines_out_of_order_are_read_in_the_order_of_time(root):
    table = datasets.open("pku_mmd", root)
    assert [(r.id, r.tracks["rgb"].start) for r in table if r.id.startswith("0002-R")] == [("0002-R/2", 0), ("0002-R/1", 9)]


def test_an_action_that_ends_before_it_starts_is_left_out_and_told(root):
    table = datasets.open("pku_mmd", root)
    assert [row.id for row in table if row.id.startswith("0043")] == ["0043-L/1"]
    told = "0043-L.txt, line 2: the action ends at frame 8, before it starts at 9; it is left out"
    assert table.notes == (told,)
    assert told in [p.reason for p in check.examine(table, decode=False).problems]


def test_a_window_past_the_end_of_its_video_ends_with_it(root):
    table = datasets.open("pku_mmd", root)
    track = next(r for r in table if r.id == "0291-M/1").tracks["rgb"]
    assert (track.start, track.end) == (1, 19)
    assert reading.window(track) == (1, 16)
    assert not [p for p in check.examine(table).problems if p.kind == "unreadable"]
    past = next(r for r in table if r.id == "0291-L/1").tracks["rgb"]
    with pytest.raises(ModaliftError, match="is empty"):
        reading.window(reading.Track(past.path, start=16, end=20, clamp=True))


def test_splits(root):
    by = {split: {(r.id.split("/")[0], r.split) for r in datasets.open("pku_mmd", root, split=split)}
          for split in ("cross_subject", "cross_view")}
    assert {name for name, split in by["cross_subject"] if split == "test"} == {"0291-L", "0291-M"}, "the last one counts"
    assert {name for name, split in by["cross_view"] if split == "test"} == {"0002-M", "0291-M"}


def test_parts_and_other_places(root):
    (root / "Data" / "RGB_VIDEO" / "0002-L.avi").unlink()
    for kind in ("IR_VIDEO", "DEPTH_VIDEO", "PKU_Skeleton_Renew"):
        (root / "Data" / kind).rename(root.parent / kind)
    (root / "Data" / "RGB_VIDEO").rename(root / "RGB_VIDEO")
    (root / "Split").rename(root / "s")
    (root / "Split").mkdir()
    (root / "s").rename(root / "Split" / "Split")
    for path in (root / "Label" / "Train_Label_PKU_final").iterdir():
        path.rename(root / "Label" / path.name)
    table = datasets.open("pku_mmd", root)
    assert list(table.views) == ["rgb"]
    assert table.missing == ("0002-L/1", "0002-L/2")
    assert datasets.guess(root) == "pku_mmd"
    (root / "Label" / "0002-M.txt").unlink()
    assert "1 recordings of the split have no labels here ('0002-M', ...)" in datasets.open("pku_mmd", root).notes


def test_options(root):
    table = datasets.open("pku_mmd", root, views=["ir"], shortest=5)
    assert list(table.views) == ["ir"]
    assert all(r.tracks["ir"].end - r.tracks["ir"].start >= 5 for r in table)
    assert "1 actions of fewer than 5 frames are left out" in table.notes
    assert datasets.open("pku_mmd", root, depth="depth_gray").views["depth"].name == "depth_gray"


@pytest.mark.parametrize(("file", "text", "message"), [
    ("Label/Train_Label_PKU_final/0002-L.txt", b"52,1,2,2\n", r"0002-L\.txt, line 1: the action is '52', not .* 1 to 51"),
    ("Label/Train_Label_PKU_final/0002-L.txt", b"1,1,5,2\n5,x,2,2\n", r"line 2: the start is 'x'"),
    ("Label/Train_Label_PKU_final/0002-L.txt", b"1,1,5\n", r"line 1: has 3 cells and not 4"),
    ("Split/cross-subject.txt", b"Training videos: \n0002-L, \n", r"has 2 lines and not 4"),
    ("Split/cross-subject.txt", b"a\n0002-L, x, \nb\n0291-L,\n", r"line 2: 'x' is not the name of a recording"),
    ("Split/cross-subject.txt", b"a\n0002-L,\nb\n0002-L,\n", r"line 4: 0002-L is in both parts")])
def test_what_is_wrong_is_told(root, file, text, message):
    (root / file).write_bytes(text)
    with pytest.raises(ModaliftError, match=message):
        datasets.open("pku_mmd", root)


def test_absent_lists_are_told(root):
    (root / "Split" / "cross-view.txt").unlink()
    with pytest.raises(ModaliftError, match=r"Split/cross-view\.txt is not there"):
        datasets.open("pku_mmd", root, split="cross_view")
    for path in (root / "Label" / "Train_Label_PKU_final").iterdir():
        path.unlink()
    with pytest.raises(ModaliftError, match=r"the labels Label/Train_Label_PKU_final/0002-L\.txt, .* are not there"):
        datasets.open("pku_mmd", root)
    with pytest.raises(ModaliftError, match="there is no view 'flow'"):
        datasets.open("pku_mmd", root, views=["flow"])


@genuine.needed
def test_the_genuine(tmp_path):
    root = genuine.unpack("pku_mmd", tmp_path)
    folder = root / "Data" / "RGB_VIDEO"
    folder.mkdir(parents=True)
    for labels in (root / "Label" / "Train_Label_PKU_final").iterdir():
        (folder / f"{labels.stem}.avi").touch()
    for split, (train, test) in COUNTS.items():
        table = datasets.open("pku_mmd", root, split=split)
        assert (len(table.split("train")), len(table.split("test"))) == (train, test)
        assert table.notes == ("0043-L.txt, line 21: the action ends at frame 4036, before it starts at 4925; it is left out",)
        assert datasets.compare_with_release(table, "pku_mmd", True, split=split).clips == {
            "train": (train, train), "test": (test, test)}
    counts = Counter(row.label for row in table)
    assert (counts[28], counts[37], min(counts.values())) == (923, 919, 213)
    lengths = [row.tracks["rgb"].end - row.tracks["rgb"].start for row in table]
    assert (sum(n < 16 for n in lengths), sum(16 <= n < 32 for n in lengths)) == (75, 1193)
    assert {row.id.split("/")[0] for row in table if row.tracks["rgb"].start == 0} == {"0089-L", "0089-M", "0089-R"}
