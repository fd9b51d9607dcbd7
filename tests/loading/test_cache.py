"""The frame cache: what comes out equals what was read, and a stale or broken cache is told."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recordings import record

from modalift.errors import ModaliftError
from modalift.loading import cache as caching
from modalift.loading import reading
from modalift.loading.cache import build_cache, open_cache, shrink
from modalift.modalities import Row, Table, Track, build_table, modality

VIEWS = {"rgb": modality("rgb"), "depth": modality("depth"), "pose": modality("pose", 6)}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    color, depth = record(tmp_path, "h264_b", frames=14), record(tmp_path, "ffv1_16", frames=14)
    np.savez(tmp_path / "pose.npz", **{f"c{i}": np.random.default_rng(i).normal(size=(14, 2, 3)) for i in range(3)})
    rows = []
    for i in range(3):
        tracks = {"rgb": Track(color, start=i, end=i + 8), "depth": Track(depth, start=2 * i),
                  "pose": Track(tmp_path / "pose.npz", f"c{i}")}
        if i == 1:
            del tracks["depth"]
        rows.append(Row(f"c{i}", i % 2, "s1", "train", tracks))
    return build_table("toy", ("a", "b"), VIEWS, rows)


def test_lossless_views_come_back_exactly(table, tmp_path):
    made = build_cache(table, tmp_path / "cache", VIEWS)
    assert made.codecs == {"rgb": "jpeg", "depth": "lz4", "pose": "raw"}
    assert made.skipped == {}
    for row in table:
        for view in row.tracks:
            truth = reading.read(row.tracks[view], VIEWS[view])
            got = made.read(row, view)
            assert got.dtype == truth.dtype
            assert got.shape == truth.shape
            assert made.length(row, view) == len(truth)
            if view == "rgb":
                assert np.abs(got.astype(int) - truth).mean() < 4
            else:
                np.testing.assert_array_equal(got, truth)
            some = [5, 0, 5]
            np.testing.assert_array_equal(made.read(row, view, some), got[some])


@pytest.mark.parametrize("codec", ["raw", "lz4"])
def test_other_codecs(table, tmp_path, codec):
    made = build_cache(table, tmp_path / "cache", ["rgb", "depth"], codec=codec)
    assert set(made.codecs.values()) == {codec}
    np.testing.assert_array_equal(made.read(table[0], "rgb"), reading.read(table[0].tracks["rgb"], VIEWS["rgb"]))


def test_auto_without_numcodecs_is_raw(table, tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "_blosc", lambda: None)
    made = build_cache(table, tmp_path / "cache", ["depth"])
    assert made.codecs == {"depth": "raw"}
    np.testing.assert_array_equal(made.read(table[0], "depth"), reading.read(table[0].tracks["depth"], VIEWS["depth"]))
    with pytest.raises(ModaliftError, match=r"modalift\[cache\]"):
        build_cache(table, tmp_path / "other", ["depth"], codec="lz4")


def test_short_side_shrinks_videos_and_leaves_signals(table, tmp_path):
    made = build_cache(table, tmp_path / "cache", VIEWS, short_side=32)
    assert made.read(table[0], "rgb").shape[1:] == (32, 32, 3)
    assert made.read(table[0], "depth").shape[1:] == (32, 32, 1)
    assert made.read(table[0], "pose").shape[1:] == (1, 1, 6)


def test_holes_are_not_averaged_into_depth():
    frame = np.full((8, 12, 1), 2000, np.uint16)
    frame[:, :5] = 0
    small = shrink(frame, 4, 0.0)
    assert small.shape == (4, 6, 1)
    assert set(np.unique(small)) == {0, 2000}
    assert shrink(frame, 100, 0.0) is frame


def test_corrupt_clips_are_named_and_left_out(table, tmp_path):
    (tmp_path / "bad.mp4").touch()
    bad = replace(table[0], id="broken", tracks={"depth": table[0].tracks["depth"], "rgb": Track(tmp_path / "bad.mp4")})
    table = replace(table, rows=(bad, *table.rows))
    made = build_cache(table, tmp_path / "cache", ["depth", "rgb"])
    assert list(made.skipped) == ["broken"]
    assert "bad.mp4 has zero bytes" in made.skipped["broken"]
    assert json.loads((tmp_path / "cache" / "skipped.json").read_text()) == made.skipped
    assert made.covers(table, ["rgb"])
    with pytest.raises(ModaliftError, match=r"holds no clip 'broken' of view 'depth' \(.*zero bytes"):
        made.read(bad, "depth")
    np.testing.assert_array_equal(made.read(table[1], "depth"), reading.read(table[1].tracks["depth"], VIEWS["depth"]))


def test_no_readable_clip_is_an_error_and_leaves_nothing(table, tmp_path):
    lost = table.map(lambda r: replace(r, tracks={"rgb": Track(tmp_path / "gone.mp4")}))
    with pytest.raises(ModaliftError, match="no clip can be read"):
        build_cache(lost, tmp_path / "cache", ["rgb"])
    assert not (tmp_path / "cache").exists()
    assert not list(tmp_path.glob(".*"))


def test_covers_tells_changes(table, tmp_path):
    made = build_cache(table, tmp_path / "cache", ["rgb", "depth"])
    assert made.covers(table, ["rgb", "depth"])
    assert made.covers(table.where(lambda r: r.id != "c0"), ["rgb"])
    assert made.covers(table.map(lambda r: replace(r, label=None, split="test")), ["rgb"])
    assert not made.covers(table, ["rgb", "pose"])
    assert not made.covers(table.map(lambda r: replace(r, id=r.id + "x")), ["rgb"])
    moved = table.map(lambda r: replace(r, tracks={**r.tracks, "rgb": replace(r.tracks["rgb"], start=3, end=9)}))
    assert not made.covers(moved, ["rgb"])
    assert made.covers(moved, ["depth"])
    os.utime(table[0].tracks["depth"].path, ns=(1, 1))
    assert not made.covers(table, ["depth"])
    table[0].tracks["depth"].path.unlink()
    assert made.covers(table, ["depth"]), "a cache serves without the recordings"


def test_bad_frames_views_and_folders(table, tmp_path):
    made = build_cache(table, tmp_path / "cache", ["depth"])
    with pytest.raises(ModaliftError, match="has no frame 14 of 'depth' - it holds 14"):
        made.read(table[0], "depth", [14])
    with pytest.raises(ModaliftError, match="has no frame -1"):
        made.read(table[0], "depth", [-1])
    with pytest.raises(ModaliftError, match="holds no view 'rgb'"):
        made.read(table[0], "rgb")
    with pytest.raises(ModaliftError, match="exists and is not empty"):
        build_cache(table, tmp_path / "cache", ["depth"])
    with pytest.raises(ModaliftError, match="holds no frame cache"):
        open_cache(tmp_path)
    with pytest.raises(ModaliftError, match="did you mean 'jpeg'"):
        build_cache(table, tmp_path / "x", ["depth"], codec="jpg")


@pytest.mark.parametrize("codec", ["lz4", "raw"])
def test_truncated_and_damaged_shards_are_told(table, tmp_path, codec):
    build_cache(table, tmp_path / "cache", ["depth"], codec=codec)
    shard = next((tmp_path / "cache").glob("*.bin"))
    data = shard.read_bytes()
    shard.write_bytes(data[:-10])
    with pytest.raises(ModaliftError, match="is truncated"):
        open_cache(tmp_path / "cache").read(table[0], "depth")
    if codec == "lz4":
        shard.write_bytes(bytes(len(data)))
        with pytest.raises(ModaliftError, match="is damaged at byte 0"):
            open_cache(tmp_path / "cache").read(table[0], "depth")


def test_a_full_disk_leaves_nothing_behind(table, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.np, "savez", full)
    with pytest.raises(ModaliftError, match="the disk is full"):
        build_cache(table, tmp_path / "cache", ["depth"])
    assert not (tmp_path / "cache").exists()
    assert not list(tmp_path.glob(".*"))


def _sums(made: caching.Cache, row: Row, answers) -> None:
    answers.put([int(made.read(row, "depth", [i]).sum()) for i in range(14)])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_forked_workers_read_the_same_frames(table, tmp_path):
    made = build_cache(table, tmp_path / "cache", ["depth"])
    truth = [int(f.sum()) for f in made.read(table[0], "depth")]  # maps the shard before the fork
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=_sums, args=(made, table[0], answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [answers.get(timeout=30) for _ in workers] == [truth] * 3
    for worker in workers:
        worker.join()
    again = pickle.loads(pickle.dumps(made))
    assert [int(f.sum()) for f in again.read(table[0], "depth")] == truth


def test_a_clip_set_gives_the_same_samples_from_a_cache(table, tmp_path):
    from modalift.loading.clips import ClipSet
    from modalift.loading.framing import Framing

    framings = {"depth": Framing(frames=5, size=32), "pose": Framing(frames=5, size=1)}
    made = build_cache(table, tmp_path / "cache", framings)
    files, cached = ClipSet(table, framings), ClipSet(table, framings, store=made)
    for index in range(len(table)):
        for view in framings:
            np.testing.assert_array_equal(cached[0, index]["clips"][view], files[0, index]["clips"][view])
