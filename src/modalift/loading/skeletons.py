"""Joints in text files: Kinect's `.skeleton` of NTU RGB+D, and one line of numbers per frame as in PKU-MMD."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator

import numpy as np

from modalift.errors import ModaliftError

#: Joints of a Kinect v2 body, and the bodies that are kept.
JOINTS, BODIES = 25, 2


def kinect(data: bytes, where: str) -> np.ndarray:
    """The joints of a ``.skeleton`` file: ``(T, 50, 3)`` float32 in meters, 25 joints of two bodies per frame.

    A file has the number of frames; per frame the number of bodies; per body a line that starts with its id, the number of
    joints, and a line per joint that starts with x, y and z. Of all bodies the two that move most are kept, the one that moves
    more first: largest sum over its frames of squared distances of the joints to their mean positions, so neither a chair nor
    a body that flickers replaces a person. A body that a frame lacks, or a frame without any body, is all zeros.

    Args:
        data: the contents of the file.
        where: its name, for error messages.

    Raises:
        ModaliftError: it is not such a file, ends early, holds a number that is none, or no frame has a body.

    Source: Shahroudy et al., "NTU RGB+D", CVPR 2016, and the reader of its authors (`read_skeleton_file.m`).
    """
    lines = iter(enumerate(data.decode("ascii", "replace").splitlines(), start=1))
    try:
        frames = _count(lines)
        bodies: dict[str, tuple[list[int], list[list[str]]]] = {}
        for frame in range(frames):
            for _ in range(_count(lines)):
                at, joints = bodies.setdefault(next(lines)[1].split(maxsplit=1)[0], ([], []))
                number, line = next(lines)
                if line.strip() != str(JOINTS):
                    raise ValueError(f"line {number} has {line[:20]!r} joints and not {JOINTS}")
                at.append(frame)
                joints.append([cell for _ in range(JOINTS) for cell in _position(next(lines))])
        if not bodies:
            raise ModaliftError(f"{where}: no frame holds a body - leave the clip out (it is among the samples with missing"
                                " skeletons)")
        positions = [(at, np.array(joints).astype(np.float64).reshape(len(at), JOINTS, 3)) for at, joints in bodies.values()]
    except StopIteration:
        raise ModaliftError(f"{where}: ends early - copy it again") from None
    except (ValueError, IndexError, OverflowError) as error:
        raise ModaliftError(f"{where}: is not a .skeleton file of Kinect bodies ({str(error)[:100]}) - copy it again") from None
    out = np.zeros((frames, BODIES, JOINTS, 3), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # positions that are not finite are told by `modalift check`
        positions.sort(key=lambda body: -float(np.nan_to_num(np.square(body[1] - body[1].mean(0)).sum(), nan=-1.0)))
        for slot, (at, joints_at) in enumerate(positions[:BODIES]):
            out[at, slot] = joints_at
    return out.reshape(frames, BODIES * JOINTS, 3)


def _count(lines: Iterator[tuple[int, str]]) -> int:
    number, line = next(lines)
    text = line.strip()
    if not (text.isdecimal() and text.isascii() and len(text) < 8):
        raise ValueError(f"line {number}: '{line[:20]}' is not a count")
    return int(text)


def _position(numbered: tuple[int, str]) -> list[str]:
    number, line = numbered
    cells = line.split(maxsplit=3)[:3]
    if len(cells) < 3:
        raise ValueError(f"line {number} has no position")
    return cells


def rows(data: bytes, where: str) -> np.ndarray:
    """Numbers in text, ``(T, C)`` float32: one line per frame, with blanks between, equally many in each.

    Args:
        data: the contents of the file.
        where: its name, for error messages.

    Raises:
        ModaliftError: a line holds another number of numbers, or something else; or there is none.
    """
    text = data.decode("ascii", "replace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file, which is told below
            found = np.loadtxt(io.StringIO(text), dtype=np.float32, comments=None, ndmin=2)
    except ValueError as error:
        reason = str(error).split(";")[0].split("\n")[0][:100]
        raise ModaliftError(f"{where}: is not one line of numbers per frame ({reason}) - copy it again") from None
    if not found.size:
        raise ModaliftError(f"{where}: holds no number - copy it again")
    return found
