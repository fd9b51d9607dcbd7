"""Reading: random access equals decoding from the start, and every bad file gets one clear line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from recordings import KINDS, image, record, sequential, write

from modalift.errors import ModaliftError
from modalift.loading import reading, video
from modalift.modalities import Track, modality

RGB, GRAY, DEPTH, POSE = (modality(m) for m in ("rgb", "gray", "depth", "pose"))
SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def form_of(kind: str) -> tuple[str, object]:
    return {"ffv1_16": ("gray16le", DEPTH), "ffv1_gray": ("gray", GRAY)}.get(kind, ("rgb24", RGB))


@pytest.mark.parametrize("kind", KINDS)
def test_random_access_equals_sequential_decoding(kind, tmp_path):
    path = record(tmp_path, kind)
    form, view = form_of(kind)
    truth = sequential(path, form)
    track = Track(path)
    assert reading.count_frames(track) == len(truth) == 40
    np.testing.assert_array_equal(reading.read(track, view), truth)
    rng = np.random.default_rng(0)
    for _ in range(30):
        wanted = rng.integers(0, 40, rng.integers(1, 6))
        np.testing.assert_array_equal(reading.read(track, view, wanted), truth[wanted], err_msg=f"{kind} {wanted}")


@pytest.mark.parametrize("kind", ["h264_b", "h264_open", "h264_avi", "mpeg4_b"])
def test_random_access_needs_no_fallback_on_common_files(kind, tmp_path):
    path = record(tmp_path, kind)
    index = video.index(path)
    video.decode(path, index, np.array([17, 30]), RGB)
    assert not index.irregular
    assert len(index.groups) > 3


def test_only_wanted_groups_are_decoded(tmp_path, monkeypatch):
    path = record(tmp_path, "mjpeg")
    calls = []
    real = video._Converter.__call__
    monkeypatch.setattr(video._Converter, "__call__", lambda self, frame: calls.append(1) or real(self, frame))
    reading.read(Track(path), RGB, [3, 20, 3])
    assert len(calls) == 2


def test_scrambled_stamps_do_not_change_the_order(tmp_path):
    plain = write(tmp_path / "plain.mkv", "mjpeg", "yuvj420p", frames=12)
    stamps = [7, 3, 11, 0, 9, 1, 5, 10, 2, 8, 6, 4]
    scrambled = write(tmp_path / "scrambled.mkv", "mjpeg", "yuvj420p", frames=12, stamps=[1000 * s for s in stamps])
    import av

    with av.open(str(scrambled)) as file:
        told = [p.pts for p in file.demux(video=0) if p.size]
    assert told != sorted(told), "the file must really be scrambled"
    truth = sequential(plain, "rgb24")
    np.testing.assert_array_equal(reading.read(Track(scrambled), RGB), truth)
    np.testing.assert_array_equal(reading.read(Track(scrambled), RGB, [8, 1]), truth[[8, 1]])


def test_swapped_stamps_of_b_frames_are_found_out(tmp_path):
    """Stamps that look sane but lie: the decoder's own order wins, at the first read and at later ones."""
    path = record(tmp_path, "h264_b")
    truth = sequential(path, "rgb24")
    index = video.index(path)
    assert index.output_position is not None
    leaves = [p for p in range(12) if index.output_position[p] in (1, 3)]
    index.output_position[leaves] = index.output_position[leaves[::-1]]
    for wanted in ([1], [3], [1, 30], [3]):
        np.testing.assert_array_equal(video.decode(path, index, np.array(wanted), RGB), truth[wanted])
    assert index.irregular


def test_skipping_frames_that_nobody_wants_changes_nothing(tmp_path):
    path = record(tmp_path, "h264_b")
    truth = sequential(path, "rgb24")
    index = video.index(path)
    video.decode(path, index, np.arange(40), RGB)
    assert len(index.verified) == len(index.groups) - 1
    for i in range(40):
        np.testing.assert_array_equal(video.decode(path, index, np.array([i]), RGB), truth[[i]])
    assert not index.irregular


def test_window_and_indices_are_relative_to_it(tmp_path):
    path = record(tmp_path, "ffv1_16")
    track = Track(path, start=10, end=25)
    assert reading.window(track) == (10, 25)
    np.testing.assert_array_equal(reading.read(track, DEPTH)[:, :, :, 0],
                                  np.stack([image(i, dtype=np.uint16) for i in range(10, 25)]))
    np.testing.assert_array_equal(reading.read(track, DEPTH, [14, 0])[0, :, :, 0], image(24, dtype=np.uint16))
    with pytest.raises(ModaliftError, match=r"ffv1_16.mkv has no frame 15 - its window has the frames 0 to 14"):
        reading.read(track, DEPTH, [15])
    with pytest.raises(ModaliftError, match="no frame -1"):
        reading.read(track, DEPTH, [-1])
    with pytest.raises(ModaliftError, match="has 40 frames, but its window ends at frame 41"):
        reading.window(replace(track, end=41))
    with pytest.raises(ModaliftError, match="is empty"):
        reading.window(replace(track, start=40, end=None))


