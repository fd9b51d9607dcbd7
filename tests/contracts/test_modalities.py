"""What every registered modality keeps: numbers that make sense, recordings that are read, networks that read them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modalift import networks
from modalift.datasets.naming import modality_of
from modalift.loading import reading
from modalift.modalities import MODALITIES, Modality, Track, modality

every = pytest.mark.parametrize("name", list(MODALITIES))


def whole(name: str) -> Modality:
    """The modality, with three channels where a recording decides."""
    return modality(name) if modality(name).channels else modality(name, 3)


@every
def test_its_numbers_make_sense(name):
    kind = MODALITIES[name]
    assert kind.name == name
    assert kind.unit
    assert kind.low < kind.high
    assert kind.channels >= 0
    assert len(kind.mean) in (1, kind.channels)
    assert len(kind.std) in (1, kind.channels)
    assert all(s > 0 for s in kind.std)
    assert kind.derived_from is None or kind.derived_from in MODALITIES
    if kind.dtype != "float32":
        span = np.iinfo(kind.dtype)
        assert span.min <= kind.low
        assert kind.high <= span.max
    assert kind.invalid is None or not kind.low <= kind.invalid <= kind.high, "no reading is no reading of the range"
    assert kind.kind == "video" or not kind.photometric


@every
def test_its_name_tells_it_from_a_column_or_a_folder(name):
    assert modality_of(name) == name
    assert modality_of(f"crop_{name}_2") == name


@every
def test_a_recording_of_it_is_read(name, tmp_path):
    kind, rng = whole(name), np.random.default_rng(0)
    shape = (4, 6, 8, kind.channels) if kind.kind == "video" else (4, kind.channels)
    stored = rng.uniform(max(kind.low, -99), min(kind.high, 99), shape).astype(kind.dtype)
    np.savez(tmp_path / "clip.npz", frames=stored)
    frames = reading.read(Track(tmp_path / "clip.npz"), kind)
    assert frames.dtype == kind.dtype
    assert frames.shape == (shape if kind.kind == "video" else (4, 1, 1, kind.channels))
    assert np.array_equal(frames.reshape(shape), stored)


@every
def test_a_network_reads_it(name):
    kind = whole(name)
    family, size = ("small", 16) if kind.kind == "video" else ("tcn", 1)
    torch.manual_seed(0)
    net = networks.build(family, classes=3, view=name, channels=kind.channels, frames=4, size=size).eval()
    assert (net.modality, net.channels) == (name, kind.channels)
    ends = [kind.low, kind.high, (kind.low + kind.high) / 2] + ([] if kind.invalid is None else [kind.invalid])
    clips = torch.stack([torch.full((kind.channels, 4, size, size), end) for end in ends])
    assert net(clips).isfinite().all()
    if kind.invalid is not None:
        assert not net.prepare.normalize(clips[-1:]).any(), "no reading becomes zero"
