"""Formats of genuine downloads that hold arrays: MATLAB files, Kinect's .skeleton, lines of numbers; and clamped windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matlab_files import matlab
from sample_ntu_rgbd import skeleton

from modalift.errors import ModaliftError
from modalift.loading import matlab as matlab_file
from modalift.loading import reading, skeletons
from modalift.modalities import Track, modality

POSE = modality("pose", 150)


def told(call, *arguments) -> str:
    """The error of a call, in one line."""
    with pytest.raises(ModaliftError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------------ MATLAB

@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kind", ["f8", "f4", "i2", "u2", "u1"])
def test_arrays_of_every_type_and_shape(kind, compress):
    for shape in ((1, 3), (2, 3), (4, 3, 2), (2, 1, 3, 2)):
        array = np.arange(np.prod(shape)).reshape(shape).astype(kind)
        found = matlab_file.arrays(matlab("name", array, compress=compress), "x.mat")
        assert list(found) == ["name"]
        assert found["name"].dtype == array.dtype
        assert np.array_equal(found["name"], array)


def test_time_is_the_last_dimension_of_three(tmp_path):
    array = np.arange(24).reshape(2, 3, 4).astype(np.uint16)
    (tmp_path / "a.mat").write_bytes(matlab("d", array))
    (tmp_path / "b.mat").write_bytes(matlab("d", np.arange(12.0).reshape(6, 2)))
    depth = reading.read(Track(tmp_path / "a.mat", "d"), modality("depth"))
    assert np.array_equal(depth[..., 0], np.moveaxis(array, -1, 0))
    assert reading.count_frames(Track(tmp_path / "a.mat")) == 4, "the only array needs no name"
    assert reading.read(Track(tmp_path / "b.mat"), modality("imu", 2)).shape == (6, 1, 1, 2)
    assert reading.channels(Track(tmp_path / "b.mat"), modality("imu")) == 2
    assert reading.keys(tmp_path / "a.mat") == ["d"]
    assert "holds no array 'e' - known: d" in told(reading.read, Track(tmp_path / "a.mat", "e"), modality("depth"))


def test_other_files_than_matlab_5():
    assert "version 7.3 - save it again with `save -v7`" in told(matlab_file.arrays, b"MATLAB 7.3 MAT-file".ljust(512), "x")
    assert "is not a little-endian" in told(matlab_file.arrays, b"", "x")
    whole = matlab("d", np.arange(100.0).reshape(10, 10))
    assert "damaged" in told(matlab_file.arrays, whole[:-9], "x")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_matlab_file_is_told(data):
    whole = bytearray(matlab("d", np.arange(40.0).reshape(4, 10), compress=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(120, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[:data.draw(st.integers(0, len(whole)))])
    for candidate in (bytes(whole), cut):
        try:
            assert all(isinstance(a, np.ndarray) for a in matlab_file.arrays(candidate, "x").values())
        except ModaliftError as error:
            assert "\n" not in str(error)  # noqa: PT017


# --------------------------------------------------------------------------------------------------------- .skeleton

def test_the_two_bodies_that_move_most_and_zeros_elsewhere():
    still, moving = np.ones((25, 3)), [np.full((25, 3), float(t)) for t in range(4)]
    frames = [{"1": still, "2": moving[0]}, {"1": still}, {}, {"2": moving[3], "1": still, "3": still * 9}]
    joints = skeletons.kinect(skeleton(frames).encode(), "x").reshape(4, 2, 25, 3)
    assert joints[:, 0, 7, 2].tolist() == [0, 0, 0, 3], "the body that moves more is first, and zeros where it is not seen"
    assert joints[:, 1, 7, 2].tolist() == [1, 1, 0, 1]


def test_a_body_that_flickers_does_not_replace_a_person():
    rng = np.random.default_rng(0)
    frames = [{"1": np.ones((25, 3)) + t / 10, "2": np.ones((25, 3)) * 2 + t / 20} for t in range(20)]
    frames[4]["9"] = rng.normal(size=(25, 3)) * 5
    joints = skeletons.kinect(skeleton(frames).encode(), "x").reshape(20, 2, 25, 3)
    assert joints[4, :, 0, 0].tolist() == pytest.approx([1.4, 2.2])


def test_ids_that_differ_in_the_last_digit_are_two_bodies():
    one, other = "72057594037931101", "72057594037931102"  # equal as float64
    joints = skeletons.kinect(skeleton([{one: np.ones((25, 3)), other: np.full((25, 3), 2.0)}]).encode(), "x")
    assert sorted({float(x) for x in joints[0, :, 0]}) == [1, 2]


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t[:len(t) // 2], "x: ends early"), (lambda t: "", "x: ends early"),
    (lambda t: t.replace("25", "20", 1), "has '20' joints and not 25"), (lambda t: "x" + t, "line 1: 'x2' is not a count"),
    (lambda t: t.replace("0.5", "o.5", 1), "could not convert"), (lambda t: "2\n0\n0\n", "no frame holds a body")])
def test_wrong_skeletons_are_told(change, message):
    text = skeleton([{"1": np.full((25, 3), 0.5)}] * 2)
    assert message in told(skeletons.kinect, change(text).encode(), "x")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_skeleton_is_told(data):
    lines = skeleton([{"1": np.full((25, 3), 0.5)}, {}, {"2": np.full((25, 3), 0.25)}]).splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        k = data.draw(st.integers(0, len(lines) - 1))
        lines[k] = data.draw(st.one_of(st.just(""), st.text(max_size=12),
                                       st.sampled_from(["1e999 0 0", "nan nan nan", "-1", "9" * 30])))
    try:
        joints = skeletons.kinect("\n".join(lines).encode("utf-8", "surrogatepass"), "x")
        assert joints.shape[1:] == (50, 3)
        assert joints.dtype == np.float32
    except ModaliftError as error:
        assert "\n" not in str(error)  # noqa: PT017


# ------------------------------------------------------------------------------------------------- lines of numbers

def test_lines_of_numbers(tmp_path):
    path = tmp_path / "0002-L.txt"
    path.write_bytes(b"".join(b"%d " % t * 150 + b"\n" for t in range(5)))
    track = Track(path, start=1, end=9, clamp=True)
    assert reading.window(track) == (1, 5)
    assert reading.read(track, POSE)[:, 0, 0, 3].tolist() == [1, 2, 3, 4]
    assert "its window ends at frame 9" in told(reading.window, Track(path, start=1, end=9))
    path.write_bytes(b"1 2 3\n4 5\n")
    assert "is not one line of numbers per frame" in told(reading.read, Track(path), POSE)
    path.write_bytes(b"1 2 3\n4 5 6\n")
    assert "has 3 channels, but pose has 150" in told(reading.read, Track(path), POSE)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text("0123456789.e-+ \n\tnaif,#", max_size=60).map(str.encode)))
def test_any_bytes_are_numbers_or_told(data):
    try:
        assert skeletons.rows(data, "x").ndim == 2
    except ModaliftError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_a_file_that_was_overwritten_is_read_again(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"1 2\n")
    assert reading.count_frames(Track(path)) == 1
    path.write_bytes(b"1 2\n3 4\n5 6\n")
    assert reading.count_frames(Track(path)) == 3
