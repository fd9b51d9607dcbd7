"""Framing, Augment, Protocol: how a recording of any length and size becomes the clips of a network."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import AfterValidator, Field

from modalift.loading.low_light import Method
from modalift.settings import Settings


class Framing(Settings):
    """How a recording becomes a clip, identically in training, evaluation and deployment; nothing here is random.

    Example:
        >>> Framing(frames=8, size=64, sampler="dense").stride
        1
        >>> Framing(frames=0)
        Traceback (most recent call last):
        modalift.errors.ModaliftError: framing.frames = 0: must be 1 or more
    """

    frames: int = Field(16, ge=1, description="number of frames of a clip (T)")
    size: int = Field(112, ge=1, description="height and width of a clip, pixels; signals have 1")
    sampler: Literal["segments", "dense", "whole"] = Field(
        "segments", description="`segments`: one frame from each of T equal segments of the recording, a random one in"
        " training, the center one in evaluation; `dense`: T frames, `stride` apart; `whole`: every frame, and the clips of a"
        " batch are padded to the longest")
    stride: int = Field(1, ge=1, description="distance between consecutive frames of a dense window, in frames")
    pad: Literal["edge", "zeros", "loop"] = Field(
        "edge", description="what fills a dense window that is longer than the recording: the `edge` frame, `zeros` (split"
        " randomly between both ends in training, evenly in evaluation), or the recording again (`loop`)")
    region: Literal["whole", "valid"] = Field(
        "whole", description="the part of the image that is used: all of it, or the square bounding box of all `valid`"
        " readings of the clip (for depth recordings that contain only the segmented person)")
    margin: float = Field(
        0.1, ge=0, description="by how much the bounding box of `valid` readings is enlarged, as a fraction of its side")
    fit: Literal["stretch", "short"] = Field(
        "short", description="`stretch` the region to a square, or resize its `short` side and crop the long one")
    crop_ratio: float = Field(
        1.0, gt=0, le=1, description="side of the crop as a fraction of the region's (short) side; 0.875 is \"resize to 256,"
        " crop 224\"")
    low_light: Method = Field(
        "none", description="enhancement of dark 8-bit images before the network; usually set for one view in `per_view`")
    low_light_strength: float = Field(
        0.0, ge=0, description="the exponent of `gamma`, or the clip limit of `clahe`; 0: the default of 2.5 or 4")


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("give the smaller number first")
    return pair


_Scale = Annotated[float, Ge(0.05), Le(4)]
_Aspect = Annotated[float, Ge(0.25), Le(4)]
_Speed = Annotated[float, Ge(0.1), Le(4)]


class Augment(Settings):
    """Random augmentation of training clips; by default, only the frame that is taken from each segment is random.

    Geometric changes are sampled once per space (aligned views change together), temporal changes and the horizontal flip
    once per clip, and photometric changes once per view. Every parameter is constant over a clip, except for noise.

    Example:
        >>> Augment(crop="corner", scales=(1, 7/8, 3/4, 2/3)).scales[0]
        1.0
        >>> Augment(flip=2)
        Traceback (most recent call last):
        modalift.errors.ModaliftError: augment.flip = 2: must lie in [0, 1]
    """

    crop: Literal["center", "random", "corner"] = Field(
        "center", description="where the crop lies in the region: at its center, at a `random` position, or at one of the four"
        " corners or the center (`corner`)")
    scale: Annotated[tuple[_Scale, _Scale], AfterValidator(_ascending)] = Field(
        (1.0, 1.0), description="range of the crop's side as a fraction of the framing's; below 1 zooms in")
    scales: tuple[_Scale, ...] = Field(
        (), description="choose the crop's side from these fractions instead of from `scale`; MSD: [1, 0.875, 0.75, 0.66]")
    aspect: Annotated[tuple[_Aspect, _Aspect], AfterValidator(_ascending)] = Field(
        (1.0, 1.0), description="range of the crop's width over its height, log-uniform")
    rotate: float = Field(0.0, ge=0, le=180, description="largest rotation in either direction, degrees")
    shift: float = Field(0.0, ge=0, le=1, description="largest displacement in x and in y, as a fraction of the crop's side")
    flip: float = Field(
        0.0, ge=0, le=1, description="probability of a horizontal flip; only clips whose label has a mirrored counterpart (to"
        " which it changes) and whose views can all be mirrored are flipped")
    speed: Annotated[tuple[_Speed, _Speed], AfterValidator(_ascending)] = Field(
        (1.0, 1.0), description="range of the fraction of the recording that a clip covers; above 1 its end frames repeat")
    warp: float = Field(
        0.0, ge=0, le=0.95, description="largest relative change of the playback speed within a clip (time warping)")
    brightness: float = Field(0.0, ge=0, le=1, description="largest relative change of the exposure of 8-bit views")
    contrast: float = Field(0.0, ge=0, le=1, description="largest relative change of contrast around the clip's mean")
    saturation: float = Field(0.0, ge=0, le=1, description="largest relative change of saturation")
    hue: float = Field(0.0, ge=0, le=0.5, description="largest rotation of the hue circle, in turns")
    photometric: float = Field(
        1.0, ge=0, le=1, description="probability that brightness, contrast, saturation and hue are changed at all (MSD: 0.4)")
    noise: float = Field(
        0.0, ge=0, le=128, description="largest standard deviation of added noise, gray levels; independent in every frame")
    depth_scale: float = Field(0.0, ge=0, le=0.5, description="largest relative change of depth")
    depth_offset: float = Field(0.0, ge=0, le=5000, description="largest offset of depth, mm")
    signal_scale: float = Field(
        0.0, ge=0, le=0.9, description="largest relative change of a signal's amplitude (joints: relative to their center)")
    signal_rotate: float = Field(
        0.0, ge=0, le=180, description="largest rotation of joints about the vertical axis through their center, degrees")
    signal_noise: float = Field(
        0.0, ge=0, le=5, description="standard deviation of noise, as a fraction of that of each channel over the clip")
    vertical: Literal[0, 1, 2] = Field(1, description="index of a joint's vertical coordinate")

    @classmethod
    def strong(cls) -> Augment:
        """Strong augmentation for small datasets: affine changes without flips, and changes of light, depth, size and speed."""
        return cls(crop="center", scale=(0.9, 1.25), aspect=(0.85, 1.18), rotate=12.0, shift=0.08, speed=(0.8, 1.1),
                   warp=0.3, brightness=0.3, contrast=0.3, saturation=0.3, noise=4.0, depth_scale=0.05,
                   depth_offset=150.0, signal_scale=0.15, signal_rotate=25.0, signal_noise=0.05)


class Protocol(Settings):
    """How many clips per recording are evaluated: probabilities are averaged over ``temporal_crops * spatial_crops``.

    Example:
        >>> Protocol(spatial_crops=2)
        Traceback (most recent call last):
        modalift.errors.ModaliftError: protocol.spatial_crops = 2: Input should be 1, 3 or 5
    """

    temporal_crops: int = Field(1, ge=1, le=1000, description="clips per recording, evenly spaced in time")
    spatial_crops: Literal[1, 3, 5] = Field(
        1, description="crops per temporal crop: the center, three along the longer side, or the four corners and the center")

    @property
    def crops(self) -> int:
        """Clips per recording."""
        return self.temporal_crops * self.spatial_crops
