"""NVGesture: the layout and byte form of the download, what is ambiguous in it, and the genuine lists where they are."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import genuine
import numpy as np
import pytest
import sample_nvgesture
from downloads import text, video
from sample_nvgesture import START, write_log

from modalift import datasets
from modalift.datasets.nvgesture import NAMES, log_times, parse_list
from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.loading.sampling import Framing, centered, clock_of, positions
from modalift.modalities import Row, Table


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sample_nvgesture.write(tmp_path / "data")
    return tmp_path / "data"


def row_of(table: Table, id: str) -> Row:
    return next(row for row in table if row.id == id)


def test_a_line_of_the_genuine_bytes(tmp_path):
    line = (b"path:./Video_data/class_01/subject3_r0 depth:sk_depth:146:226 color:sk_color:146:226 duo_left:duo_left:170:263 "
            b"label:1 \n")
    for ending in (b"", b"\n", b"\r\n"):
        sample, = parse_list(text(tmp_path / "a.lst", line.rstrip(b"\n") + ending))
        assert (sample.id, sample.folder, sample.label) == ("class_01/subject3_r0", "Video_data/class_01/subject3_r0", 0)
        assert sample.windows == {"depth": ("sk_depth", 146, 226), "color": ("sk_color", 146, 226),
                                  "duo_left": ("duo_left", 170, 263)}


def test_views_windows_and_labels(root):
    table = datasets.open("nvgesture", root)
    assert {view: kind.name for view, kind in table.views.items()} == \
        {"rgb": "rgb", "depth": "depth_gray", "ir_left": "nir", "ir_right": "nir"}
    row = row_of(table, "class_01/subject3_r0")
    assert (row.label, row.subject, row.split) == (0, "subject3", "train")
    assert {v: (t.path.name, t.start, t.end, t.rate, t.space) for v, t in row.tracks.items()} == {
        "rgb": ("sk_color.avi", 4, 12, 30.0, ""), "depth": ("sk_depth.avi", 4, 12, 30.0, ""),
        "ir_left": ("duo_left.avi", 5, 14, 35.0, ""), "ir_right": ("duo_right.avi", 5, 14, 35.0, "")}
    assert reading.read(row.tracks["ir_right"], table.modality("ir_right")).shape == (9, 12, 16, 1)
    assert row_of(table, "class_01/subject4_r2").label == 1, "of the list, not of the folder"
    apart = row_of(table, "class_02/subject13_r1")
    assert (apart.tracks["rgb"].start, apart.tracks["depth"].start) == (4, 3)
    assert [note.split(" (")[0] for note in table.notes] == [
        "1 clips lie in the folder of another class than their label's", "color and depth start at different frames in 1 clips",
        "infrared looks from another place than color and depth: there is no pixel correspondence",
        "1 clips have no usable frame logs, so their views are paired by frame rate"]


def test_infrared_is_paired_by_the_times_of_the_frame_logs(root):
    """Infrared's window starts 40 ms before color's: the same moment is later in it."""
    place = root / "Video_data" / "class_01" / "subject3_r0"
    # Color's window starts at frame 4 (4/30 s), infrared's at frame 5 (5/35 s).
    write_log(place / "duo_left_log.txt", 16, 35, START + 4 * 10**9 // 30 - 5 * 10**9 // 35 - 40_000_000)
    row = row_of(datasets.open("nvgesture", root), "class_01/subject3_r0")
    assert row.tracks["rgb"].offset_ms == 0
    assert row.tracks["ir_left"].offset_ms == pytest.approx(40.0, abs=1e-5)
    assert row.tracks["ir_right"].offset_ms == pytest.approx(1e3 * (4 / 30 - 5 / 35), abs=1e-5)
    assert row.tracks["rgb"].timestamps == pytest.approx([k / 30 for k in range(8)], abs=1e-8)
    assert row.tracks["ir_left"].timestamps == pytest.approx([k / 35 for k in range(9)], abs=1e-8)
    timelines = {view: reading.timeline(track) for view, track in row.tracks.items()}
    assert timelines["ir_left"][0] - timelines["rgb"][0] == pytest.approx(-0.04, abs=1e-7)
    framing = Framing(frames=8, size=8)
    color = positions(8, framing, centered(), clock_of(row.tracks["rgb"], 8))
    infrared = positions(9, framing, centered(), clock_of(row.tracks["ir_left"], 9))
    assert color.tolist() == list(range(8))
    # Every sampled infrared frame is the one that was being shown when the color frame was taken, until its window ends.
    assert np.abs(timelines["ir_left"][infrared] - timelines["rgb"][color])[:7].max() < 0.5 / 30


@pytest.mark.parametrize("damage", [None, b"", b"img00000.png\n", b"img00000.png 5\nimg00000.png 6\n", b"\xff\xfe\xff",
                                    b"a b\n" * 20, b"".join(b"img%05d.png 7\n" % k for k in range(20))])
def test_without_logs_by_frame_rate(root, damage):
    place = root / "Video_data" / "class_01" / "subject3_r0" / "duo_left_log.txt"
    place.unlink()
    if damage is not None:
        place.write_bytes(damage)
    table = datasets.open("nvgesture", root)
    tracks = row_of(table, "class_01/subject3_r0").tracks
    assert {(t.timestamps, t.offset_ms) for t in tracks.values()} == {((), 0.0)}
    assert any(note.startswith("2 clips have no usable frame logs") for note in table.notes)
    untimed = datasets.open("nvgesture", root, logs=False)
    assert not any(t.timestamps for r in untimed for t in r.tracks.values())
    assert not any("frame logs" in note for note in untimed.notes)


def test_nucleus_narrows_the_windows(root):
    table = datasets.open("nvgesture", root, nucleus=True)
    tracks = row_of(table, "class_01/subject3_r0").tracks
    assert (tracks["rgb"].start, tracks["rgb"].end) == (6, 10)
    assert (tracks["ir_left"].start, tracks["ir_left"].end) == (7, 12)  # 5 + 9/8 of 2, and of 6
    assert len(tracks["ir_left"].timestamps) == 5
    assert row_of(table, "class_01/subject13_r0").tracks["rgb"].start == 4
    assert any(note.startswith("4 clips have no nucleus.txt") for note in table.notes)
    file = root / "Video_data" / "class_01" / "subject3_r0" / "nucleus.txt"
    file.write_bytes(b"30:40\n")  # outside the window
    assert row_of(datasets.open("nvgesture", root, nucleus=True), "class_01/subject3_r0").tracks["rgb"].start == 4
    file.write_bytes(b"6-10\n")
    with pytest.raises(ModaliftError, match=r"nucleus.txt: is not 'first:end'"):
        datasets.open("nvgesture", root, nucleus=True)


def test_spaces_and_aligned_color(root):
    shared = row_of(datasets.open("nvgesture", root, spaces=[["rgb", "depth"]]), "class_01/subject3_r0").tracks
    assert [shared[v].space for v in ("rgb", "depth", "ir_left")] == ["rgb+depth", "rgb+depth", ""]
    for clip in (*sample_nvgesture.TRAIN, *sample_nvgesture.TEST):
        video(root / "Video_data" / clip / "sk_wrapped.avi", [np.zeros((8, 8, 3), np.uint8)] * 14)
    tracks = row_of(datasets.open("nvgesture", root, aligned=True), "class_02/subject13_r1").tracks
    assert (tracks["rgb"].path.name, tracks["rgb"].start, tracks["rgb"].space) == ("sk_wrapped.avi", 3, "rgb+depth")
    assert tracks["depth"].space == "rgb+depth"
    with pytest.raises(ModaliftError, match="there is no view 'dept' - did you mean 'depth'"):
        datasets.open("nvgesture", root, spaces=[["rgb", "dept"]])


def test_a_partial_download_works(root):
    gone = root / "Video_data" / "class_02" / "subject3_r1"
    for file in gone.iterdir():
        file.unlink()
    (root / "Video_data" / "class_01" / "subject4_r2" / "duo_right.avi").unlink()
    table = datasets.open("nvgesture", root)
    assert table.missing == ("class_02/subject3_r1",)
    assert len(table) == 4
    assert set(row_of(table, "class_01/subject4_r2").tracks) == {"rgb", "depth", "ir_left"}
    assert table.fingerprint() == datasets.open("nvgesture", root).where(lambda r: True).fingerprint()
    compared = datasets.compare_with_release(table, "nvgesture", True)
    assert compared.clips == {"train": (2, 1050), "test": (2, 482)}
    for file in root.rglob("sk_*.avi"):
        file.unlink()
    table = datasets.open("nvgesture", root)
    assert list(table.views) == ["ir_left", "ir_right"]
    assert datasets.compare_with_release(table, "nvgesture", True).absent_views == ("rgb", "depth")
    for file in root.rglob("*.avi"):
        file.unlink()
    with pytest.raises(ModaliftError, match="none of the recordings of the 5 clips in the lists is there - put Video_data"):
        datasets.open("nvgesture", root)


def test_missing_and_earlier_lists(root):
    latest = root / NAMES[0].format("test")
    latest.rename(root / NAMES[2].format("test"))
    assert any("is the first version of the list" in note for note in datasets.open("nvgesture", root).notes)
    (root / NAMES[2].format("test")).unlink()
    assert datasets.guess(root) == "nvgesture"
    with pytest.raises(ModaliftError, match=r"the list nvgesture_test_correct_cvpr2016_v2.lst is not there - it is beside"):
        datasets.open("nvgesture", root)


@pytest.mark.parametrize(("line", "reason"), [
    (b"path:./a/b label:26", "the label is '26', not a whole number from 1 to 25"),
    (b"path:./a/b color:sk_color:5:5 label:1", "the end of 'color' is '5', not a whole number of 6 or more"),
    (b"path:./a/b color:sk_color label:1", "'color' has no window"),
    (b"color:sk_color:1:5 label:1", "is not 'path:"),
    (b"path:./a/b color:sk_color:1:5 color:sk_color:1:5 label:1", "is not 'path:"),
    (b"path:./a/b color:sk_color:1:5 label:1 \0", "null character"),
    (b"./Video_data/class_01/subject3_r0/sk_color_all 1 146 226", "is not 'path:"),
])
def test_damaged_lines_are_told(tmp_path, line, reason):
    with pytest.raises(ModaliftError, match=r"a\.lst, line 2: ") as told:
        parse_list(text(tmp_path / "a.lst", b"path:./a/b color:sk_color:1:5 label:1\n" + line))
    assert reason in str(told.value)
    assert "\n" not in str(told.value)


def test_a_path_that_leaves_the_folder_is_not_followed(root):
    video(root.parent / "outside" / "sk_color.avi", [np.zeros((8, 8), np.uint8)] * 14)
    with (root / NAMES[0].format("train")).open("ab") as file:
        file.write(b"path:./../outside color:sk_color:4:12 label:1\n")
    assert datasets.open("nvgesture", root).missing == ("../outside",)


def test_log_times(tmp_path):
    write_log(tmp_path / "log.txt", 5, 30)
    assert log_times(tmp_path / "log.txt", 3) == [START, START + 33333333, START + 66666666]
    with pytest.raises(ValueError, match="5 frames, but the window ends at 6"):
        log_times(tmp_path / "log.txt", 6)


@genuine.needed
def test_the_genuine_lists(tmp_path):
    folder = genuine.unpack("nvgesture", tmp_path)
    train, test = (parse_list(folder / NAMES[0].format(split)) for split in ("train", "test"))
    assert (len(train), len(test)) == (1050, 482)
    assert hashlib.md5((folder / NAMES[0].format("train")).read_bytes()).hexdigest() == "1b233a98795c00843551fcd808ccb4a5"
    for sample in (*train, *test):
        lengths = {key: end - start for key, (_, start, end) in sample.windows.items()}
        assert lengths == {"color": 80, "depth": 80, "duo_left": 93}
    assert [s.id for s in (*train, *test) if s.windows["color"][1] != s.windows["depth"][1]] == [
        "class_06/subject17_r1", "class_20/subject18_r2", "class_23/subject18_r1", "class_24/subject18_r2"]
    first = [parse_list(folder / NAMES[2].format(split)) for split in ("train", "test")]
    corrected = [sum(a.label != b.label for a, b in zip(old, new, strict=True))
                 for old, new in zip(first, (train, test), strict=True)]
    assert corrected == [15, 8]
    assert [parse_list(folder / NAMES[1].format(split)) for split in ("train", "test")] == [train, test]


@genuine.needed
def test_the_table_of_the_genuine_lists_is_the_release(tmp_path):
    """With a file in the place of each recording; whether they can be read is another matter."""
    folder = genuine.unpack("nvgesture", tmp_path)
    for split in ("train", "test"):
        for sample in parse_list(folder / NAMES[0].format(split)):
            (folder / sample.folder).mkdir(parents=True)
            for name in ("sk_color", "sk_depth", "duo_left", "duo_right"):
                (folder / sample.folder / f"{name}.avi").touch()
    table = datasets.open(datasets.guess(folder), folder)
    assert datasets.compare_with_release(table, "nvgesture", True).complete
    assert Counter(r.split for r in table) == {"train": 1050, "test": 482}
    assert {r.subject for r in table.split("test")} == {f"subject{n}" for n in (5, 8, 9, 13, 14, 20)}
    assert len(table.subjects) == 18
    assert table.notes[0].startswith("23 clips lie in the folder of another class")
    assert table.notes[1].startswith("color and depth start at different frames in 4 clips")
    assert row_of(table, "class_24/subject4_r2").label == 10
