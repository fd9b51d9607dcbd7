"""Streaming predicts what the whole clip predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modalift.deploy.stream import Stream
from modalift.errors import ModaliftError
from modalift.loading.framing import Framing
from modalift.models.recognizer import RecognizerModel
from small_models import NAMES, small_net


def _bundle(view: str = "thermal", **framing: Any) -> RecognizerModel:
    net = small_net(view=view, causal=True, motion="running")
    return RecognizerModel(net, {net.view: Framing(**{"frames": 6, "size": 24, "sampler": "dense", **framing})}, NAMES)


def _video(frames: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 30, 40, 1)).astype(np.uint8)


def test_the_last_prediction_is_that_of_the_clip() -> None:
    bundle, clip = _bundle(), _video()
    stream = Stream(bundle)
    predictions = [stream.push(frame).probabilities for frame in clip]
    np.testing.assert_allclose(predictions[-1], bundle.predict(clip).probabilities, atol=1e-5)
    for t in (1, 3):  # and every earlier one is that of the frames so far
        np.testing.assert_allclose(predictions[t - 1], bundle.logits(bundle.clips(clip)[:, :, :t]).softmax(1)[0], atol=1e-5)
    assert np.abs(predictions[0] - predictions[-1]).max() > 1e-3


def test_reset_starts_anew() -> None:
    stream, clip = Stream(_bundle()), _video()
    first = [stream.push(f).probabilities for f in clip]
    stream.reset()
    np.testing.assert_array_equal([stream.push(f).probabilities for f in clip], first)
    assert stream.frames == 6


def test_strides_are_kept() -> None:
    bundle, clip = _bundle(stride=2), _video(11)
    stream = Stream(bundle)
    predictions = [stream.push(frame[..., 0]).probabilities for frame in clip]
    np.testing.assert_allclose(predictions[-1], bundle.predict(clip).probabilities, atol=1e-5)
    np.testing.assert_array_equal(predictions[0], predictions[1])
    assert Stream(bundle, every=1).every == 1


def test_the_box_is_located_once_and_kept() -> None:
    bundle = _bundle("depth", region="valid")
    clip = np.zeros((6, 30, 40, 1), np.uint16)
    for t, frame in enumerate(clip):
        frame[6:20, 4 + 4 * t:14 + 4 * t] = 2000 + 37 * np.arange(14)[:, None, None]
    expected = bundle.predict(clip).probabilities
    located, own = Stream(bundle, reference=clip), Stream(bundle)
    for frame in clip:
        fixed, first = located.push(frame), own.push(frame)
    np.testing.assert_allclose(fixed.probabilities, expected, atol=1e-5)
    assert np.abs(first.probabilities - expected).max() > 1e-4, "the first frame's box is another one"


def test_what_cannot_stream() -> None:
    with pytest.raises(ModaliftError, match="causal=true"):
        Stream(RecognizerModel(small_net(), {"depth": Framing(frames=6, size=24)}, NAMES))
    with pytest.raises(ModaliftError, match="1 or more"):
        Stream(_bundle(), every=0)
    with pytest.raises(ModaliftError, match="channels last"):
        Stream(_bundle()).push(np.zeros((30, 40, 3), np.uint8))
