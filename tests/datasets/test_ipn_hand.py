"""IPN Hand: lists with and without a header, names with a hash; and the genuine lists where they are."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import genuine
import pytest
import sample_ipn_hand
from downloads import noise, text, video

from modalift import datasets
from modalift.datasets.ipn_hand import LISTS, Gesture, parse_list
from modalift.errors import ModaliftError
from modalift.loading import reading


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sample_ipn_hand.write(tmp_path / "data")
    return tmp_path / "data"


def test_lines_of_the_genuine_bytes(tmp_path):
    file = text(tmp_path / "a.txt", b"video,label,id,t_start,t_end,frames\r\n1CM1_4_R_#229,D0X,1,1,17,17\r\n"
                                    b"1CM1_4_R_#229,G11,14,18,55,38")
    assert parse_list(file) == [Gesture("1CM1_4_R_#229", "D0X", 0, 17, 17), Gesture("1CM1_4_R_#229", "G11", 17, 55, 38)]


def test_gestures_without_and_with_none(root):
    table = datasets.open("ipn_hand", root)
    assert {r.id: (table.classes[r.label], r.split, r.tracks["rgb"].path.name, r.tracks["rgb"].start, r.tracks["rgb"].end)
            for r in table} == {
        "1CM1_4_R_#229/3": ("G11", "train", "1CM1_4_R_#229", 2, 5),
        "1CM1_4_R_#229/6": ("B0B", "train", "1CM1_4_R_#229", 5, 8),
        "4CM11_7_R_#9/1": ("B0A", "test", "4CM11_7_R_#9.avi", 0, 3),
        "4CM11_7_R_#9/5": ("G01", "test", "4CM11_7_R_#9.avi", 4, 8)}
    assert table.classes[:3] == ("B0A", "B0B", "G01")
    assert reading.read(table[1].tracks["rgb"], table.modality("rgb")).shape == (3, 12, 16, 3), "desktop.ini is no frame"
    every = datasets.open("ipn_hand", root, non_gesture=True)
    assert len(every) == 6
    assert every.classes[every[0].label] == "D0X"
    assert datasets.release_of("ipn_hand", non_gesture=True).clips == {"train": 4039, "test": 1610}


def test_frames_come_before_videos_and_lists_may_lie_at_the_top(root):
    video(root / "videos" / "1CM1_4_R_#229.avi", noise(8))
    for file in (root / "annotations").iterdir():
        file.rename(root / file.name)
    assert datasets.guess(root) == "ipn_hand"
    assert datasets.open("ipn_hand", root)[0].tracks["rgb"].path.is_dir()
    shutil.rmtree(root / "frames")
    assert datasets.open("ipn_hand", root)[0].tracks["rgb"].path.name == "1CM1_4_R_#229.avi"


def test_a_partial_download_works(root):
    shutil.rmtree(root / "frames")
    assert datasets.open("ipn_hand", root).missing == ("1CM1_4_R_#229/3", "1CM1_4_R_#229/6")
    (root / "annotations" / LISTS["test"]).unlink()
    with pytest.raises(ModaliftError, match=r"the list annotations/Annot_TestList.txt is not there"):
        datasets.open("ipn_hand", root)


def test_rows_that_contradict_themselves(root):
    text(root / "annotations" / LISTS["test"], b"4CM11_7_R_#9,B0A,2,1,3,4\n")
    table = datasets.open("ipn_hand", root)
    assert table[2].tracks["rgb"].end == 3
    assert table.notes == ("1 rows have another number of frames than from t_start to t_end (4CM11_7_R_#9/1): t_start and t_end"
                           " count",)


@pytest.mark.parametrize(("line", "reason"), [
    (b"v,B0A,3,1,3,3", "the id 3 is of B0B, not of 'B0A'"), (b"v,B0A,2,3,1,3", "t_end is '1'"),
    (b"v,B0A,15,1,3,3", "the id is '15'"),
    (b"v,B0A,2,1,3", "is not 'video,label"), (b",B0A,2,1,3,3", "is not 'video,label")])
def test_damaged_lines_are_told(tmp_path, line, reason):
    with pytest.raises(ModaliftError, match=r"a\.txt, line 1: ") as told:
        parse_list(text(tmp_path / "a.txt", line))
    assert reason in str(told.value)


@genuine.needed
def test_the_genuine_lists(tmp_path):
    root = genuine.unpack("ipn_hand", tmp_path)
    lists = {split: parse_list(root / name) for split, name in LISTS.items()}
    assert {split: len(found) for split, found in lists.items()} == {"train": 4039, "test": 1610}
    assert Counter(parse_list(root / "Annot_List.txt")) == Counter(g for found in lists.values() for g in found)
    for video_name in {g.video for found in lists.values() for g in found}:
        (root / "frames" / video_name).mkdir(parents=True)
    for options, counts in (({}, {"train": 3117, "test": 1101}), ({"non_gesture": True}, {"train": 4039, "test": 1610})):
        table = datasets.open("ipn_hand", root, **options)
        assert Counter(r.split for r in table) == counts
        assert datasets.compare_with_release(table, "ipn_hand", True, **options).complete
        assert table.notes == ()
