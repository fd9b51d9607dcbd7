"""Framing: how a recording of any length and size becomes a network's clip, without chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sampler = Literal["segments", "dense", "whole"]
Pad = Literal["edge", "zeros", "loop"]
Region = Literal["whole", "valid"]
Fit = Literal["stretch", "short"]


@dataclass(frozen=True)
class Framing:
    """What training, evaluation and the shipped bundle must do alike to a recording.

    Attributes:
        frames: frames of the clip (T).
        size: height and width of the clip in pixels; 1 for signals.
        sampler: ``segments`` (T equal segments of the clip, one frame each: random inside in training, the centre in
            test), ``dense`` (T neighbouring frames, ``stride`` apart) or ``whole`` (every frame, T as recorded; clips
            of a batch are padded to the longest).
        stride: frames between neighbours of a dense window.
        pad: what stands where a dense window is longer than the clip: the ``edge`` frame, ``zeros`` (at random sides
            in training, at both sides alike in test), or the clip again (``loop``).
        region: ``whole`` picture, or the square box around all ``valid`` readings of the clip (a person that a depth
            camera cut out), widened by ``margin`` of its side.
        margin: see ``region``.
        fit: ``stretch`` the region to the square, or scale its ``short`` side and crop.
    """

    frames: int
    size: int
    sampler: Sampler = "segments"
    stride: int = 1
    pad: Pad = "edge"
    region: Region = "whole"
    margin: float = 0.1
    fit: Fit = "short"
