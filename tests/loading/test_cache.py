"""The frame cache: what comes out equals what was read, and a stale or broken cache is told."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import record

from modalift.errors import ModaliftError
from modalift.loading import cache_writing, frame_codecs, reading, sources
from modalift.loading.cache import Cache, open_cache
from modalift.loading.cache_writing import build_cache, lock_path
from modalift.locks import locked
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
    monkeypatch.setattr(frame_codecs, "blosc", lambda: None)
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


def test_corrupt_clips_are_named_and_left_out(table, tmp_path):
    (tmp_path / "bad.mp4").touch()
    bad = replace(table[0], id="broken", tracks={"depth": table[0].tracks["depth"], "rgb": Track(tmp_path / "bad.mp4")})
    table = replace(table, rows=(bad, *table.rows))
    made = build_cache(table, tmp_path / "cache", ["depth", "rgb"])
    assert list(made.skipped) == ["broken"]
    assert "bad.mp4 has zero bytes" in made.skipped["broken"]
    assert made.covers(table, ["rgb"])
    with pytest.raises(ModaliftError, match=r"bad\.mp4 has zero bytes"):
        made.read(bad, "rgb")
    np.testing.assert_array_equal(made.read(bad, "depth"), reading.read(bad.tracks["depth"], VIEWS["depth"]))
    assert made.unreadable(["depth"]) == {}, "a view does not depend on another that is torn"


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
    assert made.covers(table, ["depth"]), "copied, with the same contents"
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
    with pytest.raises(ModaliftError, match="holds no frame cache"):
        build_cache(table, tmp_path, ["depth"])  # a folder of other files
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

    monkeypatch.setattr(cache_writing.np, "savez", full)
    with pytest.raises(ModaliftError, match="the disk is full"):
        build_cache(table, tmp_path / "cache", ["depth"])
    assert not (tmp_path / "cache").exists()
    assert not list(tmp_path.glob(".*"))


def _sums(made: Cache, row: Row, answers) -> None:
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


# ---- the files that a cache was made from, and updates ----------------------------------------------------------------


def pictures(folder: Path, shift: int = 0) -> Track:
    folder.mkdir(exist_ok=True)
    for t in range(6):
        cv2.imwrite(str(folder / f"{t:02d}.png"), np.full((20, 30), 10 * t + shift, np.uint8))
    return Track(folder)


@pytest.fixture
def folders(tmp_path: Path) -> Table:
    """Four clips, each a folder of images; the last one is empty, so it cannot be read."""
    (tmp_path / "d").mkdir()
    tracks = [pictures(tmp_path / name, k) for k, name in enumerate("abc")] + [Track(tmp_path / "d")]
    rows = [Row(t.path.name, 0, "s1", "train", {"nir": t}) for t in tracks]
    return build_table("pictures", ("x",), {"nir": modality("nir")}, rows)


def differences(made: Cache, table: Table, views=("nir",)) -> dict[str, str]:
    return {d.clip: d.reason for d in made.differences(table, views)}


def test_a_picture_that_was_written_again_in_place_is_a_difference(folders, tmp_path):
    made = build_cache(folders, tmp_path / "cache")
    assert differences(made, folders) == {}
    cv2.imwrite(str(tmp_path / "b" / "03.png"), np.full((20, 30), 99, np.uint8))
    assert list(differences(made, folders)) == ["b"]
    with pytest.raises(ModaliftError, match=r"'nir' of clip 'b' was changed \(.*/b\) - update it with `modalift cache D O`"):
        made.check(folders, ["nir"], "modalift cache D O")


def test_each_difference_is_told_by_its_reason(folders, tmp_path):
    made = build_cache(folders.where(lambda r: r.id != "c"), tmp_path / "cache")
    pictures(tmp_path / "d")  # mended
    narrowed = folders.map(lambda r: replace(r, tracks={"nir": replace(r.tracks["nir"], start=1)}) if r.id == "a" else r)
    found = differences(made, narrowed)
    assert found == {"a": "has another window now (1..None, not 0..None)", "c": "is not in it",
                     "d": "could not be read when the cache was made, and was changed since"}
    assert set(differences(made, folders, ["nir", "pose"])) == {"c", "d"}, "a view that no clip has is not missed"
    color = replace(folders, views={"nir": modality("rgb")})
    assert set(differences(made, color).values()) == {"was read as nir (1 x uint8), and is rgb (3 x uint8) now"}
    lost = folders.map(lambda r: replace(r, tracks={"nir": Track(tmp_path / "elsewhere" / r.id)}))
    assert set(differences(made, lost)) == {"c"}, "files that are gone do not count as changed"
    renamed = folders.map(lambda r: replace(r, tracks={"nir": Track(tmp_path / "elsewhere")}) if r.id == "a" else r)
    assert "does not exist" in differences(made, renamed)["a"]


def test_a_copy_of_the_files_is_covered_and_other_files_of_the_same_names_are_not(folders, tmp_path):
    made = build_cache(folders, tmp_path / "cache")
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-copy", ignore=shutil.ignore_patterns("cache"))
    other = tmp_path.parent / f"{tmp_path.name}-copy"
    moved = folders.map(lambda r: replace(r, tracks={"nir": Track(other / r.id)}))
    for picture in other.rglob("*.png"):
        os.utime(picture, ns=(1, 1))
    assert differences(made, moved) == {}
    pictures(other / "c", shift=5)
    assert list(differences(made, moved)) == ["c"]


def test_a_clip_that_appears_after_it_was_missing_is_a_difference(folders, tmp_path):
    (tmp_path / "d").rmdir()
    made = build_cache(folders, tmp_path / "cache")
    assert list(made.skipped) == ["d"]
    assert differences(made, folders) == {}
    pictures(tmp_path / "d")
    assert list(differences(made, folders)) == ["d"]


def test_an_update_decodes_what_changed_and_an_open_cache_stays_valid(folders, tmp_path, monkeypatch):
    before = build_cache(folders.where(lambda r: r.id != "c"), tmp_path / "cache")
    old = before.read(folders[1], "nir")
    pictures(tmp_path / "b", shift=100)
    pictures(tmp_path / "d", shift=3)
    decoded: list[str] = []
    collect = reading.collect

    def counted(track, *rest):
        decoded.append(track.path.name)
        return collect(track, *rest)

    monkeypatch.setattr(reading, "collect", counted)
    after = build_cache(folders, tmp_path / "cache")
    assert sorted(decoded) == ["b", "c", "d"]
    monkeypatch.undo()
    for row in folders:
        # images of one value: JPEG keeps it within one
        assert np.abs(after.read(row, "nir").astype(int) - reading.read(row.tracks["nir"], VIEWS_NIR)).max() <= 1
    assert after.skipped == {}
    assert differences(after, folders) == {}
    np.testing.assert_array_equal(before.read(folders[1], "nir"), old)  # with its own index
    pickled = pickle.loads(pickle.dumps(before))
    np.testing.assert_array_equal(pickled.read(folders[1], "nir"), old)


VIEWS_NIR = modality("nir")


def test_an_update_adds_views_and_refuses_other_settings_and_clips(table, tmp_path):
    build_cache(table, tmp_path / "cache", ["depth"], codec="raw")
    both = build_cache(table, tmp_path / "cache", ["pose"])
    assert both.codecs == {"depth": "raw", "pose": "raw"}
    assert build_cache(table, tmp_path / "cache").views == ("depth", "pose")
    np.testing.assert_array_equal(both.read(table[0], "pose"), reading.read(table[0].tracks["pose"], VIEWS["pose"]))
    with pytest.raises(ModaliftError, match="has short_side none, not 32"):
        build_cache(table, tmp_path / "cache", short_side=32)
    with pytest.raises(ModaliftError, match="holds 'depth' as raw, not lz4"):
        build_cache(table, tmp_path / "cache", codec="lz4")
    other = table.map(lambda r: replace(r, id=r.id + "x"))
    with pytest.raises(ModaliftError, match="holds none of the clips of toy"):
        build_cache(other, tmp_path / "cache")
    assert open_cache(tmp_path / "cache").covers(table, ["depth", "pose"])


def test_a_killed_update_loses_nothing_and_is_continued(folders, tmp_path):
    made = build_cache(folders.where(lambda r: r.id == "a"), tmp_path / "cache")
    with made.held["nir"].shard.open("ab") as shard:  # a process that was killed before it wrote the index
        shard.write(b"half of a frame")
    assert open_cache(tmp_path / "cache").covers(folders.where(lambda r: r.id == "a"), ["nir"])
    after = build_cache(folders, tmp_path / "cache")
    for row in folders.rows[:3]:
        assert np.abs(after.read(row, "nir").astype(int) - reading.read(row.tracks["nir"], VIEWS_NIR)).max() <= 1


def test_what_an_interrupted_update_decoded_is_kept(folders, tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(folders, tmp_path / "cache", progress=stop)
    assert set(differences(open_cache(tmp_path / "cache"), folders)) == {"c", "d"}
    assert differences(build_cache(folders, tmp_path / "cache"), folders) == {}


def test_digests_are_those_of_the_files(folders, tmp_path):
    made = build_cache(folders, tmp_path / "cache", codec="raw")
    truth = sources.digests(folders, ["nir"])
    assert made.digests == {(clip, "nir"): views["nir"] for clip, views in truth.items()}
    assert made.lossless
    assert not build_cache(folders, tmp_path / "small", codec="raw", short_side=8).lossless
    assert not build_cache(folders, tmp_path / "jpeg").lossless


def _build(folder: Path, table: Table, answers) -> None:
    made = build_cache(table, folder, ["nir"], codec="raw", waiting=lambda holder: answers.put("waits"))
    answers.put(int(made.read(table[2], "nir").sum()))


def test_the_later_of_two_processes_waits_and_finds_the_cache_complete(folders, tmp_path):
    context = multiprocessing.get_context("spawn")
    answers, folder = context.Queue(), tmp_path / "cache"
    with locked(lock_path(folder), lambda holder: None):
        workers = [context.Process(target=_build, args=(folder, folders, answers)) for _ in range(2)]
        for worker in workers:
            worker.start()
        assert [answers.get(timeout=120) for _ in workers] == ["waits"] * 2
        assert not folder.exists()
    found = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert found == [int(reading.read(folders[2].tracks["nir"], VIEWS_NIR).sum())] * 2
    assert not lock_path(folder).exists()
