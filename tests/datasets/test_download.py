"""Finding the files of a download, the lines of its lists, and the comparison with the release."""

from __future__ import annotations

from pathlib import Path

import pytest
from downloads import text

from modalift.datasets.download import Download, lines, number, some
from modalift.datasets.release import Release, compare
from modalift.errors import ModaliftError
from modalift.modalities import Row, Track, build_table, modality


def test_names_are_found_in_any_case_and_exactly_first(tmp_path):
    for name in ("A/b.TXT", "a/B.txt", "a/b.txt", "a/only.AVI"):
        text(tmp_path / name, name.encode())
    download = Download(tmp_path)
    assert download.find("a/b.txt").read_bytes() == b"a/b.txt"
    assert download.find("./a//B.txt").read_bytes() == b"a/B.txt"
    assert download.find("A/B.TXT").read_bytes() == b"A/b.TXT"
    assert download.find("nothing", "a/ONLY.avi").name == "only.AVI"
    for path in ("", ".", "..", "a/..", f"../{tmp_path.name}/a/b.txt", "a/b.txt/c", str(tmp_path / "a" / "b.txt")):
        assert download.find(path) is None, path


def test_a_folder_is_listed_once(tmp_path, monkeypatch):
    text(tmp_path / "a" / "b.txt", b"")
    listed = []
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: (listed.append(self), iterdir(self))[1])
    download = Download(tmp_path)
    for _ in range(3):
        download.find("a/b.txt", "a/c.txt")
    assert listed == [tmp_path, tmp_path / "a"]


def test_a_list_in_another_place_and_a_folder_of_its_name(tmp_path):
    (tmp_path / "list.txt").mkdir()
    with pytest.raises(ModaliftError, match=r"the list list.txt is not there - it is in the archive; put it there"):
        Download(tmp_path).list_file(["list.txt", "old.txt"], "in the archive")
    text(tmp_path / "old.txt", b"")
    assert Download(tmp_path).list_file(["list.txt", "old.txt"], "in the archive").name == "old.txt"


def test_lines_end_in_any_way(tmp_path):
    file = text(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\n\n  \rtwo\x0bx\nthree")
    assert [(where.rsplit(" ", 1)[1], line) for where, line in lines(file)] == [("1", "one"), ("4", "two\x0bx"), ("5", "three")]
    with pytest.raises(ModaliftError, match="line 2: is not text in UTF-8"):
        list(lines(text(tmp_path / "b.txt", b"a\n\xff")))


@pytest.mark.parametrize(("written", "value"), [("7", 7), (" 007 ", 7), ("7.0", 7), ("7.", 7), ("0", 0)])
def test_numbers(written, value):
    assert number(written, "here", "it") == value


@pytest.mark.parametrize("written", ["", "-1", "1.5", "1e3", "٧", "nan", "7 8", "9" * 13, "0x1", "1_0", "+1"])
def test_what_is_no_number(written):
    with pytest.raises(ModaliftError, match=r"^here: it is '.*', not a whole number of 0 or more - use the file of"):
        number(written, "here", "it")


def test_some_names():
    assert some(["a", "b"]) == "a, b"
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_a_whole_release_is_complete():
    rows = [Row(f"{split}{k}", 0, "", split, {"rgb": Track("a.avi")}) for split in ("train", "test") for k in range(2)]
    table = build_table("toy", ["wave"], {"rgb": modality("rgb"), "depth": modality("depth")}, rows)

    def release(views: dict[str, str], **clips: int) -> Release:
        return Release(views, ("wave",), clips, "a paper", "a page")

    assert compare(table, "toy", True, release({"rgb": "rgb"}, train=2, test=2)).complete
    assert compare(table, "toy", True, release({"rgb": "rgb"}, total=4)).clips == {"total": (4, 4)}
    assert not compare(table, "toy", True, release({"rgb": "rgb"}, train=2)).complete, "clips of a split that is not published"
    assert compare(table, "toy", True, release({"rgb": "rgb", "depth": "depth"}, total=4)).absent_views == ("depth",)
    assert compare(table, "toy", True, None).clips == {}
