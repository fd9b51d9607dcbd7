"""UTD-MHAD: actions recorded as color, depth, joints and by an inertial sensor on the body."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from modalift.datasets import scanning
from modalift.datasets.naming import assign_subjects
from modalift.datasets.registry import dataset
from modalift.datasets.release import Release
from modalift.errors import ModaliftError
from modalift.modalities import Row, Table, Track, build_table, modality

CLASSES = ("swipe_left", "swipe_right", "wave", "clap", "throw", "arm_cross", "basketball_shoot", "draw_x", "draw_circle_cw",
           "draw_circle_ccw", "draw_triangle", "bowling", "boxing", "baseball_swing", "tennis_swing", "arm_curl",
           "tennis_serve", "push", "knock", "catch", "pickup_throw", "jog", "walk", "sit2stand", "stand2sit", "lunge", "squat")
#: Kind of a file -> view, and the array in it.
KINDS = {"color": ("rgb", ""), "depth": ("depth", "d_depth"), "skeleton": ("pose", "d_skel"), "inertial": ("imu", "d_iner")}
#: Frames or samples per second.
RATES = {"rgb": 30.0, "depth": 30.0, "pose": 30.0, "imu": 50.0}

_FILE = re.compile(r"(a([1-9]\d?)_s([1-8])_t([1-4]))_(?:(color)\.(?:avi|mp4)|(depth|skeleton|inertial)\.mat)",
                   re.ASCII | re.IGNORECASE)
_DEPTH = 3  # folders: UTD-MHAD/RGB-part1/<file>


def _is_utd(root: Path) -> bool:
    """Whether some recording is named as UTD-MHAD's."""
    return any(_FILE.fullmatch(path.name) for path in scanning.some(root, _DEPTH))


@dataset("utd_mhad", recognize=_is_utd, release=Release(
    {"rgb": "rgb", "depth": "depth", "pose": "pose", "imu": "imu"}, CLASSES, {"train": 431, "test": 430},
    "Chen, Jafari, Kehtarnavaz, UTD-MHAD, ICIP 2015", "from the page of its authors at the University of Texas at Dallas"))
def read_utd_mhad(root: Path, *, test_subjects: Sequence[str] | None = None,
                  val_subjects: Sequence[str] | None = None) -> Table:
    """UTD-MHAD as downloaded: 861 clips of 27 actions by 8 subjects, 4 trials each but for 3 clips that were never released.

    Layout; files are found by their names, in folders of any name up to two deep, and any may be missing::

        RGB/a1_s1_t1_color.avi               view rgb, 640 x 480 (four archives, RGB-part1 to RGB-part4)
        Depth/a1_s1_t1_depth.mat             view depth, array d_depth (240, 320, T), mm, 30 frames per second
        Skeleton/a1_s1_t1_skeleton.mat       view pose, array d_skel (20, 3, T), m
        Inertial/a1_s1_t1_inertial.mat       view imu, array d_iner (N, 6), 50 samples per second, g and °/s

    Time is the last dimension of MATLAB's arrays of pictures and joints, and becomes the first. Color and depth are not
    pixel-aligned, and may differ by some frames. The official split trains on the odd subjects. The inertial sensor is at the
    right wrist, from action 22 (jog) on at the right thigh.

    Source: Chen, Jafari, Kehtarnavaz, ICIP 2015.

    Args:
        root: the folder with the folders above.
        test_subjects: subjects (``s2``) whose clips test, instead of the even ones; the others train.
        val_subjects: subjects whose clips form a validation split.

    Raises:
        ModaliftError: no recording is there, or one is there twice.
    """
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in scanning.below(root, _DEPTH):
        if file := _FILE.fullmatch(path.name):
            if int(file[2]) > len(CLASSES):
                raise ModaliftError(f"{path}: there is no action {file[2]} - UTD-MHAD has {len(CLASSES)}; remove the file")
            scanning.add(found[file[1].lower()], KINDS[(file[5] or file[6]).lower()][0], path)
    if not found:
        raise ModaliftError(f"{root}: holds no recording named as a1_s1_t1_color.avi, _depth.mat, _skeleton.mat or"
                            " _inertial.mat - give the folder that holds RGB, Depth, Skeleton and Inertial")
    keys = dict(KINDS.values())
    rows = []
    for clip in sorted(found, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]):
        action, subject, trial = (int(n) for n in re.findall(r"\d+", clip))
        rows.append(Row(clip, action - 1, f"s{subject}", "train" if subject % 2 else "test", {
            view: Track(found[clip][view], key, rate=RATES[view]) for view, key in keys.items() if view in found[clip]},
            {"trial": float(trial)}))
    rows = assign_subjects(str(root), rows, test_subjects, val_subjects)
    kinds = {"rgb": modality("rgb"), "depth": modality("depth"), "pose": modality("pose", 60), "imu": modality("imu", 6)}
    return build_table("utd_mhad", CLASSES, {v: k for v, k in kinds.items() if any(v in r.tracks for r in rows)}, rows)
