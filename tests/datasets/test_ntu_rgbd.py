"""NTU RGB+D: the protocols from names, views and their traps; counts over generated names and over the genuine lists."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import genuine
import numpy as np
import pytest
import sample_ntu_rgbd

from modalift import datasets
from modalift.datasets.ntu_rgbd import CLASSES, COUNTS, MGCAM, Clip
from modalift.errors import ModaliftError
from modalift.loading import check, reading
from modalift.modalities import Track, modality

#: Setup -> its performers: each did all actions of the release twice before three cameras.
PERFORMERS = {
    1: [1, 2, 3, 4, 5, 6, 7, 8], 2: [3, 7, 8, 9, 10, 11, 12, 13, 14], 3: [1, 2, 7, 8, 15, 16, 17, 18, 19], 4: [3, 7, 8, 20],
    5: [4, 10, 13, 15, 16, 17, 18, 21], 6: [1, 7, 8, 15, 16, 17, 19, 22, 23, 24],
    7: [1, 7, 8, 15, 16, 17, 18, 19, 25, 26, 27, 28], 8: [1, 7, 8, 15, 19, 25, 29, 30, 31, 32, 33, 34, 35, 36],
    9: [7, 8, 15, 16, 17, 19, 25], 10: [7, 8, 13, 15, 16, 17, 18, 19, 21, 25],
    11: [1, 2, 7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 38], 12: [7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 37],
    13: [7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 37], 14: [7, 8, 15, 17, 19, 25, 27, 37, 39], 15: [7, 8, 15, 16, 17, 19, 25, 37],
    16: [7, 8, 19, 21, 25, 39, 40], 17: [3, 7, 8, 9, 15, 16, 17, 20], 18: [8, 41, 42, 43, 44, 45],
    19: [8, 41, 42, 46, 47, 48, 49, 50, 51], 20: [8, 41, 43, 44, 52, 53, 54], 21: [55, 56, 57, 58, 59, 60],
    22: [61, 62, 63, 64, 65, 66, 67], 23: [55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68],
    24: [57, 60, 61, 62, 63, 64, 67], 25: [55, 56, 58, 59, 65, 66, 68],
    26: [8, 41, 44, 49, 50, 51, 69, 70, 71, 72, 74, 75, 76, 77], 27: [6, 8, 11, 41, 43, 44, 78, 79, 80, 81, 82, 83, 84, 85, 86],
    28: [8, 41, 42, 43, 46, 48, 70, 73, 87], 29: [6, 8, 41, 43, 44, 48, 49, 51, 67, 74, 75, 80, 88, 89, 90],
    30: [8, 11, 41, 43, 44, 48, 67, 75, 76, 81, 85, 88, 91, 92, 93, 94, 95, 96],
    31: [6, 8, 41, 42, 43, 44, 51, 67, 82, 85, 96, 97, 98, 99, 100, 101], 32: [8, 41, 43, 44, 67, 102, 103, 104, 105, 106]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sample_ntu_rgbd.write(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize(("release", "total"), [(60, 56880), (120, 114480)])
def test_counts_of_the_release(release, total):
    clips = [Clip.of(f"S{setup:03d}C{camera:03d}P{performer:03d}R{replication:03d}A{action:03d}")
             for setup, performers in PERFORMERS.items() if release == 120 or setup < 18
             for performer in performers for camera in (1, 2, 3) for replication in (1, 2)
             for action in (range(1, 61) if setup < 18 else range(61, 121))]
    assert len(clips) == total
    for (of, protocol, classes), counts in COUNTS.items():
        if of == release:
            found = Counter(clip.split(protocol) for clip in clips if classes == "all" or clip.action <= MGCAM)
            assert (found["train"], found["test"]) == counts, (protocol, classes)


def test_views_labels_and_splits(root):
    table = datasets.open("ntu_rgbd", root)
    assert list(table.views) == ["rgb", "ir", "depth", "pose"]
    assert [kind.name for kind in table.views.values()] == ["rgb", "nir", "depth", "pose"]
    assert len(table.classes) == 60
    assert (len(table.split("train")), len(table.split("test"))) == (16, 8)
    row = next(r for r in table if r.id == "S001C002P003R001A060")
    assert (row.label, row.subject, row.split) == (59, "P003", "test")
    assert row.metadata == {"setup": 1, "camera": 2, "replication": 1}
    assert row.tracks["ir"].space == row.tracks["depth"].space != row.tracks["rgb"].space
    assert reading.read(row.tracks["depth"], table.modality("depth")).shape == (4, 10, 12, 1)
    assert reading.read(row.tracks["pose"], table.modality("pose")).shape == (4, 1, 1, 150)
    by_camera = datasets.open("ntu_rgbd", root, split="cross_view")
    assert {(r.metadata["camera"], r.split) for r in by_camera} == {(1, "test"), (2, "train")}


def test_missing_skeletons_lose_the_pose_only(root):
    table = datasets.open("ntu_rgbd", root)
    assert set(table[0].tracks) == {"rgb", "ir", "depth"}
    assert all("pose" in row.tracks for row in table.rows[1:])
    assert table.notes == ("1 clips are read without pose, as the list of samples with missing skeletons names them",)
    listed = root / "NTU_RGBD_samples_with_missing_skeletons.txt"
    listed.rename(root / "mine.txt")
    assert "pose" in datasets.open("ntu_rgbd", root)[0].tracks
    assert "is not here" in datasets.open("ntu_rgbd", root).notes[0]
    assert "pose" not in datasets.open("ntu_rgbd", root, missing_skeletons="mine.txt")[0].tracks
    assert len(datasets.open("ntu_rgbd", root, views=["pose"], missing_skeletons="mine.txt")) == 23


def test_ten_classes_of_the_mgcam_paper(root):
    table = datasets.open("ntu_rgbd", root, classes="mgcam")
    assert table.classes == CLASSES[:10]
    assert table.classes[3] == "brushing hair", "the paper's wash hair"
    assert {row.label for row in table} == {0}


def test_part_of_a_download_in_archives_of_its_own(root):
    for folder in ("nturgb+d_ir", "nturgb+d_skeletons", "nturgb+d_depth_masked"):
        for path in sorted((root / folder).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (root / folder).rmdir()
    (root / "nturgbd_rgb_s001").mkdir()
    (root / "nturgb+d_rgb").rename(root / "nturgbd_rgb_s001" / "nturgb+d_rgb")
    table = datasets.open("ntu_rgbd", root)
    assert list(table.views) == ["rgb"]
    assert len(table) == 24
    assert datasets.guess(root / "nturgbd_rgb_s001" / "nturgb+d_rgb") == "ntu_rgbd"
    compared = datasets.compare_with_release(table, "ntu_rgbd", True)
    assert compared.clips == {"train": (16, 40320), "test": (8, 16560)}
    assert compared.absent_views == ("ir", "depth", "pose")


def test_depth_of_the_whole_scene_is_a_view_of_its_own(root):
    full = root / "nturgb+d_depth"
    (root / "nturgb+d_depth_masked").rename(full)
    assert list(datasets.open("ntu_rgbd", root).views) == ["rgb", "ir", "depth_full", "pose"]
    loose = root / "maps"
    full.rename(loose)
    assert "depth" in datasets.open("ntu_rgbd", root).views, "by the names of the images, where the folder's tells nothing"


def test_clips_of_120(root):
    sample_ntu_rgbd.clip(root, "S018C001P045R001A120")
    assert len(datasets.open("ntu_rgbd", root)) == 24
    table = datasets.open("ntu_rgbd", root, release=120, split="cross_setup")
    row = table[-1]
    assert (row.id, row.label, row.split) == ("S018C001P045R001A120", 119, "train")
    assert len(table.classes) == len(set(table.classes)) == 120
    assert len(table.split("test")) == 24, "setup 1"


def test_what_is_wrong_is_told(root, tmp_path):
    for options, message in (
            ({"release": 120, "split": "cross_view"}, r"cross_view is of NTU RGB\+D 60 - give cross_subject or cross_setup"),
            ({"split": "cross_setup"}, r"cross_setup is of NTU RGB\+D 120 - give cross_subject or cross_view, or release=120"),
            ({"release": 61}, r"data\.options\.release"), ({"views": ["flow"]}, r"there is no view 'flow'"),
            ({"missing_skeletons": "none.txt"}, r"none\.txt does not exist"),
            ({"val_subjects": ["P004"]}, "no subject 'P004'")):
        with pytest.raises(ModaliftError, match=message):
            datasets.open("ntu_rgbd", root, **options)
    sample_ntu_rgbd.clip(tmp_path / "later", "S018C001P045R001A120")
    with pytest.raises(ModaliftError, match=r"none of the clips is in NTU RGB\+D 60 .* set data\.options\.release=120"):
        datasets.open("ntu_rgbd", tmp_path / "later")
    sample_ntu_rgbd.clip(root / "again", "S001C001P001R001A001")
    with pytest.raises(ModaliftError, match="are the same recording by their names - remove one"):
        datasets.open("ntu_rgbd", root)


def test_subjects_for_validation(root):
    table = datasets.open("ntu_rgbd", root, val_subjects=["P002"])
    assert {(r.subject, r.split) for r in table} == {("P001", "train"), ("P002", "val"), ("P003", "test")}


@genuine.needed
def test_the_genuine(tmp_path):
    lists = genuine.unpack("ntu_rgbd", tmp_path)
    for short, protocol in (("CS", "cross_subject"), ("CV", "cross_view")):
        for part, split, k in (("train", "train", 0), ("valid", "test", 1)):
            lines = [line.split(" ") for line in (lists / f"{short}_{part}.txt").read_text().splitlines()]
            clips = [Clip.of(line[0].removesuffix("_rgb")) for line in lines]
            assert len(clips) == COUNTS[60, protocol, "all"][k]
            assert {clip.split(protocol) for clip in clips} == {split}
            assert all(clip.action - 1 == int(line[2]) for clip, line in zip(clips, lines, strict=True))
    named = [line for line in (lists / "NTU_RGBD_samples_with_missing_skeletons.txt").read_text().splitlines() if Clip.of(line)]
    assert len(named) == 302
    assert sum(Clip.of(name).action <= MGCAM for name in named) == 74
    official = (lists / "label_map_ntu60.txt").read_text().split("\n")[:60]
    assert all(name.startswith(mine) or mine == "make a phone call" for name, mine in zip(official, CLASSES, strict=False))
    # Empty files of those names: the table has the missing ones without pose.
    skeletons = tmp_path / "data" / "nturgb+d_skeletons"
    skeletons.mkdir(parents=True)
    for name in named[:3]:
        (skeletons / f"{name}.skeleton").touch()
    (skeletons / "S001C001P001R001A001.skeleton").touch()
    (tmp_path / "data" / "missing_skeletons.txt").write_text("\n".join(named))
    assert [row.id for row in datasets.open("ntu_rgbd", tmp_path / "data")] == ["S001C001P001R001A001"]


def test_frames_without_a_body_are_told(root):
    path = root / "nturgb+d_skeletons" / "S001C001P001R001A060.skeleton"
    path.write_text(sample_ntu_rgbd.skeleton([{"1": np.ones((25, 3))}, {}, {}, {"1": np.ones((25, 3))}]))
    told = [p.reason for p in check.examine(datasets.open("ntu_rgbd", root)).problems if p.kind == "readings"]
    assert told == ["pose: 1 clips have samples that are all zeros, where no body was seen or the sensor paused"
                    " (S001C001P001R001A060: 2 of 4)"]


def test_two_bodies_in_the_order_of_their_motion(tmp_path):
    still, moving = np.ones((25, 3)), [np.full((25, 3), t) for t in range(4)]
    frames = [{"1": still, "2": moving[0]}, {"1": still}, {}, {"2": moving[3], "1": still, "3": still * 9}]
    path = tmp_path / "a.skeleton"
    path.write_text(sample_ntu_rgbd.skeleton(frames))
    read = reading.read(Track(path), modality("pose", 150)).reshape(4, 2, 25, 3)
    assert read[:, 0, 0, 0].tolist() == [0, 0, 0, 3], "the moving body is first, zeros where it is not seen"
    assert read[:, 1, 0, 0].tolist() == [1, 1, 0, 1]
