"""One frame at a time: the answer so far, at the cost of one frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalift.deploy.bundle import Bundle, Prediction, answer
from modalift.deploy.framed import as_frames
from modalift.errors import ModaliftError
from modalift.loading.clips import ClipSet
from modalift.loading.stores import Memory
from modalift.modalities import Row, Table, Track

_KEY = ("stream", "view")


class Stream:
    """Feeds a bundle's network with frames as they come.

    After the last frame of a clip the answer equals that for the whole clip (a center crop, one view in time), up to
    the rounding of sums in another order.

    Args:
        bundle: of a network that streams (``small`` with ``causal=true``).
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

    def __init__(self, bundle: Bundle, *, every: int | None = None, around: NDArray[Any] | None = None) -> None:
        if not bundle.net.streams:
            name = bundle.net.config.get("name", "?")
            raise ModaliftError(f"{bundle.path or 'bundle'}: its network '{name}' needs the whole"
                                " clip - train `small` with causal=true and motion=running to stream")
        dense = bundle.framing.sampler == "dense"
        self.every = every if every is not None else bundle.framing.stride if dense else 1
        if self.every < 1:
            raise ModaliftError(f"every is {self.every} - it must be 1 or more")
        self.bundle = bundle
        self._around = None if around is None else as_frames(around, bundle.modality)
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the next frame is the first."""
        modality = self.bundle.modality
        row = Row(_KEY[0], None, "", "test", {_KEY[1]: Track(Path("stream"))})
        still = replace(self.bundle.framing, frames=1, sampler="segments")
        self._memory = Memory({} if self._around is None else {_KEY: self._around})
        # One clip set for the whole sequence: it looks for the box once and remembers it.
        self._clips = ClipSet(Table("stream", (), {_KEY[1]: modality}, (row,)), {_KEY[1]: still}, cache=self._memory)
        if self._around is not None:
            self._clips[0, 0]
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
            self._memory.arrays[_KEY] = as_frames(np.asarray(frame)[None], self.bundle.modality)
            clip = torch.from_numpy(self._clips[0, 0]["clips"][_KEY[1]])[None].float()
            device = next(self.bundle.net.parameters()).device
            self._logits, self._state = self.bundle.net.step(clip.to(device), self._state)
        self.frames += 1
        assert self._logits is not None
        return answer(f"frame {self.frames}", self._logits[0].softmax(0).cpu().numpy(), self.bundle.classes, top)
