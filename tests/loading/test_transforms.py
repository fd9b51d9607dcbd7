"""Geometry that aligned views share, depth without flying pixels, flow that turns with the image, light, signals."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from modalift.errors import ModaliftError
from modalift.loading.framing import Augment, Framing
from modalift.loading.transforms import (
    Geometry,
    Region,
    crop_geometry,
    photometric,
    pixel_map,
    sample_geometry,
    transform_signal,
    valid_box,
    warp,
)
from modalift.modalities import modality

RGB, DEPTH, FLOW, NIR = modality("rgb"), modality("depth"), modality("flow"), modality("nir")
WHOLE = Region(0.0, 0.0, 2.0, 2.0)


def through(frames, geometry, size, kind, framing=None, affine=None):
    height, width = frames.shape[1:3]
    aspect = width / height
    region = Region(0.0, 0.0, 2 * aspect, 2.0)
    matrix = pixel_map(geometry.matrix(region, framing or Framing(frames=1, size=size)), aspect, affine, width, height, size)
    return warp(frames, matrix, size, kind)


def rng(seed=0):
    return np.random.default_rng(seed)


# ---- geometry ----------------------------------------------------------------------------------------------------


def test_the_whole_square_picture_comes_out_as_it_is():
    frames = rng().integers(0, 256, (3, 20, 20, 3)).astype(np.uint8)
    out, valid = through(frames, Geometry(), 20, RGB)
    assert out.dtype == np.uint8
    assert valid is None
    assert np.array_equal(out, frames.transpose(3, 0, 1, 2))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels(channels):
    frames = rng().integers(0, 256, (2, 16, 16, channels)).astype(np.uint8)
    out, _ = through(frames, Geometry(), 16, RGB.with_channels(channels))
    assert np.array_equal(out, frames.transpose(3, 0, 1, 2))


def test_fit_short_crops_the_middle_and_stretch_keeps_all():
    frames = np.zeros((1, 10, 30, 1), np.uint8)
    frames[:, :, :10], frames[:, :, 10:20] = 50, 200
    out, _ = through(frames, Geometry(), 10, NIR)
    assert (out == 200).all()
    out, _ = through(frames, Geometry(), 10, NIR, Framing(frames=1, size=10, fit="stretch"))
    assert out[0, 0, 5, 0] == 50
    assert out[0, 0, 5, -1] == 0


def test_a_crop_ratio_is_resize_256_crop_224():
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, None, :, None], (1, 256, 1, 1))
    out, _ = through(ramp, Geometry(), 224, NIR, Framing(frames=1, size=224, crop_ratio=0.875))
    assert np.array_equal(out[0, 0, 100], np.arange(16, 240))


def test_corner_crops_stay_inside_and_touch_the_corner():
    for k, (x, y) in enumerate(((-1, -1), (1, -1), (-1, 1), (1, 1), (0, 0))):
        geometry = crop_geometry(k, 5)
        m = Geometry(side=0.5, position=geometry.position).matrix(WHOLE, Framing(frames=1, size=8))
        assert m[:2, 2].tolist() == [0.5 * x, 0.5 * y]


def test_three_crops_lie_along_the_longer_side():
    half = Framing(frames=1, size=8, crop_ratio=0.5)
    for region, centers in ((Region(0, 0, 6, 2), [(-2.5, 0), (0, 0), (2.5, 0)]),
                            (Region(0, 0, 2, 6), [(0, -2.5), (0, 0), (0, 2.5)])):
        matrices = [crop_geometry(k, 3).matrix(region, half) for k in range(3)]
        assert [tuple(m[:2, 2]) for m in matrices] == centers


def test_msd_scales_and_corners_are_all_drawn():
    augment = Augment(crop="corner", scales=(1, 7 / 8, 3 / 4, 2 / 3))
    drawn = [sample_geometry(augment, rng(s)) for s in range(200)]
    assert {g.side for g in drawn} == {1, 7 / 8, 3 / 4, 2 / 3}
    assert len({g.position for g in drawn}) == 5


def test_a_random_crop_stays_inside_and_reaches_the_edges():
    augment = Augment(crop="random", scale=(0.5, 0.5))
    m = [sample_geometry(augment, rng(s)).matrix(WHOLE, Framing(frames=1, size=8)) for s in range(300)]
    x = np.array([a[0, 2] for a in m])
    assert np.abs(x).max() <= 0.5
    assert x.min() < -0.48
    assert x.max() > 0.48


def test_no_augmentation_draws_the_identity():
    assert sample_geometry(Augment(), rng(5)) == Geometry()


def test_a_rotation_does_not_shear_a_picture_that_is_not_square():
    """A disc stays a disc in a 4:3 image, stretched pixels apart."""
    frames = np.zeros((1, 90, 120, 1), np.uint8)
    cv2.circle(frames[0], (60, 45), 20, 255, -1)
    out, _ = through(frames, Geometry(angle=math.radians(30)), 90, NIR)
    y, x = np.nonzero(out[0, 0] > 127)
    assert np.ptp(x) == pytest.approx(40, abs=1)
    assert np.ptp(y) == pytest.approx(40, abs=1)
    assert (x.mean(), y.mean()) == pytest.approx((44.5, 44.5), abs=1.0)


def test_a_dot_lands_alike_in_two_resolutions_and_through_an_affine():
    """Three views of one space: full size, half size, and one whose camera sees the right half only."""
    full = np.zeros((1, 96, 96, 1), np.uint8)
    cv2.circle(full[0], (66, 40), 5, 255, -1)
    half = cv2.resize(full[0], (48, 48), interpolation=cv2.INTER_AREA)[None, ..., None]
    right = np.ascontiguousarray(full[:, :, 48:])  # its x in -1..1 is the space's 0..1
    positions = []
    for seed in range(10):
        geometry = sample_geometry(Augment.strong(), rng(seed), flip=bool(seed % 2))
        for frames, affine in ((full, None), (half, None), (right, (0.5, 0.0, 0.5, 0.0, 1.0, 0.0))):
            height, width = frames.shape[1:3]
            matrix = pixel_map(geometry.matrix(WHOLE, Framing(frames=1, size=64)), 1.0, affine, width, height, 64)
            resampled = warp(frames, matrix, 64, NIR)[0][0, 0].astype(float)
            y, x = np.mgrid[:64, :64]
            positions.append(((resampled * x).sum() / resampled.sum(), (resampled * y).sum() / resampled.sum()))
    found = np.array(positions).reshape(10, 3, 2)
    assert np.abs(found - found[:, :1]).max() < 0.5
    assert np.ptp(found[:, 0], axis=0).min() > 4, "the draws differ"


def test_shrinking_averages_over_areas():
    """Stripes one pixel wide become their mean, not a moire; a thin bright line does not vanish."""
    stripes = np.zeros((1, 64, 64, 1), np.uint8)
    stripes[:, :, ::2] = 200
    out, _ = through(stripes, Geometry(), 16, NIR)
    assert np.abs(out.astype(int) - 100).max() <= 2
    line = np.zeros((1, 64, 64, 1), np.uint8)
    line[:, 33] = 255
    assert through(line, Geometry(), 16, NIR)[0].max() >= 60


def test_a_view_beyond_the_picture_is_empty():
    frames = np.full((2, 8, 8, 1), 2000, np.uint16)
    out, valid = through(frames, Geometry(shift=(3.0, 0.0)), 8, DEPTH)
    assert out.shape == (1, 2, 8, 8)
    assert not valid.any()
    assert not out.any()


# ---- depth and flow ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [17, 24, 60, 100])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_no_depth_between_hand_and_hole_arises(size, dtype):
    frames = np.zeros((2, 60, 60, 1), dtype)
    frames[:, 20:40, 20:40] = 1500
    out, valid = through(frames, Geometry(angle=0.3, side=0.9), size, DEPTH)
    assert out.dtype == np.float32
    assert valid.dtype == bool
    assert np.abs(out[valid] - 1500).max() <= 1.0
    assert not out[~valid].any()
    assert valid.mean() == pytest.approx((20 / 54) ** 2, rel=0.12)


def test_a_single_hole_does_not_dig_into_its_surroundings():
    frames = np.full((1, 40, 40, 1), 3000, np.uint16)
    frames[0, 20, 20] = 0
    out, valid = through(frames, Geometry(angle=0.1), 20, DEPTH)
    inner = np.zeros((20, 20), bool)
    inner[3:-3, 3:-3] = True
    assert np.abs(out[0, 0][inner & valid[0, 0]] - 3000).max() <= 1.0


def test_flow_turns_mirrors_and_scales_with_the_picture():
    frames = np.zeros((1, 40, 40, 2), np.float32)
    frames[..., 0], frames[..., 1] = 4.0, 1.0

    def middle(geometry, size):
        return through(frames, geometry, size, FLOW)[0][:, 0, size // 2, size // 2]

    assert middle(Geometry(), 40) == pytest.approx([4, 1])
    assert middle(Geometry(), 20) == pytest.approx([2, 0.5]), "half the pixels, half the pixels a frame"
    assert middle(Geometry(), 10) == pytest.approx([1, 0.25]), "also where it is averaged over areas first"
    assert middle(Geometry(side=0.5), 40) == pytest.approx([8, 2])
    assert middle(Geometry(flip=True), 40) == pytest.approx([-4, 1])
    turned = middle(Geometry(angle=math.pi / 2), 40)
    assert np.hypot(*turned) == pytest.approx(math.sqrt(17), rel=1e-4)
    assert np.abs(turned) == pytest.approx([1, 4], rel=1e-4)


def test_turned_flow_points_where_the_things_go():
    """A dot that moves by its flow in the source moves by the warped flow in the output."""
    motion = np.array([3.0, 1.0])
    frames = np.zeros((2, 64, 64, 1), np.uint8)
    for t in range(2):
        cv2.circle(frames[t], tuple(np.int32((30, 30) + t * motion)), 4, 255, -1)
    flow = np.broadcast_to(motion.astype(np.float32), (1, 64, 64, 2)).copy()
    for seed in range(6):
        geometry = sample_geometry(Augment.strong(), rng(seed), flip=bool(seed % 2))
        resampled = through(frames, geometry, 96, NIR)[0][0].astype(float)
        y, x = np.mgrid[:96, :96]
        at = np.array([[(s * x).sum() / s.sum(), (s * y).sum() / s.sum()] for s in resampled])
        told = through(flow, geometry, 96, FLOW)[0][:, 0, 48, 48]
        assert at[1] - at[0] == pytest.approx(told, abs=0.25)


# ---- the valid region --------------------------------------------------------------------------------------------


def test_the_valid_box_holds_the_person_and_ignores_specks():
    frames = np.zeros((4, 60, 80, 1), np.uint16)
    frames[0, 20:50, 30:40] = 2000
    frames[3, 25:30, 40:52] = 2000  # an arm, in one frame
    frames[1, 2, 75] = frames[2, 58, 1] = 900
    x0, y0, x1, y1 = valid_box(frames, DEPTH)
    assert ((x0 + 1) * 40, (x1 + 1) * 40) == pytest.approx((30, 52), abs=1)
    assert ((y0 + 1) * 30, (y1 + 1) * 30) == pytest.approx((20, 50), abs=1)


def test_the_valid_box_of_a_clip_without_any_reading_is_the_picture():
    assert valid_box(np.zeros((2, 8, 8, 1), np.uint16), DEPTH) == (-1, -1, 1, 1)


def test_the_valid_box_of_thin_things_is_not_lost():
    frames = np.zeros((1, 30, 30, 1), np.uint16)
    frames[0, 10:20, 15] = 1000  # one pixel wide: opening removes all of it
    x0, y0, x1, y1 = valid_box(frames, DEPTH)
    assert ((y0 + 1) * 15, (y1 + 1) * 15) == pytest.approx((10, 20), abs=1)
    assert x0 < x1


# ---- light -------------------------------------------------------------------------------------------------------


def test_light_changes_are_constant_over_the_clip_and_monotone():
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (1, 5, 64, 1))
    out = photometric(ramp, None, NIR, Augment(brightness=0.5, contrast=0.5), rng(1))
    assert not np.array_equal(out, ramp)
    assert (out == out[:, :1]).all()
    assert (np.diff(out[0, 0, 0].astype(int)) >= 0).all()


def test_saturation_and_hue_leave_gray_alone():
    gray = np.repeat(rng().integers(0, 256, (1, 2, 8, 8)), 3, 0).astype(np.uint8)
    out = photometric(gray, None, RGB, Augment(saturation=0.8, hue=0.2), rng(2))
    assert np.abs(out.astype(int) - gray).max() <= 2
    color = rng().integers(60, 190, (3, 2, 8, 8)).astype(np.uint8)
    assert np.abs(photometric(color, None, RGB, Augment(hue=0.3), rng(2)).astype(int) - color).max() > 5


def test_photometric_is_the_share_of_clips_that_change():
    clip = rng().integers(0, 256, (1, 1, 8, 8)).astype(np.uint8)
    augment = Augment(brightness=0.5, photometric=0.4)
    changed = [not np.array_equal(photometric(clip, None, NIR, augment, rng(s)), clip) for s in range(400)]
    assert np.mean(changed) == pytest.approx(0.4, abs=0.08)


def test_depth_changes_its_range_and_keeps_its_holes():
    clip = np.full((1, 2, 4, 4), 2000, np.float32)
    valid = np.ones(clip.shape, bool)
    clip[..., 0], valid[..., 0] = 0, False
    out = photometric(clip, valid, DEPTH, Augment(depth_scale=0.1, depth_offset=200, brightness=1), rng(3))
    assert not out[~valid].any()
    assert len(np.unique(out[valid])) == 1
    assert out[valid][0] != 2000
    assert 1600 <= out[valid][0] <= 2400


def test_noise_is_new_in_every_frame():
    out = photometric(np.full((1, 2, 16, 16), 128, np.uint8), None, NIR, Augment(noise=10), rng(0)).astype(float)
    assert 0.5 < (out - 128).std() < 11
    assert not np.array_equal(out[0, 0], out[0, 1])


def test_a_sensor_suffers_only_what_it_can():
    flow = rng().normal(size=(2, 2, 4, 4)).astype(np.float32)
    everything = Augment(brightness=1, contrast=1, saturation=1, hue=0.5, noise=50, depth_scale=0.5, depth_offset=1000)
    assert np.array_equal(photometric(flow, None, FLOW, everything, rng(0)), flow)


# ---- signals -----------------------------------------------------------------------------------------------------


def test_joints_turn_about_the_vertical_through_their_center_and_keep_their_bones():
    pose = rng().normal(size=(12, 6, 1, 1)).astype(np.float32)
    out = transform_signal(pose, modality("pose", 12), Augment(signal_rotate=40), rng(1))
    before, after = pose.reshape(4, 3, 6), out.reshape(4, 3, 6)
    assert np.allclose(after[:, 1], before[:, 1], atol=1e-5), "heights stay"
    assert np.allclose(after.mean((0, 2)), before.mean((0, 2)), atol=1e-5)
    lengths = [np.linalg.norm(joints[0] - joints[3], axis=0) for joints in (before, after)]
    assert np.allclose(*lengths, atol=1e-4)
    assert not np.allclose(after, before, atol=1e-2)


def test_signals_that_are_no_joints_are_scaled_about_zero_only():
    imu = rng().normal(size=(6, 5, 1, 1)).astype(np.float32)
    out = transform_signal(imu, modality("imu", 6), Augment(signal_rotate=90, signal_scale=0.5), rng(1))
    ratio = out / imu
    assert np.allclose(ratio, ratio.flat[0], rtol=1e-4)
    assert out.dtype == np.float32


def test_signal_noise_is_in_shares_of_each_channel():
    imu = np.zeros((2, 500, 1, 1), np.float32)
    imu[1] = 1000 * rng().normal(size=(500, 1, 1))
    out = transform_signal(imu, modality("imu", 2), Augment(signal_noise=0.1), rng(1))
    assert not out[0].any(), "a channel that says nothing stays silent"
    assert (out - imu)[1].std() == pytest.approx(100, rel=0.2)


# ---- what augment refuses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "value"), [
    ("crop", "centre"), ("scale", (1.0,)), ("scale", (1.2, 0.8)), ("scale", (0.0, 1.0)), ("scale", 1.0),
    ("scales", (1, "x")), ("rotate", -5), ("flip", 1.5), ("speed", (0, 1)), ("warp", 1.0), ("noise", -1),
    ("hue", "x"), ("vertical", 3), ("aspect", (0.1, 1))])
def test_a_wrong_range_is_named_in_one_line(field, value):
    with pytest.raises(ModaliftError, match=rf"^'?augment\.{field}(\[\d\])?'? (=|is missing)") as caught:
        Augment(**{field: value})
    assert "\n" not in str(caught.value)


def test_lists_of_a_recipe_are_taken():
    assert Augment(scale=[0.8, 1], scales=[1]) == Augment(scale=(0.8, 1.0), scales=(1.0,))
