"""One function makes a network's clip: a data set, a single recording and a stream receive the same from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from modalift.errors import ModaliftError
from modalift.loading.clips import ClipSet
from modalift.loading.framer import Framer, Placement
from modalift.loading.framing import Augment, Framing, Protocol
from modalift.loading.recording import as_frames, clips_of
from modalift.loading.sampling import Clock, centered
from modalift.loading.stores import MemoryStore
from modalift.loading.transforms import Geometry, crop_geometry
from modalift.modalities import Row, Table, Track, modality

FRAMES = 11
AFFINE = (0.8, 0.05, 0.1, 0.0, 1.1, -0.05)
SAMPLERS = [{}, {"sampler": "dense"}, {"sampler": "dense", "stride": 2}, {"sampler": "whole"},
            {"sampler": "dense", "frames": 16}, {"sampler": "dense", "frames": 16, "pad": "zeros"},
            {"sampler": "dense", "frames": 16, "pad": "loop"}]
PICTURES = [("rgb", {}), ("rgb", {"fit": "stretch", "low_light": "gamma"}), ("thermal", {"crop_ratio": 0.5}), ("depth", {}),
            ("depth", {"region": "valid"}), ("depth", {"region": "valid", "margin": 0.4, "fit": "stretch"}), ("flow", {}),
            ("imu", {"size": 1})]


def recorded(view: str) -> np.ndarray:
    """Frames whose content tells where and when they are; depth with a person who walks through an empty room."""
    rng = np.random.default_rng(3)
    if view == "imu":
        return rng.normal(size=(FRAMES, 1, 1, 6)).astype(np.float32)
    if view == "depth":
        frames = np.zeros((FRAMES, 30, 44, 1), np.uint16)
        for t, frame in enumerate(frames):
            frame[6:24, 4 + 2 * t:14 + 2 * t] = rng.integers(1500, 2500, (18, 10, 1))
        return frames
    if view == "flow":
        return rng.normal(size=(FRAMES, 30, 44, 2)).astype(np.float32)
    return rng.integers(0, 256, (FRAMES, 30, 44, 3 if view == "rgb" else 1)).astype(np.uint8)


def from_clip_set(frames: np.ndarray, view: str, framing: Framing, protocol: Protocol, track: Track) -> np.ndarray:
    table = Table("t", (), {view: modality(view)}, (Row("x", None, "", "test", {view: track}),))
    clips = ClipSet(table, {view: framing}, store=MemoryStore({("x", view): frames}), protocol=protocol)
    return np.stack([clips[0, 0, t, c]["clips"][view] for t in range(protocol.temporal_crops)
                     for c in range(protocol.spatial_crops)]).astype(np.float32)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: " ".join(map(str, s.values())) or "segments")
@pytest.mark.parametrize(("view", "image"), PICTURES, ids=lambda p: str(p))
@pytest.mark.parametrize("crops", [(1, 1), (2, 3), (3, 5)])
def test_a_recording_gives_the_clips_of_a_data_set(tmp_path: Path, view, image, sampler, crops):
    frames, kind = recorded(view), modality(view, channels=6) if view == "imu" else modality(view)
    framing = Framing(**{"frames": 5, "size": 16, **sampler, **image})
    protocol = Protocol(temporal_crops=crops[0], spatial_crops=crops[1])
    expected = from_clip_set(frames, view, framing, protocol, Track(Path("x")))
    from_memory = clips_of(frames[:, 0, 0] if view == "imu" else frames, kind, framing, protocol)
    assert torch.equal(from_memory, torch.from_numpy(expected))
    np.save(tmp_path / "x.npy", frames)
    assert torch.equal(clips_of(tmp_path / "x.npy", kind, framing, protocol), from_memory)
    if crops == (2, 3) and not (view == "imu" or sampler.get("sampler") == "whole" or framing.frames == 16):
        assert len(np.unique(expected.reshape(6, -1), axis=0)) > 1, "the crops differ"


@pytest.mark.parametrize("region", ["whole", "valid"])
def test_a_track_keeps_its_window_its_clock_and_its_place_in_the_space(tmp_path: Path, region):
    frames, kind = recorded("depth"), modality("depth")
    np.save(tmp_path / "x.npy", np.concatenate([frames[:2], frames, frames[:3]]))
    framing = Framing(frames=4, size=16, region=region)
    for clock in ({}, {"rate": 10.0, "offset_ms": 150.0},
                  {"timestamps": tuple(np.cumsum(np.random.default_rng(0).random(FRAMES))), "offset_ms": -300.0}):
        track = Track(tmp_path / "x.npy", start=2, end=2 + FRAMES, space="rig", affine=AFFINE, **clock)
        protocol = Protocol(temporal_crops=2, spatial_crops=3)
        found = clips_of(track, kind, framing, protocol)
        assert np.array_equal(found, from_clip_set(frames, "depth", framing, protocol, track))
        assert not torch.equal(found, clips_of(frames, kind, framing, protocol))
    with pytest.raises(ModaliftError, match=r"x\.npy: has offset_ms 5 but no rate"):
        clips_of(Track(tmp_path / "x.npy", offset_ms=5.0), kind, framing, Protocol())


@pytest.mark.parametrize(("view", "image"), PICTURES, ids=lambda p: str(p))
def test_frames_that_come_one_by_one_are_those_of_the_clip(view, image):
    frames, kind = recorded(view), modality(view)
    framing = Framing(**{"frames": 6, "size": 16, "sampler": "dense", **image})
    expected = from_clip_set(frames[:6], view, framing, Protocol(), Track(Path("x")))[0]
    single = Framer(kind, framing.replace(frames=1, sampler="segments"))
    placement = single.locate(frames[:6])
    clips = [single(frame[None], centered(), Geometry(), placement=placement)[0] for frame in frames[:6]]
    assert np.array_equal(np.concatenate(clips, axis=1), expected)


def test_a_view_in_the_space_of_another_is_placed_by_it():
    """The aspect and the box of the space's own image decide, as a Placement says them."""
    frames, kind = recorded("rgb"), modality("rgb")
    framing = Framing(frames=4, size=16, region="valid")
    rig = {"depth": Track(Path("d"), space="rig"), "rgb": Track(Path("r"), space="rig", affine=AFFINE)}
    table = Table("t", (), {"depth": modality("depth"), "rgb": kind}, (Row("x", None, "", "test", rig),))
    store = MemoryStore({("x", "depth"): recorded("depth")[:, :, 4:40], ("x", "rgb"): frames})
    found = ClipSet(table, {"rgb": framing}, store=store)[0, 0]["clips"]["rgb"]
    box = Framer(modality("depth"), framing).locate(store.arrays["x", "depth"]).box
    framer = Framer(kind, framing)
    made, valid = framer(frames, centered(), Geometry(), placement=Placement(36 / 30, AFFINE, box))
    assert valid is None
    assert np.array_equal(found, made)
    assert not np.array_equal(made, framer(frames, centered(), Geometry(), placement=Placement(None, AFFINE, box))[0])
    assert not np.array_equal(made, framer(frames, centered(), Geometry(), placement=Placement(36 / 30, None, box))[0])
    with pytest.raises(ModaliftError, match="region 'valid' needs a sensor that marks missing readings"):
        clips_of(frames, kind, framing, Protocol())


