"""Streaming: a prediction after every frame, at the cost of one frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalift.errors import ModaliftError
from modalift.loading.framer import Framer
from modalift.loading.recording import as_frames
from modalift.loading.sampling import centered
from modalift.loading.transforms import Geometry
from modalift.models.prediction import Prediction
from modalift.models.recognizer import RecognizerModel


class Stream:
    """Runs a recognizer frame by frame.

    After the last frame of a clip the prediction equals that of the whole clip (one centered crop), up to
    the rounding of sums in another order.

    Args:
        model: a recognizer whose network streams (``small`` with ``causal=true``).
        every: uses only every ``every``-th frame; by default the stride of a dense framing, else 1. Choose it such
            that frames are as far apart as in training.
        reference: frames ``(T, H, W, C)`` in which a framing with ``region="valid"`` locates the person; by default the
            first frame of each sequence. The box is then fixed until :meth:`reset`.

    Raises:
        ModaliftError: a network that needs the whole clip, or ``every`` below 1.

    Example::

        stream = Stream(ml.load("small.modalift"))
        for frame in camera:                     # (H, W, C) in the sensor's unit
            print(stream.push(frame).label)
    """

    def __init__(self, model: RecognizerModel, *, every: int | None = None, reference: NDArray[Any] | None = None) -> None:
        if not isinstance(model, RecognizerModel):
            raise ModaliftError(f"{model.name}: holds a {model.kind}, not a recognizer - {model.advice}")
        if not model.network.streams:
            name = model.network.config.get("name", "?")
            raise ModaliftError(f"{model.path or 'bundle'}: its network '{name}' needs the whole"
                                " clip - train `small` with causal=true and motion=running to stream")
        dense = model.framing.sampler == "dense"
        self.every = every if every is not None else model.framing.stride if dense else 1
        if self.every < 1:
            raise ModaliftError(f"every is {self.every} - it must be 1 or more")
        self.model = model
        self._framer = Framer(model.modality, model.framing.replace(frames=1, sampler="segments"))
        self._reference_box = None if reference is None else self._framer.locate(as_frames(reference, model.modality))
        self.reset()

    def reset(self) -> None:
        """Starts a new sequence with the next frame."""
        self._placement = self._reference_box
        self._state: Any = None
        self._logits: Tensor | None = None
        #: Frames pushed since the start of the sequence.
        self.frames = 0

    @torch.inference_mode()
    def push(self, frame: NDArray[Any], top: int = 5) -> Prediction:
        """The prediction after one more frame ``(H, W, C)`` (or ``(H, W)`` of one channel), in the sensor's unit.

        Args:
            frame: the frame; of those that ``every`` skips only the count changes, and the prediction is the last one.
            top: number of classes in :attr:`Prediction.top`.

        Raises:
            ModaliftError: a frame of the wrong shape, or with values outside the sensor's range.
        """
        if self.frames % self.every == 0:
            frames = as_frames(np.asarray(frame)[None], self.model.modality)
            if self._placement is None:
                self._placement = self._framer.locate(frames)
            clip = torch.from_numpy(self._framer(frames, centered(), Geometry(), placement=self._placement)[0])[None].float()
            device = next(self.model.network.parameters()).device
            self._logits, self._state = self.model.network.step(clip.to(device), self._state)
        self.frames += 1
        assert self._logits is not None
        return Prediction.of(f"frame {self.frames}", self._logits[0].softmax(0).cpu().numpy(), self.model.classes, top)
