"""EgoGesture: archives merged or not, names in either case, junk rows; and the genuine lists where they are."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import genuine
import pytest
import sample_egogesture
from downloads import images, noise, text

from modalift import datasets
from modalift.datasets.egogesture import CLASSES, LABELS, LISTS, Gesture, parse_group, parse_list, read_egogesture
from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.modalities import Table


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sample_egogesture.write(tmp_path / "data")
    return tmp_path / "data"


def windows(table: Table) -> dict[str, tuple]:
    return {r.id: (r.label, r.subject, r.split, r.tracks["rgb"].start, r.tracks["rgb"].end) for r in table}


SEEN = {"Subject01/Scene1/1/1": (1, "01", "val", 0, 2), "Subject01/Scene1/1/3": (0, "01", "val", 2, 6),
        "Subject02/Scene1/1/1": (82, "02", "test", 0, 6), "Subject03/Scene1/1/1": (58, "03", "train", 0, 3),
        "Subject03/Scene1/1/4": (62, "03", "train", 3, 6), "Subject04/Scene1/1/2": (0, "04", "train", 1, 5)}


def test_windows_are_inclusive_and_count_from_one(root):
    table = datasets.open("egogesture", root)
    assert windows(table) == SEEN
    assert (table.classes[0], table.classes[82]) == ("Scroll_hand_towards_right", "Move_fingers_forward")
    row = next(r for r in table if r.id == "Subject03/Scene1/1/4")
    assert reading.read(row.tracks["depth"], table.modality("depth")).shape == (3, 12, 16, 1)
    assert row.tracks["depth"].path.name == "depth1"
    assert len(table.notes) == 1
    assert table.notes[0].startswith("1 lines of the label files are no gesture")
    assert "subject03/Scene1/Group1.csv, line 3" in table.notes[0]


@pytest.mark.parametrize("place", ["", "images", "images/images_320-240_2"])
def test_archives_may_be_merged(root, place):
    for archive in sorted(root.glob("images_320*")):
        (root / place).mkdir(parents=True, exist_ok=True)
        for subject in list(archive.iterdir()):
            subject.rename(root / place / subject.name)
        archive.rmdir()
    assert datasets.guess(root) == "egogesture"
    assert windows(datasets.open("egogesture", root)) == SEEN
    shutil.rmtree(root / LABELS)
    if place != "images/images_320-240_2":
        assert datasets.guess(root) == "egogesture", "so that it is told which file is missing"
    with pytest.raises(ModaliftError, match="the folder labels-final-revised1 is not there - it is in the archive"):
        datasets.open("egogesture", root)


def test_case_and_nesting_of_folders_do_not_matter(root):
    (root / "images_320-240_1" / "Subject03").rename(root / "images_320-240_1" / "subject03")
    (root / LABELS).rename(root / "x")
    (root / LABELS).mkdir()
    (root / "x").rename(root / LABELS / LABELS)
    assert windows(datasets.open("egogesture", root)) == SEEN


def test_train_on_val(root):
    table = datasets.open("egogesture", root, train_on_val=True)
    assert Counter(r.split for r in table) == {"train": 5, "test": 1}
    release = datasets.release_of("egogesture", train_on_val=True)
    assert release.clips == {"train": 19184, "test": 4977}
    assert datasets.compare_with_release(table, "egogesture", False, train_on_val=True).clips["train"] == (5, 19184)


def test_a_partial_download_works(root):
    shutil.rmtree(root / "images_320-240_2")
    shutil.rmtree(root / "images_320-240_5" / "Subject02" / "Scene1" / "Depth")
    table = datasets.open("egogesture", root)
    assert table.missing == ("Subject01/Scene1/1/1", "Subject01/Scene1/1/3")
    assert next(r for r in table if r.subject == "02").tracks.keys() == {"rgb"}
    for archive in root.glob("images*"):
        shutil.rmtree(archive)
    with pytest.raises(ModaliftError, match="none of the recordings of the 6 clips in the lists is there"):
        datasets.open("egogesture", root)


def test_lists_of_real_time_gesrec(root):
    (root / "annotation").mkdir()
    text(root / "annotation" / LISTS["train"], b"Subject03/Scene1/Color/rgb1 56 2.0 4.0\nSubject04/Scene1/Color/rgb1 84 1 6\n")
    text(root / "annotation" / LISTS["val"], b"Subject01/Scene1/Color/rgb1 1 1 6\n")
    text(root / "annotation" / LISTS["test"], b"Subject02/Scene1/Color/rgb1 83 1 6")
    assert windows(datasets.open("egogesture", root, lists="annotation")) == {
        "Subject03/Scene1/1/2": (55, "03", "train", 1, 4), "Subject01/Scene1/1/1": (0, "01", "val", 0, 6),
        "Subject02/Scene1/1/1": (82, "02", "test", 0, 6)}
    text(root / "annotation" / LISTS["test"], b"Subject03/Scene1/Color/rgb1 83 1 6")
    with pytest.raises(ModaliftError, match="subject 3 is not of the test split"):
        datasets.open("egogesture", root, lists="annotation")
    with pytest.raises(ModaliftError, match=r"the list nowhere/trainlistall_but_None\.txt is not there"):
        datasets.open("egogesture", root, lists="nowhere")


@pytest.mark.parametrize(("line", "reason"), [(b"84,1,2", "the class is '84'"), (b"1,0,2", "the first frame is '0'"),
                                              (b"1,5,4", "the last frame is '4'"), (b"1,1.5,4", "the first frame is '1.5'")])
def test_numbers_that_are_no_gesture_are_told(tmp_path, line, reason):
    with pytest.raises(ModaliftError, match=r"g\.csv, line 2: ") as told:
        parse_group(text(tmp_path / "g.csv", b"1,1,2\n" + line), 1, 1, 1)
    assert reason in str(told.value)


def test_rows_without_numbers_are_left_out(tmp_path):
    found, junk = parse_group(text(tmp_path / "g.csv", b"59,832,868\r\n63,927,951\n66,1000,1029\n ,,"), 3, 2, 6)
    assert found == [Gesture(3, 2, 6, 58, 831, 868), Gesture(3, 2, 6, 62, 926, 951), Gesture(3, 2, 6, 65, 999, 1029)]
    assert [where.split("line ")[1] for where in junk] == ["4"]


@genuine.needed
def test_the_genuine_lists(tmp_path):
    """With one image in the place of each video, whichever list is used."""
    root = genuine.unpack("egogesture", tmp_path)
    lists = {split: parse_list(root / "Real-time-GesRec" / name) for split, name in LISTS.items()}
    assert {split: len(found) for split, found in lists.items()} == {"train": 14416, "val": 4768, "test": 4977}
    videos = {split: {(g.subject, g.scene, g.group) for g in found} for split, found in lists.items()}
    assert {split: len(found) for split, found in videos.items()} == {"train": 1239, "val": 411, "test": 431}
    short = {split: sum(g.end - g.start < 8 for g in found) for split, found in lists.items()}
    assert short == {"train": 28, "val": 4, "test": 6}
    assert {g.label for found in lists.values() for g in found} == set(range(len(CLASSES)))
    for subject, scene, group in set().union(*videos.values()):
        (root / "images" / f"Subject{subject:02d}" / f"Scene{scene}" / "Color" / f"rgb{group}").mkdir(parents=True)
    table = read_egogesture(root, lists="Real-time-GesRec")
    assert datasets.compare_with_release(table, "egogesture", True, lists="Real-time-GesRec").clips == \
        {"train": (14416, 14416), "val": (4768, 4768), "test": (4977, 4977)}
    assert Counter(r.split for r in read_egogesture(root, lists="Real-time-GesRec", train_on_val=True)) == \
        {"train": 19184, "test": 4977}
    # The copy of the label files has fewer gestures: its author removed some.
    copied = read_egogesture(root)
    assert len(copied) == 24091
    assert not copied.missing
    assert copied.notes == (f"1 lines of the label files are no gesture, and left out"
                            f" ({root}/labels-final-revised1/subject03/Scene2/Group6.csv, line 11)",)
    assert sum(r.id.startswith("Subject33/Scene5/") for r in copied) > 0, "its label files are written in small letters"


def test_a_video_that_is_shorter_than_its_window_is_named_by_check(root):
    images(root / "images_320-240_5" / "Subject02" / "Scene1" / "Color" / "rgb1", noise(1))
    for k in (5, 6):
        (root / "images_320-240_5" / "Subject02" / "Scene1" / "Color" / "rgb1" / f"{k:06d}.jpg").unlink()
    table = datasets.open("egogesture", root)
    with pytest.raises(ModaliftError, match="rgb1 has 4 frames, but its window ends at frame 6"):
        reading.read(next(r for r in table if r.subject == "02").tracks["rgb"], table.modality("rgb"))
