"""Frames of an event: segments, windows, padding, and synchrony between sensors of unlike rates."""

from __future__ import annotations

import numpy as np
import pytest

from modalift.errors import ModaliftError
from modalift.loading.framing import Framing
from modalift.loading.sampling import BLANK, Clock, TemporalDraw, centered, positions, sample


def dense(frames, pad="edge", stride=1):
    return Framing(frames=frames, size=8, sampler="dense", pad=pad, stride=stride)


def test_segments_look_at_centers_in_test_and_inside_each_segment_in_training():
    framing = Framing(frames=4, size=8)
    assert positions(40, framing, centered()).tolist() == [5, 15, 25, 35]
    seen = np.stack([positions(40, framing, sample(4, np.random.default_rng(s))) for s in range(200)])
    for segment in range(4):
        assert set(seen[:, segment]) <= set(range(10 * segment, 10 * segment + 10))
        assert len(set(seen[:, segment])) == 10, "every frame of a segment is reached"


def test_a_clip_shorter_than_its_segments_repeats_frames():
    assert positions(1, Framing(frames=4, size=8), centered()).tolist() == [0] * 4
    assert positions(2, Framing(frames=4, size=8), centered()).tolist() == [0, 0, 1, 1]


def test_temporal_crops_are_spread_evenly_and_a_single_one_is_the_center():
    framing = Framing(frames=2, size=8)
    assert [positions(20, framing, centered(k, 2)).tolist() for k in range(2)] == [[2, 12], [7, 17]]
    starts = [int(positions(20, dense(10), centered(k, 3))[0]) for k in range(3)]
    assert starts[0] < starts[1] == int(positions(20, dense(10), centered())[0]) == 5 < starts[2]
    assert starts[1] - starts[0] == pytest.approx(starts[2] - starts[1], abs=1)


def test_a_dense_window_reaches_every_place_and_keeps_its_stride():
    seen = [positions(12, dense(3, stride=2), sample(3, np.random.default_rng(s))) for s in range(300)]
    assert all(np.diff(p).tolist() == [2, 2] for p in seen)
    assert {int(p[0]) for p in seen} == set(range(8))


def test_padding_of_short_clips():
    assert positions(3, dense(6, "edge"), centered()).tolist() == [0, 0, 0, 1, 2, 2]
    assert positions(3, dense(6, "zeros"), centered()).tolist() == [BLANK, BLANK, 0, 1, 2, BLANK]
    assert positions(3, dense(7, "loop"), centered()).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_zeros_stand_at_random_sides_in_training_and_at_both_alike_in_test():
    fronts = {int((positions(4, dense(8, "zeros"), sample(8, np.random.default_rng(s))) == 0).argmax())
              for s in range(100)}
    assert fronts == {0, 1, 2, 3, 4}
    assert positions(4, dense(8, "zeros"), centered()).tolist() == [BLANK] * 2 + [0, 1, 2, 3] + [BLANK] * 2


@pytest.mark.parametrize("framing", [Framing(frames=8, size=8), dense(8), dense(8, stride=3)])
@pytest.mark.parametrize("seed", range(20))
def test_sensors_of_unlike_rates_see_the_same_time(framing, seed):
    when = sample(8, np.random.default_rng(seed), speed=(0.7, 1.2), warp=0.5)
    color = positions(80, framing, when, Clock(reference=80))
    infrared = positions(93, framing, when, Clock(reference=80))
    assert np.abs((color + 0.5) / 80 - (infrared + 0.5) / 93).max() < 1 / 80


def test_views_of_unlike_lengths_share_the_draw_and_do_not_disturb_each_other():
    """The student's frames are the same whether or not a teacher with more frames is read beside it."""
    alone, beside = sample(8, np.random.default_rng(3)), sample(32, np.random.default_rng(3))
    assert positions(50, Framing(frames=8, size=8), alone).tolist() == positions(50, Framing(frames=8, size=8), beside).tolist()
    assert positions(50, dense(8), alone).tolist() == positions(50, dense(8), beside).tolist()


def test_a_clock_that_is_ahead_shifts_the_frames_and_stays_inside():
    framing = Framing(frames=5, size=8)
    plain = positions(100, framing, centered())
    assert (positions(100, framing, centered(), Clock(shift=3.0)) - plain).tolist() == [3] * 5
    assert positions(100, framing, centered(), Clock(shift=50.0)).max() == 99
    assert positions(100, framing, centered(), Clock(shift=-500.0)).tolist() == [0] * 5


def test_timestamps_outrank_frame_numbers():
    """A camera that stood still for the first half of the event: most of its frames show the second half."""
    times = np.r_[0.0, np.linspace(5, 9.5, 10)]
    found = positions(11, Framing(frames=4, size=8), centered(), Clock(times=times))
    # Each frame is shown until the next one: the event lasts 9.5 * 11 / 10 s.
    middles = np.array([0.125, 0.375, 0.625, 0.875]) * 10.45
    assert found.tolist() == [int(np.flatnonzero(times <= m)[-1]) for m in middles]
    assert found[:2].tolist() == [0, 0]


def test_speed_chooses_a_share_of_the_event_and_warping_keeps_its_order():
    half = TemporalDraw(np.array([0.5]), window_position=0.0, speed=0.5)
    assert positions(100, Framing(frames=5, size=8), half).max() < 50
    late = TemporalDraw(np.array([0.5]), window_position=1.0, speed=0.5)
    assert positions(100, Framing(frames=5, size=8), late).min() >= 50
    bent = positions(1000, Framing(frames=50, size=8), TemporalDraw(np.array([0.5]), warp=0.95))
    assert (np.diff(bent) > 0).all()
    assert bent[0] == pytest.approx(10, abs=10)
    assert bent[-1] == pytest.approx(990, abs=10)


def test_whole_is_every_frame():
    assert positions(7, Framing(frames=3, size=8, sampler="whole"), centered()).tolist() == list(range(7))


@pytest.mark.parametrize(("field", "value", "said"), [
    ("frames", 0, "framing.frames"), ("size", -1, "framing.size"), ("sampler", "segment", "did you mean 'segments'"),
    ("pad", "zero", "did you mean 'zeros'"), ("region", "box", "'whole' or 'valid'"), ("fit", "", "framing.fit"),
    ("crop_ratio", 0.0, "framing.crop_ratio"), ("margin", -0.1, "framing.margin")])
def test_a_wrong_framing_is_named(field, value, said):
    with pytest.raises(ModaliftError, match=said.replace(".", r"\.")):
        Framing(**{"frames": 4, "size": 8, field: value})
