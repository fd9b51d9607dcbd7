"""VIVA: what the names of its files tell, and its protocol of eight folds."""

from __future__ import annotations

from pathlib import Path

import pytest
import sample_viva
from downloads import noise, video

from modalift import datasets
from modalift.datasets.viva import CODES, parse_name
from modalift.engine.tables import take_fold
from modalift.errors import ModaliftError

PLACE = Path("LISA_HG_Data", "dynamic_gestures", "data")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sample_viva.write(tmp_path / "data")
    return tmp_path / "data"


def test_names_tell_everything(root):
    table = datasets.open("viva", root)
    assert {r.id: (table.classes[r.label], r.subject, r.split, set(r.tracks)) for r in table} == {
        "01_01_01": ("1", "1", "test", {"rgb", "depth"}), "02_70_01": ("7", "1", "test", {"rgb"}),
        "03_01_01": ("1", "2", "train", {"rgb", "depth"}), "04_32_02": ("32", "2", "train", {"rgb", "depth"})}
    assert [r.label for r in table] == [0, 5, 0, 18]
    assert len(table.classes) == len(CODES) == 19
    assert table.notes == ("1 recordings are of gestures that are not among `codes`, and left out (04_05_01)",)


def test_class_map_and_rule_of_subjects_are_options(root):
    table = datasets.open("viva", root, codes=[5, 32], aliases={}, sequences_per_subject=1, test_subjects=["4"])
    assert {r.id: (r.label, r.subject, r.split) for r in table} == {"04_05_01": (0, "4", "test"), "04_32_02": (1, "4", "test")}
    assert table.classes == ("5", "32")
    with pytest.raises(ModaliftError, match="there is no subject '9'"):
        datasets.open("viva", root, test_subjects=["9"])
    with pytest.raises(ModaliftError, match="a code is given twice"):
        datasets.open("viva", root, codes=[1, 1])
    with pytest.raises(ModaliftError, match=r"holds no recording SS_GG_RR.avi of the gestures in `codes`"):
        datasets.open("viva", root, codes=[9])


def test_every_subject_is_tested_once(tmp_path):
    for sequence in range(1, 17):
        for folder in ("", "depth"):
            video(tmp_path / PLACE / folder / f"{sequence:02d}_01_01.avi", noise(2, color=not folder, seed=sequence))
    table = datasets.open("viva", tmp_path)
    tested = [{r.id for r in take_fold(table, 8, fold).split("test")} for fold in range(8)]
    assert tested == [{f"{2 * k + 1:02d}_01_01", f"{2 * k + 2:02d}_01_01"} for k in range(8)]


def test_other_places_and_files(root, tmp_path):
    (root / PLACE / "notes.txt").touch()
    (root / PLACE / "00_01_01.avi").touch()  # sequences count from 1
    wanted = [r.id for r in datasets.open("viva", root)]
    (root / "LISA_HG_Data" / "dynamic_gestures").rename(tmp_path / "dynamic_gestures")
    with pytest.raises(ModaliftError, match="the folder LISA_HG_Data/dynamic_gestures/data is not there"):
        datasets.open("viva", root)
    assert datasets.guess(tmp_path) == "viva"
    assert [r.id for r in datasets.open("viva", tmp_path)] == wanted


@pytest.mark.parametrize("name", ["1_2.avi", "a_b_c.avi", "01_01_01.png", "٠١_01_01.avi", "00_01_01.avi", ""])
def test_names_that_are_of_no_clip(name):
    assert parse_name(name) is None
