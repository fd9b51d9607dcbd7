"""Sample clips: read, toned, drawn, and told apart by their predictions."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from modalift.errors import ModaliftError
from modalift.modalities import Table, modality
from modalift.models import Predictions
from modalift.report.clips import animation, choose_clips, clip, gallery, resize, sample_clips, signal_frames, skeleton, to_rgb

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"


def test_every_view_of_a_clip(table: Table) -> None:
    one = sample_clips(table, [1])[0]
    assert one["label"] == table.classes[1]
    assert list(one["views"]) == ["depth", "pose", "imu"]
    for view, frames in (("depth", 5), ("pose", 7), ("imu", 16)):
        images = one["views"][view]
        assert images.dtype == np.uint8
        assert images.ndim == 4
        assert len(images) == frames
        assert images.shape[3] == 3
        assert images.shape[2] % 16 == 0


def test_absent_and_broken_views_and_no_label(table: Table) -> None:
    first, third, last = sample_clips(table, [0, 3, 5])
    assert "depth" not in first["views"]
    assert first["problems"] == {}
    assert "d3.npy" in third["problems"]["depth"]
    assert last["label"] is None
    assert "not labeled" in clip(last)
    with pytest.raises(ModaliftError, match="no view 'rgb'"):
        sample_clips(table, [0], ["rgb"])


def test_answers_are_matched_by_id(table: Table) -> None:
    p = Predictions(np.array(["clip002", "clip001"]), np.array([2, 1]), np.array(["a", "b"]),
                    np.array([[0.1, 0.2, 0.7], [0.9, 0.05, 0.05]]))
    none, wrong, right = sample_clips(table, [0, 1, 2], ["pose"], predictions={"net": p})
    assert none["predictions"] == {}
    assert wrong["predictions"]["net"] == (table.classes[0], pytest.approx(0.9))
    assert "prediction no" in clip(wrong)
    assert "prediction yes" in clip(right)
    assert "70 %" in clip(right)


def test_pick_is_fair_and_repeatable(table: Table) -> None:
    chosen = choose_clips(table, 3)
    assert chosen == choose_clips(table, 3)
    assert len({table[i].label for i in chosen}) == 3
    lux = [table[i].metadata["lux"] for i in chosen]
    assert lux == sorted(lux)
    assert sorted(choose_clips(table, 50)) == list(range(6))


def test_tone_depth_near_is_bright_and_holes_are_dark() -> None:
    frames = np.zeros((2, 10, 10, 1), np.uint16)
    frames[:, :, :5] = 1000
    frames[:, :, 5:8] = 3000
    seen = to_rgb(frames, modality("depth")).astype(int).sum(-1)
    assert seen[0, 0, 0] > seen[0, 0, 6] > seen[0, 0, 9]


def test_tone_crops_to_a_person_who_was_cut_out() -> None:
    frames = np.zeros((3, 60, 100, 1), np.uint16)
    frames[:, 20:50, 70:85] = np.arange(1000, 1030, dtype=np.uint16)[None, :, None, None]
    images = to_rgb(frames, modality("depth"))
    assert images.shape[1] == images.shape[2] < 40


@pytest.mark.parametrize("name", ["rgb", "nir", "thermal", "depth", "flow", "pose_map"])
def test_tone_of_blank_clips(name: str) -> None:
    kind = modality(name, channels=modality(name).channels or 5)
    images = to_rgb(np.zeros((2, 8, 8, kind.channels), kind.dtype), kind)
    assert images.shape == (2, 8, 8, 3)
    assert images.dtype == np.uint8


def test_color_stays_as_recorded() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    assert np.array_equal(to_rgb(frames, modality("rgb")), frames)


def test_small_never_blows_up_beyond_twice() -> None:
    assert resize(np.zeros((1, 20, 20, 3), np.uint8), 128).shape[1] == 40
    assert resize(np.zeros((1, 600, 800, 3), np.uint8), 128).shape[1:3] == (128, 176)


def test_skeletons_of_known_and_unknown_orders() -> None:
    rng = np.random.default_rng(0)
    # A chain of five joints, each bone of constant length, wriggling: the guess must find the chain.
    angle = rng.normal(size=(40, 4)).cumsum(0) * 0.3
    steps = 0.3 * np.stack([np.sin(angle), np.cos(angle), np.zeros_like(angle)], -1)
    chain = np.concatenate([np.zeros((40, 1, 3)), steps.cumsum(1)], 1)
    bones, _ = skeleton(chain)
    assert {tuple(sorted(b)) for b in bones} == {(0, 1), (1, 2), (2, 3), (3, 4)}
    upright = np.zeros((3, 20, 3))
    upright[:, :, 1] = np.linspace(1, -1, 20)  # head first, y up
    assert skeleton(upright)[1] is True
    assert skeleton(upright * (1, -1, 1))[1] is False


def test_signals_without_movement_or_with_holes() -> None:
    still = np.full((6, 60), np.nan)
    assert signal_frames(still, modality("pose", 60), 4, 64).shape == (4, 64, 64, 3)
    assert signal_frames(np.zeros((1, 2)), modality("imu", 2), 4, 64).shape[0] == 1


def test_film_is_a_strip_of_all_frames() -> None:
    images = np.zeros((5, 32, 48), np.uint8)
    images[3] = 255
    text = animation("<view>", images)
    assert "<view>" not in text
    assert "--n:5" in text
    found = re.search(r"data:image/jpeg;base64,([^\"]+)", text)
    assert found
    strip = cv2.imdecode(np.frombuffer(base64.b64decode(found[1]), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert strip.shape == (32, 240)
    assert strip[:, 3 * 48 + 8:4 * 48 - 8].min() > 250
    assert strip[:, :3 * 48 - 8].max() < 5
    assert "no frames" in animation("empty", np.zeros((0, 4, 4), np.uint8))


def test_gallery_of_nothing() -> None:
    assert gallery([], "note") == ""


@pytest.mark.skipif(not SHARED.exists(), reason="../shared with the real recordings is absent")
def test_real_depth_and_joints() -> None:
    from modalift import datasets

    table = datasets.open("csv", SHARED / "data" / "utd_mhad_depth")
    one = sample_clips(table, [0], ["depth", "pose"])[0]
    assert one["problems"] == {}
    assert one["views"]["depth"].std() > 5
    assert len(one["views"]["pose"]) == 16
