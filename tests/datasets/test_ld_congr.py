"""LD-ConGR: both forms of its lists; and the genuine lists where they are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import genuine
import pytest
import sample_ld_congr
from downloads import noise, text, video

from modalift import datasets
from modalift.datasets.ld_congr import Gesture, parse_list
from modalift.errors import ModaliftError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sample_ld_congr.write(tmp_path / "data")
    return tmp_path / "data"


def test_both_forms_of_a_list(tmp_path):
    videos = parse_list(text(tmp_path / "a.txt", b"004/g_s1_l1_00001,26 36 0,78 89 0,132 145 9\n"))
    assert videos == [Gesture("004/g_s1_l1_00001", 0, 25, 36), Gesture("004/g_s1_l1_00001", 0, 77, 89),
                      Gesture("004/g_s1_l1_00001", 9, 131, 145)]
    gestures = b"./frames/004/g_s1_l1_00001_color_all 1 26 36\n./frames/004/g_s1_l1_00001_color_all 11 37 77\n" \
               b"./frames/004/g_s1_l1_00001_color_all 1 78 89\n./frames/004/g_s1_l1_00001_color_all 10 132 145\n"
    assert parse_list(text(tmp_path / "b.txt", gestures)) == videos


def test_views_subjects_and_short_gestures(root):
    table = datasets.open("ld_congr", root)
    assert {r.id: (table.classes[r.label], r.subject, r.split, set(r.tracks)) for r in table} == {
        "002/g_s1_l1_00001/1": ("palm", "002", "train", {"rgb", "depth"}),
        "002/g_s1_l1_00001/6": ("click", "002", "train", {"rgb", "depth"}),
        "003/g_s1_l1_00001/2": ("fist", "003", "train", {"rgb"}),
        "004/g_s1_l1_00001/1": ("palm", "004", "test", {"rgb", "depth"}),
        "004/g_s1_l1_00001/6": ("palm", "004", "test", {"rgb", "depth"})}
    assert [(r.tracks["rgb"].start, r.tracks["rgb"].end) for r in table] == [(0, 4), (5, 9), (1, 8), (0, 5), (5, 10)]
    assert table.notes[0].startswith("1 gestures are shorter than 4 frames, and left out (004/g_s1_l1_00001/6)")


def test_lists_of_the_code_and_videos(root):
    (root / "train_labels.txt").unlink()
    text(root / "trainlistall_but_None.txt", b"./frames/005/g_s1_l1_00001_color_all 3 1 6\n")
    video(root / "005" / "g_s1_l1_00001_color.avi", noise(8))
    assert datasets.guess(root) == "ld_congr"
    table = datasets.open("ld_congr", root)
    assert (table[0].label, table[0].tracks["rgb"].path.name) == (2, "g_s1_l1_00001_color.avi")
    (root / "trainlistall_but_None.txt").unlink()
    with pytest.raises(ModaliftError, match=r"the list train_labels.txt is not there - it is at the top of the download"):
        datasets.open("ld_congr", root)


@pytest.mark.parametrize("line", [b"004/g_s1_l1_00001,26 36", b"004/g_s1_l1_00001,26 36 10", b"./frames/a 12 1 5", b"a b c",
                                  b"004/g_s1_l1_00001,0 36 1", b"./frames/a 1 5 4", b"004/g_s1_l1_00001,5 4 1",
                                  b"./frames/a 0 1 5"])
def test_damaged_lines_are_told(tmp_path, line):
    with pytest.raises(ModaliftError, match=r"a\.txt, line 1: ") as told:
        parse_list(text(tmp_path / "a.txt", line))
    assert "\n" not in str(told.value)


@genuine.needed
def test_the_genuine_lists(tmp_path):
    root = genuine.unpack("ld_congr", tmp_path)
    train, test = (parse_list(root / name) for name in ("trainlistall_but_None.txt", "test_labels.txt"))
    assert (len(train), len(test), sum(g.end - g.start >= 4 for g in test)) == (34315, 10682, 10572)
    assert [len({g.video for g in found}) for found in (train, test)] == [416, 126]
    for video_name in {g.video for found in (train, test) for g in found}:
        for kind in ("color", "depth"):
            (root / "frames" / f"{video_name}_{kind}_all").mkdir(parents=True)
    table = datasets.open(datasets.guess(root), root)
    assert Counter(r.split for r in table) == {"train": 34315, "test": 10572}
    assert datasets.compare_with_release(table, "ld_congr", True).complete
    assert {r.subject for r in table.split("test")} == {"004", "007", "010", "014", "021", "025", "030"}
    assert table.notes[0].startswith("110 gestures are shorter than 4 frames")
