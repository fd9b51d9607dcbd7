"""The reduction of large images: what it gives, and that a clip is the same wherever its frames were read from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import write

from modalift.errors import ModaliftError
from modalift.loading.cache_writing import build_cache
from modalift.loading.clips import ClipSet
from modalift.loading.framer import Framer
from modalift.loading.framing import Augment, Framing, Protocol
from modalift.loading.recording import clips_of
from modalift.loading.reduction import Reduction, shrink
from modalift.loading.sampling import centered
from modalift.loading.stores import BackedStore, FileStore, MemoryStore, estimate_bytes, reductions_of
from modalift.loading.transforms import Geometry
from modalift.modalities import Row, Table, Track, build_table, modality

KINDS = {"rgb": modality("rgb"), "depth": modality("depth"), "flow": modality("flow"), "nir": modality("nir")}
#: Views -> framing: 16-pixel clips of images of 90 to 121 pixels.
SMALL = Framing(frames=3, size=16)


def images(view: str, height: int, width: int, frames: int = 5) -> np.ndarray:
    rng = np.random.default_rng(height)
    coarse = rng.random((frames, 7, 9, 2))
    smooth = np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_CUBIC) for f in coarse]).clip(0, 1)
    if view == "flow":
        return (8 * smooth - 4).astype(np.float32)
    if view == "depth":
        person = np.zeros((height, width), bool)
        person[height // 5 : -7, width // 3 : -5] = True
        return np.where((smooth[..., 1] > 0.3) & person, 800 + 3000 * smooth[..., 0], 0).astype(np.uint16)
    gray = (255 * smooth[..., 0]).astype(np.uint8)
    return np.stack([gray, 255 - gray, gray // 2], -1) if view == "rgb" else gray


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Clips of unequal and odd sizes; depth and color share a space, near-infrared has an affine map into it."""
    rows = []
    for i, (height, width) in enumerate(((97, 121), (120, 90), (40, 50))):
        tracks = {}
        for view in KINDS:
            np.save(tmp_path / f"{view}{i}.npy", images(view, height, width))
            tracks[view] = Track(tmp_path / f"{view}{i}.npy", space="" if view == "flow" else "rig",
                                 affine=(1.3, 0.1, 0.05, -0.1, 1.3, 0.0) if view == "nir" else None)
        np.save(tmp_path / f"rgb{i}.npy", images("rgb", height + 31, width + 8))  # another shape in the same space
        rows.append(Row(f"c{i}", 0, "s", "train", tracks))
    return build_table("sizes", ("x",), KINDS, rows)


def samples(table: Table, framings, store=None, **options) -> list[np.ndarray]:
    data = ClipSet(table, framings, store=store, **options)
    made = [data[1, i] for i in range(len(table))]
    return [part for sample in made for kind in ("clips", "valid") for part in sample[kind].values()]


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("augment", [None, Augment.strong()])
@pytest.mark.parametrize("framings", [
    dict.fromkeys(KINDS, SMALL), {"depth": SMALL, "rgb": SMALL.replace(region="valid")},
    {"rgb": SMALL.replace(crop_ratio=0.8, fit="stretch"), "nir": SMALL.replace(size=20)}, {"nir": SMALL}, {"depth": SMALL}])
def test_a_clip_is_the_same_from_files_memory_and_a_lossless_cache(table, tmp_path, framings, augment):
    options = {"augment": augment, "seed": 3}
    files = samples(table, framings, **options)
    assert equal(files, samples(table, framings, MemoryStore.of(table, framings), **options))
    reductions = reductions_of(table, framings)
    cache = build_cache(table, tmp_path / "cache", framings, codec="lossless", reductions=reductions)
    assert cache.lossless
    some = build_cache(table.where(lambda r: r.id == "c1"), tmp_path / "some", framings, codec="lossless",
                       reductions=reductions)
    assert equal(files, samples(table, framings, cache, **options))
    assert equal(files, samples(table, framings, BackedStore(some, FileStore(table.views, reductions)), **options))
    whole = build_cache(table, tmp_path / "whole", framings, codec="raw")
    assert equal(files, samples(table, framings, whole, **options))
    sizes = {cache.read(table[0], v).shape[1] for v in reductions}
    assert all(size < 60 for size in sizes)


def test_a_crop_to_valid_readings_does_not_depend_on_whether_depth_is_read_beside_it(table):
    valid = SMALL.replace(region="valid")
    both = {"rgb": valid, "depth": SMALL}
    alone = [ClipSet(table, {"rgb": valid})[0, i]["clips"]["rgb"] for i in range(3)]
    for store in (None, MemoryStore.of(table, both)):
        beside = ClipSet(table, both, store=store)
        assert equal(alone, [beside[0, i]["clips"]["rgb"] for i in range(3)])


@pytest.mark.parametrize("view", ["rgb", "depth", "flow"])
def test_prediction_of_files_and_arrays_gives_the_clip_of_evaluation(table, view):
    alone = table.map(lambda r: replace(r, tracks={view: replace(r.tracks[view], space="")}))
    for row in alone:
        frames = np.load(row.tracks[view].path)
        made = ClipSet(alone.where(lambda r, row=row: r.id == row.id), {view: SMALL})[0, 0]["clips"][view].astype(np.float32)
        for recording in (row.tracks[view], row.tracks[view].path, frames):
            np.testing.assert_array_equal(clips_of(recording, KINDS[view], SMALL, Protocol())[0].numpy(), made)
        framer = Framer(KINDS[view], SMALL.replace(frames=1))
        images = frames if frames.ndim == 4 else frames[..., None]
        one_by_one = np.concatenate([framer(images[t : t + 1], centered(), Geometry())[0] for t in (0, 2, 4)], 1)
        np.testing.assert_array_equal(one_by_one.astype(np.float32), made)


