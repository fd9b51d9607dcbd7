"""ARID: lists that say .avi and videos that are .mp4; counts over the genuine lists."""

from __future__ import annotations

from pathlib import Path

import genuine
import pytest
import sample_arid

from modalift import datasets
from modalift.datasets.arid import CLASSES
from modalift.errors import ModaliftError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sample_arid.write(tmp_path / "data")
    return tmp_path / "data"


def test_lists_and_videos(root):
    table = datasets.open("arid", root)
    assert [(r.id, table.classes[r.label], r.split) for r in table] == [
        ("Drink_11_1", "Drink", "train"), ("Drink_11_2", "Drink", "train"), ("Wave_3_1", "Wave", "train"),
        ("Drink_2_1", "Drink", "test"), ("Wave_4_1", "Wave", "test")]
    assert table[0].metadata == {"group": 11}
    assert {row.tracks["rgb"].path.suffix for row in table} == {".mp4"}
    more = datasets.open("arid", root, others="train")
    assert [r.id for r in more if r.id not in {s.id for s in table}] == ["Wave_5_1"]


def test_converted_videos_and_absent_ones(root):
    video = root / "clips_v1" / "Wave" / "Wave_3_1.mp4"
    (root / "clips_avi").mkdir()
    video.rename(root / "clips_avi" / "Wave_3_1.avi")
    (root / "clips_v1" / "Drink" / "Drink_2_1.mp4").unlink()
    (root / "clips_avi" / "Drink_11_1.avi").write_bytes(b"a conversion beside the released video")
    table = datasets.open("arid", root)
    assert table.missing == ("Drink_2_1",)
    assert next(r for r in table if r.id == "Wave_3_1").tracks["rgb"].path.suffix == ".avi"
    assert next(r for r in table if r.id == "Drink_11_1").tracks["rgb"].path.suffix == ".mp4", "the released one"


@pytest.mark.parametrize(("text", "message"), [
    (b"0\t0\n", "has 2 cells and not 3"), (b"0\t11\tDrink/Drink_1_1.avi\n", "the class is '11', not .* 0 to 10"),
    (b"0\t1\tDrink/Drink_1_1.avi\n", "is not a clip of class 1, Jump"), (b"0\t0\t../../etc\n", "is not a clip of class 0"),
    (b"0\t0\tDrink/Drink_11_1.avi\n", "Drink_11_1 is also in .*train")])
def test_what_is_wrong_is_told(root, text, message):
    (root / "list_cvt" / "ARID_split1_test.txt").write_bytes(text)
    with pytest.raises(ModaliftError, match=message):
        datasets.open("arid", root)


def test_an_absent_list_is_told(root):
    with pytest.raises(ModaliftError, match=r"ARID_split2_train\.txt is not there"):
        datasets.open("arid", root, split=2)


@genuine.needed
def test_the_genuine(tmp_path):
    lists = genuine.unpack("arid", tmp_path)
    assert tuple(line.split("\t")[1] for line in (lists / "mapping_table.txt").read_text().splitlines()) == CLASSES
    for part in ("train", "test", "other"):
        for line in (lists / f"ARID_split1_{part}.txt").read_text().splitlines():
            path = (lists / "clips" / line.split("\t")[2]).with_suffix(".mp4")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    table = datasets.open("arid", lists)
    assert (len(table.split("train")), len(table.split("test")), table.missing) == (2288, 823, ())
    assert len(datasets.open("arid", lists, others="train")) == 2288 + 823 + 673
    assert datasets.compare_with_release(table, "arid", True).complete
