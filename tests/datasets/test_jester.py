"""Jester: class order, copies that a spreadsheet saved, hidden labels; and the genuine lists where they are."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import genuine
import pytest
import sample_jester
from downloads import text

from modalift import datasets
from modalift.datasets.jester import CLASSES, LABELS, LISTS, parse_labels, parse_list
from modalift.errors import ModaliftError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sample_jester.write(tmp_path / "data")
    return tmp_path / "data"


def test_labels_and_splits(root):
    table = datasets.open("jester", root)
    assert {r.id: (None if r.label is None else table.classes[r.label], r.split) for r in table} == {
        "34870": ("Drumming Fingers", "train"), "56557": ("Sliding Two Fingers Right", "train"), "8": ("Swiping Left", "train"),
        "9223": ("Thumb Up", "val"), "107090": ("Pushing Two Fingers Away", "val"), "109621": (None, "test"),
        "145149": (None, "test")}
    assert next(r for r in table if r.id == "34870").label == 24
    assert next(r for r in table if r.id == "8").tracks["rgb"].rate == 12
    assert table.notes == ("2 clips have no class in their list, and are unlabeled; test_on_val tests on the validation clips",)
    scored = datasets.open("jester", root, test_on_val=True)
    assert Counter(r.split for r in scored) == {"train": 3, "test": 2}
    assert scored.notes == ()


def test_another_order_of_classes(root):
    table = datasets.open("jester", root, classes=sorted(CLASSES))
    assert table.classes[table[0].label] == "Drumming Fingers"
    assert table[0].label == 1
    with pytest.raises(ModaliftError, match=r"data.options.classes: there is no class 'Thumb up' - did you mean 'Thumb Up'"):
        datasets.open("jester", root, classes=[*CLASSES[:-1], "Thumb up"])
    with pytest.raises(ModaliftError, match="not all 27 classes stand there once"):
        datasets.open("jester", root, classes=CLASSES[:-1])


def test_a_copied_label_file_does_not_renumber(root):
    text(root / LABELS, "\n".join(CLASSES).encode())
    assert len(datasets.open("jester", root).notes) == 1
    text(root / LABELS, "\n".join((*CLASSES[:4], *CLASSES[5:], CLASSES[4])).encode())
    table = datasets.open("jester", root)
    assert table[0].label == 24
    assert any("('Pulling Hand In' in the place of 'Pushing Hand Away')" in note for note in table.notes)
    text(root / LABELS, b"Thumb Up\n")
    assert any("does not hold the 27 classes" in note for note in datasets.open("jester", root).notes)
    text(root / LABELS, b"Thumb Up\nThumb Up\n")
    with pytest.raises(ModaliftError, match="a class stands twice"):
        datasets.open("jester", root)


@pytest.mark.parametrize("data", [
    b"\xef\xbb\xbf34870;Drumming Fingers\r\n9223;Thumb Up\r\n", b'"34870;Drumming Fingers"\n"9223;Thumb Up"',
    b"34870,Drumming Fingers\n9223,Thumb Up",
    b"34870\tDrumming Fingers\r9223\tThumb Up", b"34870;Drumming Fingers;;\n9223;Thumb Up;;\n"])
def test_what_spreadsheets_save(tmp_path, data):
    found = parse_list(text(tmp_path / "a.csv", data))
    assert [(clip, label) for clip, label, _ in found] == [("34870", "Drumming Fingers"), ("9223", "Thumb Up")]


def test_wrong_classes_and_numbers_are_told(root):
    text(root / LISTS["val"], b"9223;Thumbs Up\n")
    with pytest.raises(ModaliftError, match=r"validation.csv, line 1: there is no class 'Thumbs Up' - did you mean 'Thumb Up'"):
        datasets.open("jester", root)
    for line in (b"9,2E+03;Thumb Up\n", b";;;\n", b"9.2;Thumb Up", b"-1"):
        text(root / LISTS["val"], line)
        with pytest.raises(ModaliftError, match="line 1: is not 'number;class'"):
            datasets.open("jester", root)
    (root / LISTS["val"]).unlink()
    with pytest.raises(ModaliftError, match=r"the list jester-v1-validation.csv is not there - it is beside"):
        datasets.open("jester", root)


def test_a_partial_download_works(root):
    shutil.rmtree(root / "20bn-jester-v1" / "8")
    assert datasets.open("jester", root).missing == ("8",)


@genuine.needed
def test_the_genuine_lists(tmp_path):
    folder = genuine.unpack("jester", tmp_path)
    lists = {split: parse_list(folder / name) for split, name in LISTS.items()}
    assert {split: len(found) for split, found in lists.items()} == {"train": 118562, "val": 14787, "test": 14743}
    assert parse_labels(folder / LABELS) == list(CLASSES)
    assert {label for split in ("train", "val") for _, label, _ in lists[split]} == set(CLASSES)
    assert {label for _, label, _ in lists["test"]} == {""}
    assert {int(clip) for found in lists.values() for clip, _, _ in found} == set(range(1, 148093))