def test_a_dense_window_counts_the_frames_of_the_first_view():
    frames, kind = recorded("thermal"), modality("thermal")
    framer = Framer(kind, Framing(frames=3, size=16, sampler="dense"))
    own, _ = framer(frames, centered(), Geometry())
    half, _ = framer(frames, centered(), Geometry(), clock=Clock(reference=22))
    assert np.array_equal(own, framer(frames, centered(), Geometry(), clock=Clock(reference=FRAMES))[0])
    assert len(np.unique(half.reshape(3, -1), axis=0)) == 2, "three frames of the first view span two of this one"


def test_random_changes_need_their_own_generator_and_leave_frames_as_they_are():
    frames, kind = recorded("rgb"), modality("rgb")
    before = frames.copy()
    framer, augment = Framer(kind, Framing(frames=3, size=16)), Augment(brightness=0.5, noise=10)
    made = [framer(frames, centered(), Geometry(), augment=augment, rng=np.random.default_rng(s))[0] for s in (1, 1, 2)]
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    assert np.array_equal(frames, before)
    assert np.array_equal(framer(frames, centered(), Geometry(), augment=augment)[0], framer(frames, centered(), Geometry())[0])


def test_crops_lie_along_the_longer_side_of_the_picture():
    """Readings that grow downwards: the crops of an upright image differ in them, those of a lying one do not."""
    upright = np.broadcast_to((1000 + 10 * np.arange(80, dtype=np.uint16))[None, :, None, None], (4, 80, 60, 1))
    lying = np.broadcast_to((1000 + 10 * np.arange(60, dtype=np.uint16))[None, :, None, None], (4, 60, 80, 1))
    framer = Framer(modality("depth"), Framing(frames=1, size=16, crop_ratio=0.4))
    tall, wide = ([float(framer(f, centered(), crop_geometry(c, 3))[0].mean()) for c in range(3)] for f in (upright, lying))
    assert tall == pytest.approx([1115, 1395, 1675], abs=1)
    assert wide == pytest.approx([1295] * 3, abs=1)


@pytest.mark.parametrize("shape", [(4,), (4, 8, 8, 3, 1), (4, 8, 8, 2), (0, 8, 8, 1)])
def test_arrays_of_another_shape_are_refused(shape):
    with pytest.raises(ModaliftError, match=r"^array"):
        as_frames(np.zeros(shape, np.uint8), modality("thermal"))
