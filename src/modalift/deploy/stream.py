"""One frame at a time: the answer so far, at the cost of one frame."""

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
    """Feeds a bundle's network with frames as they come.

    After the last frame of a clip the answer equals that for the whole clip (one centered crop), up to
    the rounding of sums in another order.

    Args:
        model: of a network that streams (``small`` with ``causal=true``).
        every: takes every ``every``-th frame only; by default the stride of a dense framing, else 1. Choose it such
            that frames are as far apart as they were in training.
        around: frames ``(T, H, W, C)`` in which a framing with ``region="valid"`` looks for the person; by default the
            first frame of each sequence. The box then stays where it is until :meth:`reset`.

    Raises:
        ModaliftError: a network that needs the whole clip.

    Example::

        stream = Stream(ml.load("small.modalift"))
        for frame in camera:                     # (H, W, C) in the sensor's unit
            print(stream.push(frame).label)
    """

    def __init__(self, model: RecognizerModel, *, every: int | None = None, around: NDArray[Any] | None = None) -> None:
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
        self._around = None if around is None else self._framer.locate(as_frames(around, model.modality))
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the next frame is the first."""
        self._place = self._around
        self._state: Any = None
        self._logits: Tensor | None = None
        #: Frames pushed since the start of the sequence.
        self.frames = 0

    @torch.inference_mode()
    def push(self, frame: NDArray[Any], top: int = 5) -> Prediction:
        """The answer after one more frame ``(H, W, C)`` (or ``(H, W)`` of one channel), in the sensor's unit.

        Raises:
            ModaliftError: a frame of the wrong shape, or one that the sensor cannot have said.
        """
        if self.frames % self.every == 0:
            frames = as_frames(np.asarray(frame)[None], self.model.modality)
            if self._place is None:
                self._place = self._framer.locate(frames)
            clip = torch.from_numpy(self._framer(frames, centered(), Geometry(), place=self._place)[0])[None].float()
            device = next(self.model.network.parameters()).device
            self._logits, self._state = self.model.network.step(clip.to(device), self._state)
        self.frames += 1
        assert self._logits is not None
        return Prediction.of(f"frame {self.frames}", self._logits[0].softmax(0).cpu().numpy(), self.model.classes, top)