def test_16_bits_survive_and_8_bits_are_not_stretched(tmp_path):
    deep = record(tmp_path, "ffv1_16", frames=2)
    assert reading.read(Track(deep), DEPTH).max() > 255
    flat = record(tmp_path, "ffv1_gray", frames=2)
    as_depth = reading.read(Track(flat), DEPTH)
    assert as_depth.dtype == np.uint16
    np.testing.assert_array_equal(as_depth, reading.read(Track(flat), GRAY))


def test_gray_stored_as_three_channels_reads_as_luma(tmp_path):
    def gray(i, size, dtype):
        return np.repeat(image(i, size)[..., :1], 3, axis=2)

    path = write(tmp_path / "three.mkv", "ffv1", "bgr0", frames=3, frame_of=gray)
    got = reading.read(Track(path), GRAY)
    assert got.shape == (3, 64, 64, 1)
    assert np.abs(got[..., 0].astype(int) - np.stack([image(i)[..., 0] for i in range(3)])).max() <= 1


def test_one_frame_clip(tmp_path):
    path = record(tmp_path, "h264_b", frames=1)
    assert reading.window(Track(path)) == (0, 1)
    assert reading.read(Track(path), RGB, [0, 0]).shape == (2, 64, 64, 3)


def test_phone_video_is_turned_upright(tmp_path):
    path = record(tmp_path, "h264_b", frames=3)
    upright = reading.read(Track(path), RGB)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version and flags, times, id, duration, layer, ...: then the matrix
    turn = np.array([0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000], ">i4").tobytes()
    data[at:at + 36] = turn
    turned = tmp_path / "phone.mp4"
    turned.write_bytes(data)
    np.testing.assert_array_equal(reading.read(Track(turned), RGB), np.rot90(upright, -1, axes=(1, 2)))


def test_missing_empty_and_foreign_files(tmp_path):
    with pytest.raises(ModaliftError, match=r"none\.mp4 does not exist"):
        reading.read(Track(tmp_path / "none.mp4"), RGB)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ModaliftError, match=r"empty\.mp4 has zero bytes"):
        reading.count_frames(Track(tmp_path / "empty.mp4"))
    (tmp_path / "text.mp4").write_text("this is no video at all, whatever it is called\n" * 20)
    with pytest.raises(ModaliftError, match=r"text\.mp4 is not a readable video"):
        reading.read(Track(tmp_path / "text.mp4"), RGB)


@pytest.mark.parametrize("kind", ["h264_b", "mjpeg", "ffv1_16", "h264_avi"])
@pytest.mark.parametrize("share", [0.35, 0.8])
def test_truncated_video_is_named(kind, share, tmp_path):
    path = record(tmp_path, kind)
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])
    with pytest.raises(ModaliftError, match=f"{kind}.* is truncated") as told:
        reading.read(Track(path), form_of(kind)[1])
    assert "\n" not in str(told.value)


def test_frames_before_the_cut_can_still_be_read(tmp_path):
    path = record(tmp_path, "mjpeg")
    truth = sequential(path, "rgb24")
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    np.testing.assert_array_equal(reading.read(Track(path, start=2, end=8), RGB), truth[2:8])


