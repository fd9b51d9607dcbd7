"""Gamma and CLAHE: literal values, colors, and that a bundle does what training did."""

from __future__ import annotations

import numpy as np
import pytest

from modalift.errors import ModaliftError
from modalift.loading.clips import ClipSet
from modalift.loading.framing import Framing
from modalift.loading.low_light import enhance
from modalift.loading.stores import MemoryStore
from modalift.modalities import Row, Table, Track, modality


def dark(channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 30, (channels, 2, 32, 32), dtype=np.uint8)


def test_gamma_is_the_power_law_of_every_pixel():
    clip = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    expected = np.rint(255 * (clip / 255.0) ** (1 / 2.5)).astype(np.uint8)
    assert np.array_equal(enhance(clip, "gamma"), expected)
    assert np.array_equal(enhance(clip, "gamma", 1.0), clip)
    assert enhance(clip, "none") is clip


@pytest.mark.parametrize("channels", [1, 3])
def test_clahe_spreads_dark_pictures_frame_by_frame(channels):
    clip = dark(channels)
    made = enhance(clip, "clahe")
    assert made.shape == clip.shape
    assert made.dtype == np.uint8
    assert made.mean() > 1.5 * clip.mean()
    alone = enhance(clip[:, 1:], "clahe")
    assert np.array_equal(made[:, 1:], alone), "a frame does not depend on its neighbors, so it can stream"
    assert not enhance(np.zeros_like(clip), "clahe").any() or channels == 1


def test_clips_are_brightened_and_depth_is_refused(tmp_path):
    for view, kind, how in (("rgb", np.uint8, "gamma"), ("depth", np.uint16, "clahe")):
        frames = np.full((4, 8, 8, 3 if view == "rgb" else 1), 16, kind)
        table = Table("t", ("a",), {view: modality(view)}, (Row("x", 0, "s", "test", {view: Track(tmp_path)}),))
        framings, store = {view: Framing(frames=2, size=8, low_light=how)}, MemoryStore({("x", view): frames})
        if view == "depth":
            with pytest.raises(ModaliftError, match=r"low_light=clahe: 'depth' does not have 8-bit images - .*low_light=none"):
                ClipSet(table, framings, store=store)
        else:
            clips = ClipSet(table, framings, store=store)
            assert (clips[0, 0]["clips"]["rgb"] == round(255 * (16 / 255) ** 0.4)).all()


def test_wrong_settings_are_told():
    with pytest.raises(ModaliftError, match=r"framing\.low_light = 'gama'.*did you mean 'gamma'"):
        Framing(frames=2, size=8, low_light="gama")  # type: ignore[arg-type]
    with pytest.raises(ModaliftError, match=r"framing\.low_light_strength = -1\.0: must be 0 or more"):
        Framing(frames=2, size=8, low_light_strength=-1.0)
