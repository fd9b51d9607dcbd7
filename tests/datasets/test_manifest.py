"""The dataset csv: manifests as people write them, and one clear line for each mistake."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from modalift import datasets
from modalift.datasets.writing import write_manifest
from modalift.errors import ModaliftError
from modalift.modalities import Table, Track

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
real = pytest.mark.skipif(not SHARED.exists(), reason="../shared with the real recordings is absent")


def manifest(folder: Path, text: str, name: str = "manifest.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


def fails(match: str, root: Path, **options) -> None:
    with pytest.raises(ModaliftError, match=match) as told:
        datasets.open("csv", root, **options)
    assert "\n" not in str(told.value)


PLAIN = """clip_id,label,label_name,subject,split,rgb,depth,lux
a,0,wave,s1,train,rgb/a.mp4,depth/a.mkv,2.5
b,1,stop,s2,train,rgb/b.mp4,,8
c,,,s1,training,rgb/c.mp4,depth/c.mkv,
d,1,stop,s3,testing,rgb/d.mp4,depth/d.mkv,1
"""


def test_a_plain_manifest_needs_no_option(tmp_path):
    table = datasets.open("csv", manifest(tmp_path, PLAIN))
    assert table.classes == ("wave", "stop")
    assert list(table.views) == ["rgb", "depth"]
    assert [r.label for r in table] == [0, 1, None, 1]
    assert [r.split for r in table] == ["train", "train", "train", "test"]
    assert table[0].tracks["rgb"] == Track(tmp_path / "rgb" / "a.mp4")
    assert "depth" not in table[1].tracks
    assert table[0].metadata == {"lux": 2.5}
    assert table[2].metadata == {}
    assert table.name == tmp_path.name
    assert datasets.guess(tmp_path) == "csv"
    assert datasets.open("csv", tmp_path / "manifest.csv") == table


def test_other_column_names_separators_and_a_bom(tmp_path):
    text = "﻿Probe;Klasse;Wer;Teil;farbe\nx1;winken;A;valid;v/x1.avi\nx2;halt;B;test;v/x2.avi\n\n"
    manifest(tmp_path, text, "liste.csv")
    table = datasets.open("csv", tmp_path, manifest="liste.csv", id="Probe", label="Klasse", subject="Wer", split="Teil",
                          views={"color": {"column": "farbe", "modality": "rgb", "rate": 25, "space": "cam"}})
    assert table.classes == ("halt", "winken")
    assert [(r.id, r.label, r.subject, r.split) for r in table] == [("x1", 1, "A", "val"), ("x2", 0, "B", "test")]
    assert table[0].tracks["color"] == Track(tmp_path / "v/x1.avi", rate=25.0, space="cam")


def test_windows_rates_and_templates(tmp_path):
    manifest(tmp_path, "id,label,split,first,final,fps,skew\nu,3,train,11,20,30,-12.5\nv,4,test,1,,30,0\n")
    table = datasets.open("csv", tmp_path, views={"rgb": {
        "path": "frames/{id}/rgb", "start": "first", "last": "final", "base": 1, "rate": "fps", "offset_ms": "skew",
        "affine": [1, 0, 0, 0, 1, 0.5]}})
    assert table[0].tracks["rgb"] == Track(tmp_path / "frames/u/rgb", "", 10, 20, 30.0, (), -12.5, "",
                                           (1, 0, 0, 0, 1, 0.5))
    assert (table[1].tracks["rgb"].start, table[1].tracks["rgb"].end) == (0, None)


def test_labels_that_begin_at_one_and_labels_with_gaps(tmp_path):
    def labels(numbers: str, **options) -> Table:
        lines = "".join(f"c{i},{n},train,a.mp4\n" for i, n in enumerate(numbers.split()))
        return datasets.open("csv", manifest(tmp_path, "id,label,split,rgb\n" + lines), **options)

    assert [r.label for r in labels("1 2 3")] == [0, 1, 2]
    gap = labels("0 1 3")
    assert gap.classes == ("0", "1", "class 2", "3")
    assert [r.label for r in gap] == [0, 1, 3]
    closed = labels("0 1 3", close_gaps=True)
    assert closed.classes == ("0", "1", "3")
    assert [r.label for r in closed] == [0, 1, 2]
    assert [r.label for r in labels("2 3", first_label=0)] == [2, 3]
    assert labels("0 1", classes=["yes", "no", "maybe"]).classes == ("yes", "no", "maybe")
    fails("labels go up to 900, but only 2 numbers are in use - set close_gaps", manifest(
        tmp_path, "id,label,split,rgb\na,0,train,a.mp4\nb,900,train,b.mp4\n"))
    fails("`classes` has 1 names, but labels need 2", manifest(
        tmp_path, "id,label,split,rgb\na,0,train,a.mp4\nb,1,train,b.mp4\n"), classes=["one"])


def test_names_and_numbers_that_disagree(tmp_path):
    head = "id,label,label_name,split,rgb\n"
    fails("label 0 is called 'wave' and, at clip 'b', 'stop'", manifest(
        tmp_path, head + "a,0,wave,train,a.mp4\nb,0,stop,train,b.mp4\n"))
    fails("two label numbers are called 'wave'", manifest(
        tmp_path, head + "a,0,wave,train,a.mp4\nb,1,wave,train,b.mp4\n"))
    table = datasets.open("csv", manifest(tmp_path, head + "a,0,wave,train,a.mp4\nb,,wave,train,b.mp4\n"))
    assert table[1].label == 0
    fails("label 'wav', which is not in `classes` - did you mean 'wave'", manifest(
        tmp_path, "id,label,split,rgb\na,wav,train,a.mp4\n"), classes=["wave", "stop"])


def test_archives_of_joints(tmp_path):
    np.savez(tmp_path / "skeleton.npz", a=np.zeros((4, 20, 3)), c=np.zeros((4, 20, 3)))
    np.savez(tmp_path / "unrelated.npz", x=np.zeros(3))
    table = datasets.open("csv", manifest(tmp_path, PLAIN))
    assert table.views["pose"].channels == 60
    assert [r.tracks.get("pose") for r in table] == [
        Track(tmp_path / "skeleton.npz", "a"), None, Track(tmp_path / "skeleton.npz", "c"), None]
    named = datasets.open("csv", tmp_path, views={"body": {"modality": "pose", "file": "skeleton.npz",
                                                           "key_column": "clip_id"}})
    assert named[0].tracks["body"].key == "a"
    fails(r"skelton\.npz does not exist", tmp_path, views={"pose": {"file": "skelton.npz"}})


def test_a_column_may_name_an_archive(tmp_path):
    np.savez(tmp_path / "all.npz", a=np.zeros((4, 6)), b=np.zeros((4, 6)))
    np.savez(tmp_path / "one.npz", whatever=np.zeros((4, 6)))
    manifest(tmp_path, "id,label,split,imu\na,0,train,all.npz\nb,1,train,all.npz\nc,0,test,one.npz\n")
    table = datasets.open("csv", tmp_path)
    assert [r.tracks["imu"].key for r in table] == ["a", "b", ""]
    assert table.views["imu"].channels == 6


def test_channels_come_from_the_first_whole_recording(tmp_path):
    (tmp_path / "a.npz").touch()
    np.savez(tmp_path / "b.npz", joints=np.zeros((4, 5, 3)))
    manifest(tmp_path, "id,label,split,pose\na,0,train,a.npz\nb,1,train,b.npz\n")
    assert datasets.open("csv", tmp_path).views["pose"].channels == 15
    (tmp_path / "b.npz").unlink()
    np.save(tmp_path / "b.npy", np.zeros((4, 5, 3)))
    (tmp_path / "a.npy").touch()
    manifest(tmp_path, "id,label,split,pose\na,0,train,a.npy\nb,1,train,b.npy\n")
    assert datasets.open("csv", tmp_path).views["pose"].channels == 15
    (tmp_path / "b.npy").unlink()
    fails(r"the number of channels of pose cannot be read from any recording \(.*npy.*give views.pose.channels", tmp_path)
    assert datasets.open("csv", tmp_path, views={"pose": {"channels": 15}}).views["pose"].channels == 15


def test_splits(tmp_path):
    without = "id,label,subject,rgb,split_a\na,0,1,a.mp4,train\nb,0,2,b.mp4,test\nc,0,3,c.mp4,test\n"
    fails(r"has no column `split` - give its name with the option `split` \(split_a\), or give test_subjects",
          manifest(tmp_path, without))
    by_subject = datasets.open("csv", tmp_path, test_subjects=["2"], val_subjects=[3])
    assert [r.split for r in by_subject] == ["train", "test", "val"]
    assert [r.split for r in datasets.open("csv", tmp_path, split="split_a", val_subjects=["1"])] == \
        ["val", "test", "test"]
    fails("there is no subject '9'", tmp_path, test_subjects=["9"])
    fails("subject '2' is in test_subjects and in val_subjects", tmp_path, test_subjects=["2"], val_subjects=["2"])
    fails("clip 'a' has split 'trian' - use train, val or test", manifest(tmp_path, PLAIN.replace(",train,", ",trian,")))


def test_mirror_map(tmp_path):
    text = PLAIN + "e,2,left,s1,train,e.mp4,,\nf,3,right,s1,train,f.mp4,,\n"
    root = manifest(tmp_path, text)
    assert datasets.open("csv", root).mirrored == {}
    assert datasets.open("csv", root, mirrored={"left": "right"}).mirrored == {2: 3, 3: 2}
    assert datasets.open("csv", root, mirrored={"left": "right", "others": "same"}).mirrored == {0: 0, 1: 1, 2: 3, 3: 2}
    fails("mirrored: there is no class 'lift' - did you mean 'left'", root, mirrored={"lift": "right"})


@pytest.mark.parametrize(("text", "match"), [
    ("", "lists no clip"),
    ("clip_id,label,split,rgb\n", "lists no clip"),
    ("label,split,rgb\n0,train,a.mp4\n", "has no column of clip ids"),
    ("id,label,split,rgb\na,0,train,a.mp4\na,1,train,b.mp4\n", "clip 'a' appears twice"),
    ("id,label,split,rgb\na,0,train\n", "line 2: 3 cells under 4 columns"),
    ("id,label,label,rgb\na,0,1,a.mp4\n", "two columns 'label'"),
    ("id,label,split,what\na,0,train,a.mp4\n", "no column looks like a view"),
])
def test_broken_manifests(text, match, tmp_path):
    fails(match, manifest(tmp_path, text))


def test_wrong_options(tmp_path):
    root = manifest(tmp_path, PLAIN)
    fails("unknown key 'data.options.splitt' for dataset 'csv' - did you mean 'split'", root, splitt="x")
    fails("has no column 'splt' - did you mean 'split'", root, split="splt")
    fails("unknown key 'data.options.views.rgb.colum' - did you mean 'data.options.views.rgb.column'", root,
          views={"rgb": {"colum": "rgb"}})
    fails("views.rgb: .* has no column 'rgbb'", root, views={"rgb": {"column": "rgbb"}})
    fails("unknown modality 'dept' - did you mean 'depth'", root, views={"rgb": "dept"})
    fails("'front': its name contains no modality - give views.front.modality", root, views={"front": {"column": "rgb"}})
    fails("give one of column, path and file", root, views={"rgb": {"column": "rgb", "file": "x.npz"}})
    fails("end .exclusive. and last", root, views={"rgb": {"end": 3, "last": 4}})
    fails("views.rgb.start needs numbers, not 'wave'", root, views={"rgb": {"start": "label_name"}})
    fails("names the unknown column 'clip'", root, views={"rgb": {"path": "x/{clip}.mp4"}})
    fails("needs six numbers", root, views={"rgb": {"affine": [1, 2]}})
    fails("does not exist", tmp_path / "nowhere")
    with pytest.raises(ModaliftError, match="unknown dataset 'cvs' - did you mean 'csv'"):
        datasets.open("cvs", root)


def test_a_written_table_reads_back_the_same(tmp_path):
    np.savez(tmp_path / "pose.npz", a=np.zeros((4, 20, 3)))
    root = manifest(tmp_path / "in", PLAIN)
    table = datasets.open("csv", root, views={"rgb": {"rate": 25, "space": "cam", "start": 2, "end": 9},
                                              "depth": {"space": "cam", "offset_ms": 3.5, "affine": [1, 0, 0.25, 0, 1, 0]},
                                              "pose": {"file": "../pose.npz"}}, mirrored={"wave": "wave"})
    stamped = replace(table[0].tracks["rgb"], timestamps=(0.0, 0.1 + 0.2))
    table = table.map(lambda r: replace(r, tracks={**r.tracks, "rgb": stamped}) if r.id == "a" else r)
    table = table.where(lambda r: r.label != 0 or r.id == "a")
    out = tmp_path / "out"
    out.mkdir()
    write_manifest(table, out)
    back = datasets.open("csv", out)
    resolved = [replace(r, tracks={v: replace(t, path=t.path.resolve()) for v, t in r.tracks.items()}) for r in back]
    wanted = [replace(r, tracks={v: replace(t, path=t.path.resolve()) for v, t in r.tracks.items()}) for r in table]
    assert resolved == wanted
    assert (back.name, back.classes, back.views, back.mirrored) == \
        (table.name, table.classes, table.views, table.mirrored)


def test_subset_without_class_zero_keeps_its_numbers(tmp_path):
    table = datasets.open("csv", manifest(tmp_path / "in", PLAIN)).where(lambda r: r.label == 1)
    (tmp_path / "out").mkdir()
    write_manifest(table, tmp_path / "out")
    back = datasets.open("csv", tmp_path / "out")
    assert back.classes == ("wave", "stop")
    assert {r.label for r in back} == {1}


def test_images_tell_their_channels(tmp_path):
    for clip, shape in (("a", (8, 8)), ("b", (8, 8, 3))):
        (tmp_path / clip).mkdir()
        cv2.imwrite(str(tmp_path / clip / "0.png"), np.zeros(shape, np.uint8))
    manifest(tmp_path, "id,label,split,m1,m2\na,0,train,a,b\n")
    table = datasets.open("csv", tmp_path, views={"m1": "pose_map", "m2": "pose_map"})
    assert [m.channels for m in table.views.values()] == [1, 3]


@real
def test_utd_as_it_stands():
    table = datasets.open("csv", SHARED / "utd_mhad_depth")
    assert len(table) == 861
    assert len(table.classes) == 27
    assert Counter(r.split for r in table) == {"train": 431, "test": 430}
    assert {v: m.channels for v, m in table.views.items()} == {"depth": 1, "imu": 6, "pose": 60}
    assert all(set(r.tracks) == {"depth", "imu", "pose"} for r in table)
    assert {r.subject for r in table.split("train")} == {"s1", "s3", "s5", "s7"}


@real
def test_ucl_as_it_stands():
    views = {v: {"space": "crop" if v.startswith("crop") else "camera"}
             for v in ("rgb", "depth", "crop_rgb", "crop_depth")}
    table = datasets.open("csv", SHARED / "ucl_rgbd_gesture", split="split_clip", views=views)
    assert len(table) == 130
    assert len(table.classes) == 10
    assert Counter(r.split for r in table) == {"train": 100, "test": 30}
    assert [m.name for m in table.views.values()] == ["rgb", "depth", "rgb", "depth"]
    assert table[0].tracks["rgb"].space == table[0].tracks["depth"].space == "camera"
    with pytest.raises(ModaliftError, match="split_clip or split_subject"):
        datasets.open("csv", SHARED / "ucl_rgbd_gesture")


@pytest.mark.parametrize("group", ["test_subjects", "val_subjects"])
def test_an_unknown_subject_cannot_be_held_out(tmp_path, group):
    (tmp_path / "a.npy").write_bytes(b"")
    (tmp_path / "manifest.csv").write_text("clip_id,label,subject,split,depth\n" + "".join(
        f"c{i},{i % 2},{subject},train,a.npy\n" for i, subject in enumerate(("anna", "unknown", "", "ben"))))
    with pytest.raises(ModaliftError, match=r"'unknown' in test_subjects or val_subjects means .* name subjects \(anna, ben\)"):
        datasets.open("csv", tmp_path, **{group: ["unknown"]})
    table = datasets.open("csv", tmp_path, **{group: ["anna"]})
    assert table.subjects == ("anna", "ben")


def test_views_that_are_given_keep_what_the_stored_options_tell(tmp_path):
    """A space for a view of a written table does not make its window, rate and clock forgotten."""
    table = datasets.open("csv", manifest(tmp_path / "in", PLAIN), views={
        "rgb": {"rate": 25, "start": 2, "end": 9, "offset_ms": 4.5}, "depth": {"modality": "depth_gray", "space": "own"}})
    stamped = replace(table[0].tracks["rgb"], timestamps=tuple(0.04 * k for k in range(7)))
    write_manifest(table.map(lambda r: replace(r, tracks={**r.tracks, "rgb": stamped}) if r.id == "a" else r), tmp_path / "out")
    back = datasets.open("csv", tmp_path / "out", views={"rgb": {"space": "both"}, "depth": {"space": "both"}})
    assert list(back.views.values()) == list(table.views.values())
    assert replace(back[0].tracks["rgb"], path=stamped.path) == replace(stamped, space="both")
    assert back[0].tracks["depth"].space == "both"
    moved = datasets.open("csv", tmp_path / "out", views={"rgb": {"last": 4}, "depth": "gray"})
    assert (moved[0].tracks["rgb"].start, moved[0].tracks["rgb"].end) == (2, 5)
    assert moved.views["depth"].name == "gray"
    assert moved[0].tracks["depth"].space == "own"


def test_a_view_in_several_spaces_and_arrays_named_otherwise_survive_being_written(tmp_path):
    np.savez(tmp_path / "joints.npz", a=np.zeros((4, 6)), b=np.zeros((4, 6)))
    table = datasets.open("csv", manifest(
        tmp_path / "in", "id,label,split,imu\na,0,train,../joints.npz\nb,1,train,../joints.npz\n"))
    crossed = table.map(lambda r: replace(r, tracks={"imu": replace(r.tracks["imu"], key="b" if r.id == "a" else "a",
                                                                    space="left" if r.id == "a" else "")}))
    write_manifest(crossed, tmp_path / "out")
    back = datasets.open("csv", tmp_path / "out")
    assert [(r.tracks["imu"].key, r.tracks["imu"].space) for r in back] == [("b", "left"), ("a", "")]
    fails("give one of space and space_column", tmp_path / "out", views={"imu": {"space": "x", "space_column": "label"}})
    stored = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({**stored, "missing": [1]}))
    fails("'missing' must be a list of texts", tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({**stored, "missing": ["c"], "notes": ["read so"]}))
    back = datasets.open("csv", tmp_path / "out")
    assert (back.missing, back.notes) == (("c",), ("read so",))