def test_damage_in_the_middle_is_an_error_not_a_gray_frame(tmp_path):
    path = record(tmp_path, "ffv1_16")
    data = bytearray(path.read_bytes())
    data[len(data) // 2:len(data) // 2 + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(data)
    with pytest.raises(ModaliftError, match=r"ffv1_16\.mkv"):
        reading.read(Track(path), DEPTH)


def test_a_rewritten_file_is_indexed_anew(tmp_path):
    path = record(tmp_path, "ffv1_gray", frames=5)
    assert reading.count_frames(Track(path)) == 5
    record(tmp_path, "ffv1_gray", frames=9)
    assert reading.count_frames(Track(path)) == 9


def test_image_folder_in_natural_order(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(12):
        cv2.imwrite(str(folder / f"img{i}.png"), image(i)[..., ::-1])
    (folder / "notes.txt").write_text("not a frame")
    got = reading.read(Track(folder, start=1), RGB)
    np.testing.assert_array_equal(got, np.stack([image(i) for i in range(1, 12)]))
    cv2.imwrite(str(folder / "img12.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ModaliftError, match=r"img12.png is 8x8, but img0.png is 64x64"):
        reading.read(Track(folder), RGB)
    (folder / "img12.png").write_bytes(b"")
    with pytest.raises(ModaliftError, match=r"img12.png has zero bytes"):
        reading.read(Track(folder), RGB)


def test_16_bit_images_and_an_empty_folder(tmp_path):
    folder = tmp_path / "depth"
    folder.mkdir()
    with pytest.raises(ModaliftError, match="depth contains no image"):
        reading.read(Track(folder), DEPTH)
    cv2.imwrite(str(folder / "a.png"), image(3, dtype=np.uint16))
    np.testing.assert_array_equal(reading.read(Track(folder), DEPTH)[0, ..., 0], image(3, dtype=np.uint16))


def test_joints_of_an_archive_flatten(tmp_path):
    joints = np.arange(5 * 4 * 3, dtype=np.float64).reshape(5, 4, 3)
    np.savez(tmp_path / "pose.npz", a=joints, b=joints[:2], bad=np.float32(3))
    got = reading.read(Track(tmp_path / "pose.npz", key="a"), POSE, [4, 0])
    assert got.shape == (2, 1, 1, 12)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[0, 0, 0], joints[4].ravel())
    assert reading.count_frames(Track(tmp_path / "pose.npz", key="b")) == 2
    with pytest.raises(ModaliftError, match=r"pose.npz holds no array 'aa' - did you mean 'a'|known"):
        reading.read(Track(tmp_path / "pose.npz", key="aa"), POSE)
    with pytest.raises(ModaliftError, match="is a single number"):
        reading.read(Track(tmp_path / "pose.npz", key="bad"), POSE)
    with pytest.raises(ModaliftError, match="has 12 channels, but pose has 60"):
        reading.read(Track(tmp_path / "pose.npz", key="a"), POSE.with_channels(60))


def test_arrays_of_video(tmp_path):
    np.save(tmp_path / "depth.npy", np.stack([image(i, dtype=np.uint16) for i in range(3)]))
    assert reading.read(Track(tmp_path / "depth.npy"), DEPTH).shape == (3, 64, 64, 1)
    np.savez(tmp_path / "flow.npz", flow=np.full((2, 8, 8, 2), 0.5, np.float16))
    flow = reading.read(Track(tmp_path / "flow.npz"), modality("flow"))
    assert flow.shape == (2, 8, 8, 2)
    assert flow.dtype == np.float32
    np.save(tmp_path / "meters.npy", np.full((2, 8, 8), 1.5))
    with pytest.raises(ModaliftError, match="holds float64, but depth is stored as uint16"):
        reading.read(Track(tmp_path / "meters.npy"), DEPTH)


def test_archives_never_run_code(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ModaliftError, match="not a NumPy file of plain arrays"):
        reading.read(Track(tmp_path / "evil.npy"), POSE)


def test_signal_from_a_video_is_refused(tmp_path):
    path = record(tmp_path, "ffv1_gray", frames=2)
    with pytest.raises(ModaliftError, match="is a video, but pose is a signal"):
        reading.read(Track(path), POSE)


def test_timeline(tmp_path):
    path = record(tmp_path, "ffv1_gray", frames=4)
    assert reading.timeline(Track(path)) is None
    np.testing.assert_allclose(reading.timeline(Track(path, start=1, rate=10.0, offset_ms=50.0)), [-0.05, 0.05, 0.15])
    stamped = Track(path, rate=10.0, timestamps=(0.0, 0.2, 0.3, 0.9))
    np.testing.assert_allclose(reading.timeline(stamped), [0.0, 0.2, 0.3, 0.9])
    with pytest.raises(ModaliftError, match="4 frames in its window but 2 time stamps"):
        reading.timeline(replace(stamped, timestamps=(0.0, 1.0)))


@pytest.mark.skipif(not SHARED.exists(), reason="../shared with the real recordings is absent")
def test_real_depth_and_color():
    path = sorted((SHARED / "utd_mhad_depth" / "depth").glob("*.mkv"))[0]
    truth = sequential(path, "gray16le")
    np.testing.assert_array_equal(reading.read(Track(path), DEPTH, [5, 2, 40]), truth[[5, 2, 40]])
    path = sorted((SHARED / "ucl_rgbd_gesture" / "rgb").glob("*.mp4"))[0]
    np.testing.assert_array_equal(reading.read(Track(path), RGB, [14, 0]), sequential(path, "rgb24")[[14, 0]])


def test_a_depth_video_is_not_read_as_color(tmp_path):
    path = record(tmp_path, "ffv1_16", 4)
    with pytest.raises(ModaliftError, match=r"16-bit readings.*give a recording of that sensor"):
        reading.read(Track(path), modality("rgb"))


@pytest.mark.parametrize("kind", ["h264_b", "h264_avi", "vp9"])
def test_what_can_be_read_of_a_torn_file_does_not_depend_on_what_was_read_before(tmp_path, kind):
    path = record(tmp_path, kind)
    truth = reading.read(Track(path), RGB)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        packets = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    start, size = packets[16]  # of 40 frames in groups of 12
    data[start + size // 4 : start + size] = bytes(size - size // 4)
    torn = tmp_path / f"torn{path.suffix}"
    torn.write_bytes(data)

    def readable() -> list[bool]:
        found = []
        for i in range(40):
            try:
                found.append(np.array_equal(reading.read(Track(torn), RGB, [i])[0], truth[i]))
            except ModaliftError:
                found.append(False)
        return found

    first = readable()
    assert all(first[:12])
    assert all(first[36:])
    assert not all(first)
    assert readable() == first
