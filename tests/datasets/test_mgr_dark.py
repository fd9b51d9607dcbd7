"""The documented manifest of recordings as MGR-Dark's: conditions, pairs, and what is wrong in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import sample_mgr_dark

from modalift import datasets
from modalift.errors import ModaliftError
from modalift.loading import reading


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sample_mgr_dark.write(tmp_path / "data")
    return tmp_path / "data"


def test_conditions(root):
    dark = datasets.open("mgr_dark", root)
    assert [(r.id, dark.classes[r.label], r.split) for r in dark] == [
        ("s1_stop", "stop", "train"), ("s1_forward", "forward", "train"), ("s2_stop", "stop", "test"),
        ("s2_forward", "forward", "test")]
    assert {view: kind.name for view, kind in dark.views.items()} == {"rgb": "rgb", "depth": "depth_gray", "ir": "thermal"}
    assert "ir" not in dark[2].tracks, "the sensor was absent"
    assert {r.metadata["condition"] for r in datasets.open("mgr_dark", root, condition="daylight")} == {"daylight"}
    both = datasets.open("mgr_dark", root / "manifest.csv", condition="both")
    assert len(both) == 8
    assert both[0].id == "s1_stop/dark"


def test_pairs_have_the_views_of_both_conditions(root):
    table = datasets.open("mgr_dark", root, condition="paired")
    assert list(table.views) == ["rgb", "depth", "ir", "rgb_day", "depth_day", "ir_day"]
    assert len(table) == 4
    assert table[0].tracks["rgb"].path.parent.parent.name == "dark"
    assert table[0].tracks["rgb_day"].path.parent.parent.name == "daylight"


def test_windows(root):
    head = sample_mgr_dark.HEAD.strip() + ",start,end\n"
    (root / "manifest.csv").write_text(head + "a,s1,stop,dark,train,dark/rgb/s1_stop.mp4,,,1,4\n"
                                              "b,s2,stop,Dark,test,dark/rgb/s2_stop.mp4,,,,\n")
    table = datasets.open("mgr_dark", root)
    assert list(table.views) == ["rgb"]
    assert [reading.window(row.tracks["rgb"]) for row in table] == [(1, 4), (0, 5)]


def test_subjects_instead_of_a_split(root):
    lines = [line.split(",") for line in (root / "manifest.csv").read_text().splitlines()]
    (root / "manifest.csv").write_text("\n".join(",".join(cells[:4] + cells[5:]) for cells in lines))
    with pytest.raises(ModaliftError, match=r"has no column 'split' - .*; or give test_subjects"):
        datasets.open("mgr_dark", root)
    table = datasets.open("mgr_dark", root, test_subjects=["s1"])
    assert {(row.subject, row.split) for row in table} == {("s1", "test"), ("s2", "train")}


@pytest.mark.parametrize(("line", "options", "message"), [
    ("a,s1,stop,dusk,train,x.mp4,,", {}, r"line 10: the condition is 'dusk' - write dark or daylight"),
    (",s1,stop,dark,train,x.mp4,,", {}, r"line 10: the sample_id is empty"),
    ("a,s1,stop,dark,later,x.mp4,,", {}, r"sample 'a' has split 'later'"),
    ("s1_stop,s1,stop,dark,train,x.mp4,,", {}, r"clip 's1_stop' appears twice"),
    ("s1_stop,s1,stop,dark,train,x.mp4,,", {"condition": "paired"}, r"sample 's1_stop' is there twice in the condition dark"),
    ("s9,s1,stop,dark,train,x.mp4,,\ns9,s2,stop,daylight,train,x.mp4,,", {"condition": "paired"},
     r"line 11: sample 's9' has another"),
    ("s9,s1,stop,dark,train,x.mp4,,", {"rate": 0}, r"rate")])
def test_what_is_wrong_is_told(root, line, options, message):
    with (root / "manifest.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ModaliftError, match=message):
        datasets.open("mgr_dark", root, **options)
