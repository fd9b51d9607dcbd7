"""Stamps and digests of recordings: what changes them, and what does not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from modalift.loading.sources import BLOCKS, WHOLE, digest, digests, stamp
from modalift.modalities import Row, Track, build_table, modality


def images(folder: Path, values: range) -> Path:
    folder.mkdir()
    for k in values:
        cv2.imwrite(str(folder / f"{k:03d}.bmp"), np.full((8, 8, 3), k, np.uint8))
    return folder


def touch_back(path: Path, before: os.stat_result) -> None:
    """Gives a rewritten file its old modification time."""
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_copy_has_the_same_digest_and_another_stamp(tmp_path):
    folder = images(tmp_path / "a", range(30))
    shutil.copytree(folder, tmp_path / "renamed")  # keeps modification times
    os.utime(tmp_path / "renamed" / "003.bmp", ns=(0, 0))
    one, other = Track(folder), Track(tmp_path / "renamed")
    assert digest(one) == digest(other) != ""
    assert stamp(one) != stamp(other)


def test_an_image_that_is_written_again_in_place_changes_stamp_and_digest(tmp_path):
    track = Track(images(tmp_path / "a", range(5)))
    before, was = digest(track), stamp(track)
    folder_time = track.path.stat().st_mtime_ns
    cv2.imwrite(str(track.path / "002.bmp"), np.full((8, 8, 3), 99, np.uint8))  # the same size; the folder is untouched
    assert track.path.stat().st_mtime_ns == folder_time
    assert stamp(track) != was
    assert digest(track) != before


@pytest.mark.parametrize("name", ["x.npy", "x.bin"])
@pytest.mark.parametrize("size", [1000, WHOLE, 3 * WHOLE])
def test_any_block_of_a_file_counts(tmp_path, name, size):
    path = tmp_path / name
    content = bytearray(np.random.default_rng(0).bytes(size))
    path.write_bytes(content)
    found = {digest(Track(path))}
    positions = [0, size - 1] if size > WHOLE else [0, size // 2, size - 1]
    for where in positions:
        content[where] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(where, where))  # a clock's tick may be longer than this loop
        found.add(digest(Track(path)))
    assert len(found) == len(positions) + 1
    path.write_bytes(content[:-1])
    assert digest(Track(path)) not in found, "the size counts"


def test_every_block_of_a_large_file_is_read(tmp_path):
    path, size = tmp_path / "x.bin", 10 * WHOLE
    content = bytearray(size)
    path.write_bytes(content)
    found = {digest(Track(path))}
    for k, where in enumerate(np.linspace(0, size - 1, BLOCKS).astype(int).tolist()):
        content[where] = k + 1
        path.write_bytes(content)
        os.utime(path, ns=(k, k))
        found.add(digest(Track(path)))
    assert len(found) == BLOCKS + 1


def test_an_array_of_an_archive_has_a_digest_of_its_own(tmp_path):
    path, wave = tmp_path / "joints.npz", np.random.default_rng(0).random((9, 4, 3))
    np.savez(path, wave=wave, clap=wave + 1)
    first = digest(Track(path, key="wave")), digest(Track(path, key="clap"))
    assert first[0] != first[1]
    np.savez(path, wave=wave, clap=wave + 2)
    assert digest(Track(path, key="wave")) == first[0]
    assert digest(Track(path, key="clap")) != first[1]
    assert digest(Track(path, key="nod")) == "", "an array that is not there"


def test_what_is_gone_has_no_digest_but_what_was_recorded(tmp_path):
    row = Row("a", None, "", "train", {"nir": Track(tmp_path / "gone.npy")})
    table = build_table("t", (), {"nir": modality("nir")}, [row])
    assert stamp(row.tracks["nir"]) == digest(row.tracks["nir"]) == ""
    assert digests(table, ["nir", "rgb"]) == {"a": {"nir": ""}}
    assert digests(table, ["nir"], {("a", "nir"): "ab"}) == {"a": {"nir": "ab"}}


def test_the_modification_time_may_lie(tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(b"a" * 100)
    stat = path.stat()
    path.write_bytes(b"b" * 101)
    touch_back(path, stat)
    assert stamp(Track(path)) != digest(Track(path))
    other = stamp(Track(path))
    path.write_bytes(b"a" * 100)
    touch_back(path, stat)
    assert stamp(Track(path)) != other