@pytest.mark.parametrize("height", [16, 30, 47, 48, 49, 95, 96, 97, 200, 721, 1080])
@pytest.mark.parametrize("needed", [16, 12.3, 0.4, 1, 1.2])
def test_a_reduced_image_is_not_reduced_again(height, needed):
    reduction, width = Reduction(needed), round(height * 1.37)
    small = reduction.size(height, width)
    assert reduction.size(*small) == small
    assert (small == (height, width)) == (height < 3 * needed)
    if small != (height, width):
        assert small[0] == np.ceil(2 * needed)
    assert reduction.size(width, height) == small[::-1]


def test_images_below_three_times_the_need_and_crops_to_valid_readings_stay_as_they_are():
    image = np.zeros((47, 90, 1), np.uint16)
    assert Reduction(16).image(image, KINDS["depth"]) is image
    big = np.zeros((1000, 1000, 1), np.uint16)
    assert Reduction.of(SMALL.replace(region="valid"), KINDS["depth"]).image(big, KINDS["depth"]) is big
    assert not Reduction.of(Framing(frames=3, size=1), modality("pose"))
    assert Reduction.of(Framing(size=112, crop_ratio=0.875), KINDS["rgb"]).needed == 128


def test_a_map_that_enlarges_shows_less_and_keeps_more():
    reduction = Reduction(16)
    assert reduction.size(100, 100, (1.0, 0, 0, 0, 1.0, 0)) == (32, 32)
    assert reduction.size(100, 100, (2.0, 0, 0.5, 0, 2.0, 0)) == (64, 64)
    assert reduction.size(100, 100, (3.0, 0, 0.5, 0, 3.0, 0)) == (100, 100)


def test_a_centered_clip_is_the_average_of_the_area_that_it_shows():
    image = np.random.default_rng(0).integers(0, 255, (1, 64 * 8, 64 * 8, 1)).astype(np.uint8)
    clip, _ = Framer(KINDS["nir"], Framing(frames=1, size=64))(image, centered(), Geometry())
    truth = image[0, ..., 0].reshape(64, 8, 64, 8).mean((1, 3))
    assert np.abs(clip[0, 0] - truth).max() <= 1.5


def test_averages_leave_out_invalid_readings():
    frame = np.full((8, 12, 1), 2000, np.uint16)
    frame[:, :5] = 0
    small = shrink(frame, 4, 6, KINDS["depth"])
    assert small.shape == (4, 6, 1)
    assert set(np.unique(small)) == {0, 2000}
    assert shrink(frame, 8, 12, KINDS["depth"]) is frame


def test_flow_is_scaled_with_its_image():
    flow = np.broadcast_to(np.array([6.0, -3.0], np.float32), (60, 90, 2)).copy()
    np.testing.assert_allclose(shrink(flow, 20, 45, KINDS["flow"])[7, 7], [3.0, -1.0])
    clip, _ = Framer(KINDS["flow"], SMALL)(flow[None], centered(), Geometry())
    np.testing.assert_allclose(clip[:, 0, 8, 8], [6 * 16 / 60, -3 * 16 / 60], rtol=1e-5)


def test_a_cache_of_a_given_shorter_side_scales_flow(table, tmp_path):
    made = build_cache(table, tmp_path / "cache", ["flow"], short_side=30)
    full, small = images("flow", 120, 90), made.read(table[1], "flow")
    assert small.shape[1:3] == (40, 30)
    np.testing.assert_allclose(small.mean((0, 1, 2)), full.mean((0, 1, 2)) / 3, rtol=0.02)


def test_frames_that_were_reduced_for_another_framing_are_refused(table):
    store = MemoryStore.of(table, {"nir": SMALL})
    with pytest.raises(ModaliftError, match=r"view 'nir': the frames .* were reduced for another framing"):
        ClipSet(table, {"nir": SMALL.replace(size=24)}, store=store)
    ClipSet(table, {"nir": SMALL.replace(frames=2)}, store=store)


def test_a_long_recording_is_reduced_while_it_is_decoded(tmp_path):
    """At no time are many frames held at their full size."""
    tracemalloc = pytest.importorskip("tracemalloc")
    path = write(tmp_path / "long.mkv", "mjpeg", "yuvj420p", frames=60, size=480)
    table = build_table("long", ("x",), {"rgb": modality("rgb")}, [Row("a", 0, "s", "train", {"rgb": Track(path)})])
    framings = {"rgb": Framing(frames=60, size=24, sampler="whole")}
    tracemalloc.start()
    try:
        store = MemoryStore.of(table, framings)
        held, peak = store.bytes, tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        ClipSet(table, framings)[0, 0]
        peak = max(peak, tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert held == 60 * 48 * 48 * 3
    assert estimate_bytes(table, framings) == held
    assert peak < 12 * 480 * 480 * 3, "of 60 frames"
