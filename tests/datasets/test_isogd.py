"""IsoGD: hidden labels, the labels that were published later, and the genuine lists where they are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import genuine
import pytest
import sample_isogd
from downloads import text

from modalift import datasets
from modalift.datasets.isogd import Sample, parse_list
from modalift.errors import ModaliftError
from modalift.loading import reading


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sample_isogd.write(tmp_path / "data")
    return tmp_path / "data"


def test_lines_of_the_genuine_bytes(tmp_path):
    assert parse_list(text(tmp_path / "a", b"train/001/M_00001.avi train/001/K_00001.avi 26\n")) == \
        [Sample("train/001/M_00001.avi", "train/001/K_00001.avi", 25)]
    assert parse_list(text(tmp_path / "b", b"test/001/M_00001.avi test/001/K_00001.avi 0\n"))[0].label is None
    later, = parse_list(text(tmp_path / "c", b"test/001/M_00001 57 37\n"))
    assert later == Sample("test/001/M_00001.avi", "test/001/K_00001.avi", 37)
    assert later.id == "test/001/00001"


def test_splits_and_hidden_labels(root):
    table = datasets.open("isogd", root)
    assert {r.id: (r.label, r.split) for r in table} == {
        "train/001/00001": (25, "train"), "train/001/00002": (18, "train"), "train/001/00003": (0, "train"),
        "valid/001/00001": (108, "val"), "valid/001/00002": (248, "val"),
        "test/001/00001": (None, "test"), "test/001/00002": (None, "test")}
    assert not table.subjects
    assert [note.split(",")[0] for note in table.notes] == [
        "the class of 2 clips is 0 in the lists",
        "depth is read as it is recorded: bright need not mean near"]
    row = next(r for r in table if r.id == "valid/001/00002")
    assert reading.read(row.tracks["depth"], table.modality("depth")).shape == (2, 12, 16, 1), "two frames are a clip"


def test_the_validation_clips_as_the_test_split(root):
    (root / "test_list.txt").unlink()
    table = datasets.open("isogd", root, test_on_val=True)
    assert Counter(r.split for r in table) == {"train": 3, "test": 2}
    assert all(r.label is not None for r in table)
    assert datasets.release_of("isogd", test_on_val=True).clips == {"train": 35878, "test": 5784}
    with pytest.raises(ModaliftError, match=r"the list test_list.txt is not there - it is in the archive of test"):
        datasets.open("isogd", root)


def test_labels_that_were_published_later(root):
    text(root / "later.txt", b"test/001/M_00001 57 37\ntest/001/M_00002 20 0\n")
    table = datasets.open("isogd", root, test_labels="later.txt")
    assert [r.label for r in table.split("test")] == [37, 0]
    assert not any("hidden" in note for note in table.notes)


def test_a_partial_download_works(root):
    (root / "train" / "001" / "M_00002.avi").unlink()
    for name in ("M_00002.avi", "K_00002.avi"):
        (root / "test" / "001" / name).unlink()
    table = datasets.open("isogd", root)
    assert table.missing == ("test/001/00002",)
    assert next(r for r in table if r.id == "train/001/00002").tracks.keys() == {"depth"}


@pytest.mark.parametrize(("line", "reason"), [
    (b"a/M_1.avi a/K_1.avi 250", "the class is '250', not a whole number from 0 to 249"),
    (b"a/M_1.avi a/K_1.avi", "is not 'color.avi"),
    (b"a/M_1 57 249", "the class is '249', not a whole number from 0 to 248"),
    (b"a/M_1.avi a/K_1.avi -1", "the class is '-1'")])
def test_damaged_lines_are_told(tmp_path, line, reason):
    with pytest.raises(ModaliftError, match=r"a\.txt, line 1: ") as told:
        parse_list(text(tmp_path / "a.txt", line))
    assert reason in str(told.value)


@genuine.needed
def test_the_genuine_lists(tmp_path):
    folder = genuine.unpack("isogd", tmp_path)
    lists = {name: parse_list(folder / f"{name}_list.txt") for name in ("train", "valid", "test")}
    assert {name: len(found) for name, found in lists.items()} == {"train": 35878, "valid": 5784, "test": 6271}
    hidden = {name: sum(s.label is None for s in found) for name, found in lists.items()}
    assert hidden == {"train": 0, "valid": 0, "test": 6271}
    assert {s.label for s in lists["train"]} == set(range(249))
    assert len({s.id for found in lists.values() for s in found}) == 47933
    for found in lists.values():
        assert all(s.color.replace("M_", "K_") == s.depth for s in found)
