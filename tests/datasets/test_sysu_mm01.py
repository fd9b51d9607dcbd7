"""SYSU-MM01: the layout and byte form of the download, on made-up persons; and the genuine lists where they are."""

from __future__ import annotations

import tarfile
from pathlib import Path

import matlab_files
import numpy as np
import pytest
import sample_sysu_mm01

from modalift import datasets
from modalift.errors import ModaliftError
from modalift.loading import matlab, reading

LISTS = Path(__file__).resolve().parents[3] / "shared" / "lists" / "real-lists.tar.xz"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sample_sysu_mm01.write(tmp_path / "data")
    return tmp_path / "data"


def test_a_picture_is_a_clip_of_its_cameras_sensor(root):
    table = datasets.open("sysu_mm01", root)
    assert len(table) == 6 * 4 * 2 - 2
    assert table.classes == ("0001", "0002", "0004", "0006")
    assert {r.split for r in table if r.subject == "0004"} == {"train"}
    assert {r.split for r in table if r.subject == "0006"} == {"test"}
    for row in table:
        assert list(row.tracks) == (["nir"] if row.metadata["camera"] in (3, 6) else ["rgb"])
        assert table.classes[row.label] == row.subject
    row = next(r for r in table if r.id == "cam3/0002/0002")
    assert reading.read(row.tracks["nir"], table.modality("nir")).shape == (1, 24, 10, 1)


def test_options(root):
    table = datasets.open("sysu_mm01", root, train_on_val=False)
    assert {r.split for r in table if r.subject == "0004"} == {"val"}
    both = datasets.open("sysu_mm01", root, together=True, cameras=[1, 3])
    assert all("rgb" in r.tracks for r in both)
    assert sum("nir" in r.tracks for r in both) == 8
    assert reading.read(next(r for r in both if "nir" in r.tracks).tracks["rgb"], both.modality("rgb")).shape[-1] == 3


def matlab_list(numbers: list[int]) -> bytes:
    """A list as the download has it: the array ``id``."""
    return matlab_files.matlab("id", np.array([numbers], np.uint8))


def test_lists_as_matlab_files(root):
    for split, numbers in (("train", [1, 2]), ("val", [4]), ("test", [6])):
        (root / "exp" / f"{split}_id.txt").unlink()
        (root / "exp" / f"{split}_id.mat").write_bytes(matlab_list(numbers))
    assert datasets.open("sysu_mm01", root).classes == ("0001", "0002", "0004", "0006")


def test_bad_downloads_are_told(root):
    with pytest.raises(ModaliftError, match="no camera 7"):
        datasets.open("sysu_mm01", root, cameras=[7])
    (root / "exp" / "test_id.txt").write_bytes(b"6;7")
    with pytest.raises(ModaliftError, match=r"test_id.txt: not a line of comma-separated numbers"):
        datasets.open("sysu_mm01", root)
    (root / "exp" / "test_id.txt").write_bytes(b"6,1")
    with pytest.raises(ModaliftError, match="person 1 is in two lists"):
        datasets.open("sysu_mm01", root)
    for lists, reason in ((b"6,6", "person 6 is in two lists, or twice in one"),
                          ("６,²".encode(), "not a line of comma-separated"),
                          (b"6," + b"9" * 5000, "not a line of comma-separated numbers"), (b"", "not a line of")):
        (root / "exp" / "test_id.txt").write_bytes(lists)
        with pytest.raises(ModaliftError, match=reason):
            datasets.open("sysu_mm01", root)
    (root / "exp" / "test_id.txt").unlink()
    with pytest.raises(ModaliftError, match=r"test_id.txt: no such list"):
        datasets.open("sysu_mm01", root)
    (root / "exp" / "test_id.mat").write_bytes(matlab_list([6])[:-4])
    with pytest.raises(ModaliftError, match=r"test_id.mat: is a damaged MATLAB file"):
        datasets.open("sysu_mm01", root)
    (root / "exp" / "test_id.mat").write_bytes(matlab_list([6]))
    for image in (root / "cam2").rglob("*.jpg"):
        image.unlink()
    assert len(datasets.open("sysu_mm01", root)) == 38
    for folder in sorted((root / "cam2").rglob("*"), reverse=True):
        folder.rmdir()
    (root / "cam2").rmdir()
    with pytest.raises(ModaliftError, match="cam2: no such camera folder"):
        datasets.open("sysu_mm01", root)


@pytest.mark.skipif(not LISTS.is_file(), reason="../shared with the genuine lists is absent")
def test_the_genuine_lists():
    with tarfile.open(LISTS) as archive:
        found = {split: matlab.arrays(archive.extractfile(f"./sysu_mm01/{split}_id.mat").read(), split)["id"].ravel().tolist()
                 for split in ("train", "test")}
    assert found["train"][:7] == [1, 2, 4, 5, 7, 8, 11]
    assert found["test"][:4] == [6, 10, 17, 21]
    assert (len(found["train"]), len(found["test"]), found["test"][-1]) == (296, 96, 333)
