"""Bodies and motions: sound skeletons, exact reversals, and classes that need the order of time."""

from __future__ import annotations

import numpy as np
import pytest

from modalift.darkroom.body import JOINTS, figure, sample_subject, two_bones
from modalift.darkroom.motions import DURATION, GESTURES, MIRRORED, REVERSED, sample_motion

TIMES = (np.arange(16) + 0.5) * DURATION / 16


def joints(gesture: str, subject: int, clip: int = 0) -> np.ndarray:
    """(16, J, 3) in the body frame."""
    person = sample_subject(np.random.default_rng([9, subject]))
    motion = sample_motion(np.random.default_rng([9, subject, clip]), gesture, person.style, person.left_handed)
    return figure(person, motion, TIMES).joints


@pytest.mark.parametrize(("one", "other"), list(REVERSED.items()))
@pytest.mark.parametrize("subject", range(6))
def test_paired_classes_are_exact_time_reversals(one: str, other: str, subject: int) -> None:
    forward, backward = joints(other, subject), joints(one, subject)
    assert np.abs(forward[::-1] - backward).max() < 1e-9
    assert np.abs(forward - backward).max() > 0.2


def test_mirror_classes_are_mirror_images() -> None:
    """The mirror image of a right-hander who turns left is a left-hander who turns right."""
    person = next(p for p in (sample_subject(np.random.default_rng(i)) for i in range(20)) if not p.left_handed)
    other = type(person)(**{**vars(person), "left_handed": True})
    left = figure(person, sample_motion(np.random.default_rng(1), "turn_left", person.style, False), TIMES).joints
    right = figure(other, sample_motion(np.random.default_rng(1), "turn_right", other.style, True), TIMES).joints
    wrist, mirrored = JOINTS.index("right_wrist"), JOINTS.index("left_wrist")
    assert np.allclose(left[:, wrist] * [-1, 1, 1], right[:, mirrored])
    # The hand really goes to the person's own left in turn_left.
    reach = left[:, wrist, 0]
    assert reach.argmin() > reach.argmax()
    assert MIRRORED["turn_left"] == "turn_right"
    assert MIRRORED["stop"] == "stop"


def test_bones_keep_their_lengths_and_people_differ() -> None:
    heights = set()
    for subject in range(5):
        pose = joints("rally", subject)
        for side in ("right", "left"):
            a, b, c = (pose[:, JOINTS.index(f"{side}_{j}")] for j in ("shoulder", "elbow", "wrist"))
            for bone in (b - a, c - b):
                length = np.linalg.norm(bone, axis=1)
                assert length.std() < 1e-6
                assert 0.2 < length[0] < 0.36
        heights.add(round(float(pose[0, 0, 1]), 3))
    assert len(heights) == 5


def test_inverse_kinematics_draws_in_what_is_out_of_reach() -> None:
    far = np.array([[5.0, 0.0, 0.0], [0.01, 0.0, 0.0], [0.3, -0.2, 0.1]])
    elbow, wrist = two_bones(np.zeros((3, 3)), far, 0.29, 0.26, np.array([[0.0, -1.0, 0.0]] * 3))
    assert np.isfinite(elbow).all()
    assert np.allclose(np.linalg.norm(elbow, axis=1), 0.29)
    assert np.allclose(np.linalg.norm(wrist - elbow, axis=1), 0.26)
    assert np.allclose(wrist[2], far[2])


def test_one_person_in_five_is_left_handed() -> None:
    share = np.mean([sample_subject(np.random.default_rng([1, i])).left_handed for i in range(400)])
    assert 0.13 < share < 0.27


def _features(pose: np.ndarray) -> np.ndarray:
    """The gesturing hand from the neck, and where its index points, over the time since it rose."""
    moved = [np.ptp(pose[:, JOINTS.index(f"{s}_wrist")], axis=0).sum() for s in ("right", "left")]
    side = "right" if moved[0] > moved[1] else "left"
    hand = pose[:, JOINTS.index(f"{side}_hand")] - pose[:, JOINTS.index("neck")]
    tip = pose[:, JOINTS.index(f"{side}_index_tip")] - pose[:, JOINTS.index(f"{side}_wrist")]
    since = np.clip(np.arange(-8, 8) + int(np.argmax(hand[:, 1] > hand[:, 1].min() + 0.12)) + 6, 0, 15)
    return np.concatenate([hand[since], 2 * tip[since]], 1).ravel()


def test_classes_need_motion_and_its_direction() -> None:
    """Nearest class means on joints of unseen people: right as recorded, wrong backwards except for swapped labels."""
    swapped = {a: b for pair in REVERSED.items() for a, b in (pair, pair[::-1])}

    def dataset(people: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chosen = [p for p in people if not sample_subject(np.random.default_rng([9, p])).left_handed]
        poses = np.stack([joints(g, p, k) for p in chosen for g in GESTURES for k in range(2)])
        y = np.array([i for _ in chosen for i in range(10) for _ in range(2)])
        return poses, y, np.array([GESTURES.index(swapped.get(g, g)) for g in GESTURES])[y]

    seen, y, _ = dataset(range(24))
    means = np.stack([np.mean([_features(p) for p in seen[y == c]], axis=0) for c in range(10)])

    def predict(poses: np.ndarray) -> np.ndarray:
        return np.array([((means - _features(p)) ** 2).sum(1).argmin() for p in poses])

    new, truth, swaps = dataset(range(100, 112))
    timed = truth != swaps
    assert (predict(new) == truth).mean() > 0.6
    backwards = predict(new[:, ::-1])
    assert (backwards == swaps)[timed].mean() > 2 * (backwards == truth)[timed].mean()
    frozen = predict(np.repeat(new[:, 8:9], 16, axis=1))
    assert (frozen == truth).mean() < 0.4
