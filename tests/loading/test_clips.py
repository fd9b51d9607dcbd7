"""From a table to batches: what chance decides, what views share, what is absent, and in which order clips come."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from modalift.errors import ModaliftError
from modalift.loading.clips import ClipSet
from modalift.loading.collation import collate, loader
from modalift.loading.epoch_sampler import EpochSampler
from modalift.loading.framing import Augment, Framing, Protocol
from modalift.loading.stores import MemoryLimitError, MemoryStore
from modalift.modalities import Row, Table, Track, build_table, modality

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
STRONG = Augment.strong().replace(noise=0.0)
VIEWS = {"rgb": modality("rgb"), "depth": modality("depth"), "nir": modality("nir"), "pose": modality("pose", 9)}
SIDE = 48


def dotted(rows: int = 6, frames: int = 10) -> tuple[Table, MemoryStore]:
    """Clips with one bright dot: aligned rgb and depth, a near-infrared camera of its own space, and joints."""
    arrays, made = {}, []
    for i in range(rows):
        y, x = 14 + 3 * i, 30 - 2 * i
        dot = np.zeros((frames, SIDE, SIDE, 1), np.uint8)
        dot[:, y - 3 : y + 4, x - 3 : x + 4] = 200
        name = f"c{i}"
        arrays[name, "rgb"] = np.repeat(dot, 3, 3)
        arrays[name, "depth"] = np.where(dot > 0, 1000, 3000).astype(np.uint16)
        arrays[name, "nir"] = dot
        arrays[name, "pose"] = np.random.default_rng(i).normal(size=(2 * frames, 1, 1, 9)).astype(np.float32)
        tracks = {"rgb": Track(Path("r"), space="kinect"), "depth": Track(Path("d"), space="kinect"),
                  "nir": Track(Path("n")), "pose": Track(Path("p"))}
        made.append(Row(name, i % 3, f"s{i % 2}", "train", tracks))
    return build_table("dotted", ("left", "right", "stop"), VIEWS, made, {0: 1, 1: 0}), MemoryStore(arrays)


def center(clip: np.ndarray, near: bool = False) -> tuple[float, float]:
    """Where the dot is, (x, y), in the first frame."""
    weight = (clip[0, 0] < 2000) & (clip[0, 0] > 0) if near else clip[0, 0] > 100
    y, x = np.nonzero(weight)
    return float(x.mean()), float(y.mean())


def clips(framings=None, augment=STRONG, keep=lambda t: t, **options) -> ClipSet:
    table, store = dotted()
    framings = framings or {"pose": Framing(frames=6, size=1),
                            **dict.fromkeys(("rgb", "depth", "nir"), Framing(frames=4, size=32))}
    return ClipSet(keep(table), framings, **{"augment": augment, "seed": 5, "store": store, **options})


def same(a, b) -> bool:
    return all(np.array_equal(a["clips"][v], b["clips"][v]) for v in a["clips"]) and a["label"] == b["label"]


def equal(a, b) -> bool:
    return (all(torch.equal(a.clips[v], b.clips[v]) for v in a.clips) and torch.equal(a.index, b.index)
            and all(torch.equal(a.valid[v], b.valid[v]) for v in a.valid) and torch.equal(a.labels, b.labels))


# ---- a sample ----------------------------------------------------------------------------------------------------


def test_shapes_types_and_masks():
    sample = clips()[0, 1]
    assert {v: (c.shape, c.dtype.name) for v, c in sample["clips"].items()} == {
        "rgb": ((3, 4, 32, 32), "uint8"), "depth": ((1, 4, 32, 32), "float32"), "nir": ((1, 4, 32, 32), "uint8"),
        "pose": ((9, 6, 1, 1), "float32")}
    assert set(sample["valid"]) == {"depth"}
    assert sample["valid"]["depth"].shape == (1, 4, 32, 32)
    assert all(c.flags.c_contiguous for c in sample["clips"].values())


def test_views_of_one_space_move_together_and_others_on_their_own():
    data = clips()
    apart = []
    for epoch in range(20):
        seen = data[epoch, 3]["clips"]
        assert center(seen["rgb"]) == pytest.approx(center(seen["depth"], near=True), abs=0.6)
        apart.append(np.hypot(*np.subtract(center(seen["rgb"]), center(seen["nir"]))))
    assert np.median(apart) > 1.0
    assert len({center(data[e, 3]["clips"]["rgb"]) for e in range(20)}) == 20


def test_chance_depends_on_seed_epoch_and_clip_only():
    assert same(clips()[2, 1], clips()[2, 1])
    assert not same(clips()[2, 1], clips()[3, 1])
    assert not same(clips()[2, 1], clips(seed=6)[2, 1])


def test_a_view_comes_out_the_same_whichever_views_are_read_beside_it():
    alone = clips({"depth": Framing(frames=4, size=32)})[1, 2]
    beside = clips()[1, 2]
    assert np.array_equal(alone["clips"]["depth"], beside["clips"]["depth"])


def test_the_clip_of_a_row_does_not_change_when_others_are_left_out():
    whole, rest = clips(), clips(skip={"c0", "c2"})
    assert rest.indices == [1, 3, 4, 5]
    assert len(rest) == 4
    assert same(whole[1, 3], rest[1, 1])
    assert rest[1, 1]["index"] == 3


def test_without_augmentation_nothing_is_left_to_chance():
    data = clips(augment=None)
    assert same(data[0, 2], data[7, 2])


def test_temporal_and_spatial_crops():
    data = clips({"nir": Framing(frames=2, size=24, crop_ratio=0.5)}, augment=None,
                 protocol=Protocol(temporal_crops=2, spatial_crops=3))
    seen = [data[0, 0, t, c]["clips"]["nir"] for t in range(2) for c in range(3)]
    assert len({s.tobytes() for s in seen[:3]}) == 3
    assert np.array_equal(seen[0], seen[3]), "this clip stands still"
    order = EpochSampler(data, shuffle=False, seed=0, epoch=0)
    assert list(order)[:7] == [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 2), (0, 0, 1, 0), (0, 0, 1, 1), (0, 0, 1, 2),
                               (0, 1, 0, 0)]
    assert len(order) == 36


# ---- mirrors -----------------------------------------------------------------------------------------------------

FLIP = Augment(flip=1.0)
SEEN = {"rgb": Framing(frames=4, size=SIDE), "depth": Framing(frames=4, size=SIDE), "nir": Framing(frames=4, size=SIDE)}


def test_a_mirror_image_swaps_the_label_and_mirrors_every_view_of_every_space():
    data, plain = clips(SEEN, FLIP), clips(SEEN, Augment())
    for i, label in ((0, 1), (1, 0)):
        sample, before = data[0, i], plain[0, i]
        assert sample["label"] == label
        for view in SEEN:
            assert np.array_equal(sample["clips"][view], before["clips"][view][..., ::-1]), view


def test_a_label_without_a_mirror_image_is_left_as_it_is():
    assert same(clips(SEEN, FLIP)[0, 2], clips(SEEN, Augment())[0, 2])


def test_a_view_that_cannot_be_mirrored_forbids_it():
    framings = {"nir": Framing(frames=4, size=SIDE), "pose": Framing(frames=4, size=1)}
    assert not clips(framings, FLIP).mirrors
    assert same(clips(framings, FLIP)[0, 0], clips(framings, Augment())[0, 0])


def test_unlabeled_clips_are_mirrored_only_where_every_class_survives():
    def hide(table):
        return table.map(lambda r: dataclasses.replace(r, label=None))

    assert same(clips(SEEN, FLIP, hide)[0, 0], clips(SEEN, Augment(), hide)[0, 0])

    def all_survive(table):
        return dataclasses.replace(hide(table), mirrored={0: 1, 1: 0, 2: 2})

    sample = clips(SEEN, FLIP, all_survive)[0, 0]
    assert not same(sample, clips(SEEN, Augment(), all_survive)[0, 0])
    assert sample["label"] == -1


# ---- holes, absences, lengths ------------------------------------------------------------------------------------


def test_an_absent_view_is_zeros_and_said_so():
    def drop(table):
        return table.map(lambda r: r if r.id != "c1" else dataclasses.replace(
            r, label=None, tracks={v: t for v, t in r.tracks.items() if v == "nir"}))

    batch = collate([clips(keep=drop)[0, i] for i in (0, 1)])
    assert batch.present["depth"].tolist() == [True, False]
    assert batch.present["nir"].tolist() == [True, True]
    assert not batch.clips["depth"][1].any()
    assert not batch.valid["depth"][1].any()
    assert batch.clips["pose"].shape == (2, 9, 6, 1, 1)
    assert batch.labels.tolist() == [0, -1]
    assert batch.labeled.tolist() == [True, False]


def test_channels_of_an_absent_signal_are_those_of_the_others():
    table, store = dotted()
    table = dataclasses.replace(table, views={**VIEWS, "pose": modality("pose")})
    table = table.map(lambda r: r if r.id != "c0" else dataclasses.replace(r, tracks={"nir": r.tracks["nir"]}))
    assert ClipSet(table, {"pose": Framing(frames=6, size=1)}, store=store)[0, 0]["clips"]["pose"].shape == (9, 6, 1, 1)


def test_blank_frames_are_zero_and_invalid_whatever_the_augmentation():
    augment = Augment.strong().replace(speed=(1, 1), warp=0)
    framings = dict.fromkeys(("depth", "nir"), Framing(frames=16, size=16, sampler="dense", pad="zeros"))
    fronts = set()
    for epoch in range(12):
        sample = clips(framings, augment)[epoch, 0]
        blank = ~sample["valid"]["depth"].any(axis=(0, 2, 3))
        assert blank.sum() == 6
        assert not sample["clips"]["depth"][:, blank].any()
        assert not sample["clips"]["nir"][:, blank].any(), "noise does not fill them"
        assert sample["clips"]["nir"][:, ~blank].any(axis=(0, 2, 3)).all()
        fronts.add(int((~blank).argmax()))
    assert len(fronts) > 3


@pytest.mark.parametrize(("pad", "tail"), [("edge", [3, 3]), ("zeros", [0, 0]), ("loop", [1, 2])])
def test_whole_clips_of_a_batch_are_padded_to_the_longest(pad, tail):
    arrays = {(n, "imu"): np.arange(1, k + 1, dtype=np.float32).reshape(-1, 1, 1, 1) for n, k in (("a", 3), ("b", 5))}
    rows = [Row(n, 0, "s", "train", {"imu": Track(Path("i"))}) for n in "ab"]
    table = build_table("t", ("x",), {"imu": modality("imu", 1)}, rows)
    data = ClipSet(table, {"imu": Framing(frames=9, size=1, sampler="whole", pad=pad)}, store=MemoryStore(arrays))
    batch = collate([data[0, 0], data[0, 1]])
    assert batch.clips["imu"][0].flatten().tolist() == [1, 2, 3, *tail]
    assert batch.clips["imu"][1].flatten().tolist() == [1, 2, 3, 4, 5]


def test_sensors_of_unlike_rates_stay_synchronized():
    """Each frame holds the time at which it was taken, so the frames that were chosen tell when."""
    time = {"a": np.arange(80) / 30, "b": np.arange(93) / 35}
    arrays = {("c", v): t.astype(np.float32).reshape(-1, 1, 1, 1) for v, t in time.items()}
    tracks = {"a": Track(Path("a"), rate=30), "b": Track(Path("b"), rate=35)}
    table = build_table("t", ("x",), dict.fromkeys("ab", modality("imu", 1)), [Row("c", 0, "s", "train", tracks)])
    for framing in (Framing(frames=16, size=1), Framing(frames=16, size=1, sampler="dense", stride=2)):
        data = ClipSet(table, {"a": framing, "b": framing}, augment=Augment(speed=(0.8, 1.2)), store=MemoryStore(arrays))
        for epoch in range(10):
            seen = data[epoch, 0]["clips"]
            assert np.abs(seen["a"] - seen["b"]).max() < 0.07


def test_an_offset_needs_a_rate_and_moves_the_frames():
    table, store = dotted(1)
    values = np.arange(20, dtype=np.float32).reshape(-1, 1, 1, 1).repeat(9, 3)
    store.arrays["c0", "pose"] = values

    def late(**change):
        return table.map(lambda r: dataclasses.replace(r, tracks={"pose": Track(Path("p"), **change)}))

    framing = {"pose": Framing(frames=5, size=1)}
    plain = ClipSet(late(), framing, store=store)[0, 0]["clips"]["pose"][0].ravel()
    moved = ClipSet(late(offset_ms=100, rate=20), framing, store=store)[0, 0]["clips"]["pose"][0].ravel()
    assert (moved - plain).tolist() == [2, 2, 2, 2, 1], "two frames late, and no frame after the last"
    with pytest.raises(ModaliftError, match="clip 'c0': p: has offset_ms 100 but no rate"):
        ClipSet(late(offset_ms=100), framing, store=store)[0, 0]


def test_the_valid_region_is_shared_with_its_space():
    """A person cut out by depth: the aligned colors are cut alike, and the box is looked for once."""
    arrays = {("c", "depth"): np.zeros((6, 60, 80, 1), np.uint16), ("c", "rgb"): np.zeros((6, 60, 80, 3), np.uint8)}
    arrays["c", "depth"][:, 10:30, 50:60] = 1500
    arrays["c", "rgb"][:, 10:30, 50:60] = 250
    reads: list[str] = []

    class Counting(MemoryStore):
        def read(self, row, view, frames=None):
            reads.append(view)
            return super().read(row, view, frames)

    tracks = {"rgb": Track(Path("r"), space="k"), "depth": Track(Path("d"), space="k")}
    table = build_table("t", ("x",), {v: VIEWS[v] for v in ("rgb", "depth")}, [Row("c", 0, "s", "train", tracks)])
    framing = Framing(frames=3, size=40, region="valid", margin=0.0)
    data = ClipSet(table, {"rgb": framing}, store=Counting(arrays))
    clip = data[0, 0]["clips"]["rgb"]
    assert clip[0, 0, 20, 20] == 250
    rows, columns = (np.flatnonzero((clip[0, 0] > 125).any(k)) for k in (1, 0))
    assert (len(rows), len(columns)) == (40, 20)
    data[1, 0]
    assert reads == ["depth", "rgb", "rgb"], "the box was read once"
    alone = dataclasses.replace(table, rows=(dataclasses.replace(table[0], tracks={"rgb": Track(Path("r"))}),))
    with pytest.raises(ModaliftError, match="region 'valid' of view 'rgb' needs a view that marks missing readings"):
        ClipSet(alone, {"rgb": framing}, store=MemoryStore(arrays))


# ---- loading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "system"), [(1, "linux"), (2, "linux"), (2, "darwin")])
def test_batches_are_bit_identical_for_any_number_of_workers(workers, system, monkeypatch):
    monkeypatch.setattr("modalift.loading.collation.sys.platform", system)  # others than Linux do not fork
    here = list(loader(clips(augment=Augment.strong()), batch=2, shuffle=True, seed=3, epoch=4))
    there = list(loader(clips(augment=Augment.strong()), batch=2, shuffle=True, seed=3, epoch=4, workers=workers))
    assert len(here) == len(there) == 3
    assert all(equal(a, b) for a, b in zip(here, there, strict=True))


def test_loading_leaves_the_global_generators_alone():
    torch.manual_seed(1)
    np.random.seed(1)
    before, other = torch.get_rng_state(), np.random.get_state()[1].tolist()
    list(loader(clips(), batch=2, shuffle=True, seed=3, epoch=0, workers=1))
    list(loader(clips(), batch=2, shuffle=True, seed=3, epoch=0))
    assert torch.equal(before, torch.get_rng_state())
    assert np.random.get_state()[1].tolist() == other


def test_an_epoch_goes_on_where_it_stopped():
    whole = list(loader(clips(), batch=2, shuffle=True, seed=3, epoch=1))
    rest = list(loader(clips(), batch=2, shuffle=True, seed=3, epoch=1, start=2))
    assert len(rest) == 2
    assert all(equal(a, b) for a, b in zip(whole[1:], rest, strict=True))


def test_two_processes_read_what_one_reads():
    data = clips()
    alone = list(EpochSampler(data, shuffle=True, seed=3, epoch=1))
    pair = [list(EpochSampler(data, shuffle=True, seed=3, epoch=1, rank=r, world=2)) for r in range(2)]
    assert [k for step in zip(*pair, strict=True) for k in step] == alone
    later = [list(EpochSampler(data, shuffle=True, seed=3, epoch=1, start=2, rank=r, world=2)) for r in range(2)]
    assert [k for step in zip(*later, strict=True) for k in step] == alone[2:]


def test_processes_take_equally_many_steps_and_evaluation_leaves_nothing_out():
    data = clips()
    assert [len(EpochSampler(data, shuffle=True, seed=0, epoch=0, rank=r, world=4)) for r in range(4)] == [1] * 4
    seen = [k for r in range(4) for k in EpochSampler(data, shuffle=False, seed=0, epoch=0, rank=r, world=4)]
    assert sorted(seen) == [(0, i) for i in range(6)]


def test_epochs_and_seeds_have_their_own_orders():
    data = clips()
    orders = {tuple(i for _, i in EpochSampler(data, shuffle=True, seed=s, epoch=e)) for s in range(3) for e in range(3)}
    assert len(orders) > 6
    assert all(sorted(o) == list(range(6)) for o in orders)


# ---- what goes wrong ---------------------------------------------------------------------------------------------


def on_disk(root: Path) -> Table:
    for name in ("good", "bad", "fine"):
        np.save(root / f"{name}.npy", np.full((4, 8, 8), 7, np.uint8))
    (root / "bad.npy").write_bytes(b"")
    rows = [Row(n, 0, "s", "train", {"nir": Track(root / f"{n}.npy")}) for n in ("good", "bad", "fine")]
    return build_table("disk", ("x",), {"nir": modality("nir")}, rows)


def test_probe_names_corrupt_clips_and_leaves_them_out(tmp_path):
    data = ClipSet(on_disk(tmp_path), {"nir": Framing(frames=2, size=8)})
    assert list(data.find_corrupt(workers=2)) == ["bad"]
    assert "bad.npy" in data.corrupt["bad"]
    assert data.indices == [0, 2]
    assert [data[0, i]["index"] for i in range(len(data))] == [0, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_clip_that_turns_out_corrupt_is_named_in_one_line(tmp_path, workers):
    data = ClipSet(on_disk(tmp_path), {"nir": Framing(frames=2, size=8)})
    with pytest.raises(ModaliftError, match=r"^clip 'bad': .*bad\.npy") as caught:
        list(loader(data, batch=1, shuffle=False, seed=0, epoch=0, workers=workers))
    assert "\n" not in str(caught.value)


def test_memory_reads_everything_once_and_names_what_is_corrupt(tmp_path):
    data = ClipSet(on_disk(tmp_path), {"nir": Framing(frames=2, size=8)}, store="memory")
    assert list(data.corrupt) == ["bad"]
    (tmp_path / "good.npy").unlink()
    assert (data[0, 0]["clips"]["nir"] == 7).all()


def test_memory_says_when_it_is_too_small(tmp_path):
    table = on_disk(tmp_path).where(lambda r: r.id != "bad")
    with pytest.raises(MemoryLimitError, match="1 of 2 clips take"):
        MemoryStore.of(table, {"nir": Framing(frames=2, size=8)}, fits=lambda size: size < 200)


def test_memory_keeps_depth_without_its_surroundings(tmp_path):
    frames = np.zeros((3, 20, 30), np.uint16)
    frames[1, 4:9, 20:25] = 1234
    np.save(tmp_path / "d.npy", frames)
    np.save(tmp_path / "e.npy", np.zeros((2, 20, 30), np.uint16))
    rows = [Row(n, 0, "s", "train", {"depth": Track(tmp_path / f"{n}.npy")}) for n in "de"]
    store = MemoryStore.of(build_table("t", ("x",), {"depth": modality("depth")}, rows),
                           {"depth": Framing(frames=2, size=8)})
    assert store.bytes == 3 * 5 * 5 * 2
    assert np.array_equal(store.read(rows[0], "depth")[..., 0], frames)
    assert np.array_equal(store.read(rows[0], "depth", [1, 1, 0])[..., 0], frames[[1, 1, 0]])
    assert store.read(rows[1], "depth").shape == (2, 20, 30, 1)
    assert [store.length(r, "depth") for r in rows] == [3, 2]


@pytest.mark.parametrize(("options", "said"), [
    ({"framings": {"rbg": Framing(frames=2, size=8)}}, "no view 'rbg' - did you mean 'rgb'"), ({"seed": -1}, "seed is -1"),
    ({"skip": {f"c{i}" for i in range(6)}}, "no readable clip is left")])
def test_wrong_wishes_are_named(options, said):
    with pytest.raises(ModaliftError, match=said):
        clips(**options)


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ModaliftError, match="batch is 0"):
        loader(clips(), batch=0, shuffle=True, seed=0, epoch=0)


# ---- real recordings ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.exists(), reason="../shared with the real recordings is absent")
def test_real_depth_and_joints_of_people():
    root = SHARED / "data" / "utd_mhad_depth"
    with (root / "manifest.csv").open(newline="") as file:
        rows = [Row(r["clip_id"], int(r["label"]), r["subject"], r["split"], {
            "depth": Track(root / r["depth"]), "pose": Track(root / "skeleton.npz", key=r["clip_id"])})
            for r in list(csv.DictReader(file))[:400:100]]
    table = build_table("utd", [str(k) for k in range(27)],
                        {"depth": modality("depth"), "pose": modality("pose", 60)}, rows)
    framings = {"depth": Framing(frames=16, size=48, region="valid"), "pose": Framing(frames=32, size=1)}
    batch = next(iter(loader(ClipSet(table, framings), batch=4, shuffle=False, seed=0, epoch=0)))
    assert batch.clips["depth"].shape == (4, 1, 16, 48, 48)
    valid = batch.valid["depth"]
    assert 0.1 < valid.float().mean() < 0.6, "the person fills the box"
    readings = batch.clips["depth"][valid]
    assert readings.min() > 1000
    assert readings.max() < 5000, "millimeters, with nothing between person and hole"
    assert (valid.any(2).any(-1).float().sum(-1) > 40).all(), "from head to foot"
    assert torch.isfinite(batch.clips["pose"]).all()


def test_a_views_pixels_do_not_depend_on_which_other_views_are_read(tmp_path):
    """Two cameras of unlike shape in one space: each alone sees what it sees beside the other."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "rgb.npz", a=rng.integers(0, 255, (4, 54, 96, 3), dtype=np.uint8))
    np.savez(tmp_path / "depth.npz", a=rng.integers(500, 3000, (4, 60, 64)).astype(np.uint16))
    half = (0.8, 0.0, 0.1, 0.0, 1.1, 0.0)
    row = Row("a", 0, "s1", "train", {"rgb": Track(tmp_path / "rgb.npz", key="a", space="rig"),
                                      "depth": Track(tmp_path / "depth.npz", key="a", space="rig", affine=half)})
    table = build_table("rig", ["wave"], {"rgb": modality("rgb"), "depth": modality("depth")}, [row])
    framings = {"rgb": Framing(frames=4, size=32), "depth": Framing(frames=4, size=32)}
    both = ClipSet(table, framings, augment=STRONG, seed=1)[0, 0]["clips"]
    for view, framing in framings.items():
        alone = ClipSet(table, {view: framing}, augment=STRONG, seed=1)[0, 0]["clips"]
        np.testing.assert_array_equal(alone[view], both[view])
