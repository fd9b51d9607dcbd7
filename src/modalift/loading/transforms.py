"""Geometric and photometric transforms: parameters are sampled first, then applied in one step.

A :class:`Geometry` is sampled per *space*; every view of that space applies it to its own pixels, by one affine map
from the output square to its source pixels. Coordinates: the output square and every image are -1..1 in x and y
(*normalized*); a region is given in *isotropic* units of its space, in which an image of aspect ratio a is 2 high and 2a
wide, so that a rotation does not shear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from modalift.loading.framing import Augment, Framing
from modalift.modalities import Modality

Array = NDArray[Any]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """The part of a space that is used: center and sides in isotropic units (the image is 2 high)."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Geometry:
    """A crop, rotation and flip relative to a region, shared by the views of a space.

    Attributes:
        side: the crop's side as a fraction of the framing's.
        aspect: width over height.
        angle: rotation, radians.
        position: position of the crop in the region, (-1..1, -1..1); 0 is the center.
        along: further displacement of the position along the region's longer side, -1..1.
        shift: further displacement as a fraction of the crop's side.
        flip: whether the image is mirrored in x.
    """

    side: float = 1.0
    aspect: float = 1.0
    angle: float = 0.0
    position: tuple[float, float] = (0.0, 0.0)
    along: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    flip: bool = False

    def matrix(self, region: Region, framing: Framing) -> Matrix:
        """3 x 3 map from the output square (-1..1) to the space's isotropic units."""
        width, height = region.width, region.height
        if framing.fit == "short":
            width = height = min(width, height)
        width, height = width * framing.crop_ratio * self.side, height * framing.crop_ratio * self.side
        across, down = self.position
        if region.width >= region.height:
            across += self.along
        else:
            down += self.along
        # The free space is that of the unrotated crop; a crop wider than the region stays centered.
        x = region.x + across * max(0.0, region.width - width) / 2 + self.shift[0] * width
        y = region.y + down * max(0.0, region.height - height) / 2 + self.shift[1] * height
        width, height = width * math.sqrt(self.aspect), height / math.sqrt(self.aspect)
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        mirror = -1.0 if self.flip else 1.0
        return np.array([[mirror * cos * width / 2, -sin * height / 2, x],
                         [mirror * sin * width / 2, cos * height / 2, y], [0.0, 0.0, 1.0]])


_CORNERS = ((-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0), (0.0, 0.0))


def sample_geometry(augment: Augment, rng: np.random.Generator, flip: bool = False) -> Geometry:
    """Samples a geometry; draws the same number of random numbers whichever augmentations are enabled."""
    side, aspect, angle, *rest = rng.random(8).tolist()
    if augment.scales:
        chosen = augment.scales[min(int(side * len(augment.scales)), len(augment.scales) - 1)]
    else:
        chosen = augment.scale[0] + side * (augment.scale[1] - augment.scale[0])
    position = (0.0, 0.0)
    if augment.crop == "random":
        position = (2 * rest[0] - 1, 2 * rest[1] - 1)
    elif augment.crop == "corner":
        position = _CORNERS[int(rest[2] * 5)]
    low, high = math.log(augment.aspect[0]), math.log(augment.aspect[1])
    rotation = math.radians(augment.rotate) * (2 * angle - 1)
    return Geometry(chosen, math.exp(low + aspect * (high - low)), rotation, position, 0.0,
                    (augment.shift * (2 * rest[3] - 1), augment.shift * (2 * rest[4] - 1)), flip)


def crop_geometry(crop: int = 0, crops: int = 1) -> Geometry:
    """The ``crop``-th of 1 (center), 3 (along the longer side) or 5 (corners and center) crops, without randomness."""
    if crops == 5:
        return Geometry(position=_CORNERS[crop])
    return Geometry(along=float(crop - 1) if crops == 3 else 0.0)


def pixel_map(to_space: Matrix, aspect: float, affine: tuple[float, ...] | None, width: int, height: int,
              size: int) -> Matrix:
    """2 x 3 map from output pixels to a view's source pixels.

    Args:
        to_space: 3 x 3 map from the output square to isotropic units of the space.
        aspect: width over height of the space's image.
        affine: the track's map from its own normalized coordinates to the space's, or None.
        width, height: size of the view's images, pixels.
        size: the output's side, pixels.
    """
    square = np.array([[2 / size, 0, 1 / size - 1], [0, 2 / size, 1 / size - 1], [0, 0, 1.0]])
    to_view = to_space @ square
    to_view[0] /= aspect
    if affine is not None:
        to_view = np.linalg.inv(np.array([*affine, 0.0, 0.0, 1.0]).reshape(3, 3)) @ to_view
    pixels = np.array([[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2]])
    return pixels @ to_view


def warp(frames: Array, matrix: Matrix, size: int, modality: Modality) -> tuple[Array, Array | None]:
    """Resamples frames through an affine map.

    The source is cropped to the part that the output shows. A reduction by a factor of 1.5 or more is done by area averaging
    (by the nearest integer factor) before bilinear sampling, so that thin objects neither vanish nor flicker. Invalid
    readings are excluded: values and mask are interpolated separately and divided, and the result is valid where the mask
    exceeds one half, so no depth between that of a hand and that of the wall behind it arises. Vectors (flow) are rotated,
    mirrored and scaled with the image. Outside the image, depth is invalid, flow is zero, and other images repeat their edge.

    Args:
        frames: ``(T, H, W, C)`` uint8, uint16 or float32.
        matrix: 2 x 3, from output pixels to source pixels.
        size: the output's side S, pixels.
        modality: tells which readings are invalid and how readings change in a mirror image.

    Returns:
        ``(C, T, S, S)`` in the frames' dtype (float32 for uint16), and ``(1, T, S, S)`` bool or None.
    """
    source, matrix, (width, height) = _crop_source(frames, matrix, size)
    if source is None:
        out = np.zeros((frames.shape[3], len(frames), size, size), np.uint8 if frames.dtype == np.uint8 else np.float32)
        return out, None if modality.invalid is None else np.zeros((1, *out.shape[1:]), bool)
    shrink = (width, height) != source.shape[2:0:-1]

    def resample(image: Array, border: int) -> Array:
        if shrink:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        resampled: Array = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                                     borderMode=border)
        return resampled

    if modality.invalid is not None:
        return _warp_valid_readings(source, size, resample, modality)
    border = cv2.BORDER_CONSTANT if modality.mirror == "negate_x" else cv2.BORDER_REPLICATE
    out = np.empty((source.shape[3], len(source), size, size), source.dtype)
    for t, image in enumerate(source):
        if len(out) == 1:
            out[0, t] = resample(image[..., 0], border)
        else:
            for c, plane in enumerate(cv2.split(resample(image, border))):  # much faster than a transpose
                out[c, t] = plane
    if modality.mirror == "negate_x":
        linear = np.linalg.inv(_linear(matrix, width / source.shape[2], height / source.shape[1]))
        out = (linear.astype(np.float32) @ out.reshape(2, -1)).reshape(out.shape)
    return (out if out.dtype == np.uint8 else out.astype(np.float32, copy=False)), None


def _linear(matrix: Matrix, x: float, y: float) -> Matrix:
    """The linear part in source pixels; ``matrix`` maps into an image resized by the factors x and y."""
    return matrix[:, :2] / np.array([[x], [y]])


def _crop_source(frames: Array, matrix: Matrix, size: int) -> tuple[Array | None, Matrix, tuple[int, int]]:
    """The part of the source that the output shows, the map into its reduced form, and the reduced width and height."""
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    factor = max(1, round(scale))
    corners = matrix @ np.array([[0, size - 1, 0, size - 1], [0, 0, size - 1, size - 1], [1, 1, 1, 1]])
    matrix = matrix.copy()
    window, shrunk = [], []
    for axis, length in ((0, frames.shape[2]), (1, frames.shape[1])):
        low = max(0, math.floor(corners[axis].min()) - factor)
        high = min(length, math.ceil(corners[axis].max()) + factor + 1)
        if low >= high:
            return None, matrix, (0, 0)
        # A multiple of the factor where the image is large enough: the average is then fast and exact.
        high = min(length, low + -(-(high - low) // factor) * factor)
        low = max(0, high - -(-(high - low) // factor) * factor)
        small = max(1, round((high - low) / factor))
        ratio = small / (high - low)
        matrix[axis] *= ratio
        matrix[axis, 2] += (0.5 - low) * ratio - 0.5
        window.append(slice(low, high))
        shrunk.append(small)
    return frames[:, window[1], window[0]], matrix, (shrunk[0], shrunk[1])


def _warp_valid_readings(source: Array, size: int, resample: Any, modality: Modality) -> tuple[Array, Array]:
    """Resampled valid readings, divided by the resampled mask."""
    channels = source.shape[3]
    valid = (source != modality.invalid).all(-1)
    # 16-bit readings stay integers (the fast path of OpenCV); the mask is a 15-bit fraction.
    whole = source.dtype == np.uint16
    kept = source if modality.invalid == 0 else np.where(valid[..., None], source, 0).astype(source.dtype)
    mask = valid.astype(np.uint16) << 15 if whole else valid.astype(np.float32)
    out = np.empty((channels, len(source), size, size), source.dtype)
    share = np.empty((1, len(source), size, size), mask.dtype)
    for t in range(len(source)):
        share[0, t] = resample(mask[t], cv2.BORDER_CONSTANT)
        for c in range(channels):
            out[c, t] = resample(kept[t, ..., c], cv2.BORDER_CONSTANT)
    full = 32768.0 if whole else 1.0
    good = share > full / 2
    value = out.astype(np.float32)
    part = share.astype(np.float32) * np.float32(1.0 / full)
    np.divide(value, part, out=value, where=np.broadcast_to(good, out.shape))
    np.copyto(value, np.float32(modality.invalid or 0.0), where=~good)
    return value, good


def valid_box(frames: Array, modality: Modality) -> tuple[float, float, float, float]:
    """The bounding box of a clip's valid readings, robust to isolated pixels: x0, y0, x1, y1, normalized (-1..1).

    A pixel counts if any frame has a valid reading there; single pixels and lines are removed (3 x 3 opening), and the
    outermost thousandth of the remaining pixels is ignored on every side.

    Args:
        frames: ``(T, H, W, C)``.
        modality: a modality that marks invalid readings.
    """
    mask = (frames != modality.invalid).any(axis=(0, 3)).astype(np.uint8)
    solid = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    if not solid.any():
        solid = mask
    if not solid.any():
        return -1.0, -1.0, 1.0, 1.0
    box = []
    for axis in (0, 1):
        profile = np.cumsum(solid.sum(axis=axis, dtype=np.int64))
        low = int(np.searchsorted(profile, profile[-1] * 0.001, side="right"))
        high = int(np.searchsorted(profile, profile[-1] * 0.999, side="left")) + 1
        box.append((2 * low / len(profile) - 1, 2 * high / len(profile) - 1))
    return box[0][0], box[1][0], box[0][1], box[1][1]


# ---- photometric ----------------------------------------------------------------------------------------------------

_GRAY = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def photometric(clip: Array, valid: Array | None, modality: Modality, augment: Augment,
                rng: np.random.Generator) -> Array:
    """Random changes of light and range that the modality allows; parameters are constant over a clip, except for noise.

    Args:
        clip: ``(C, T, H, W)`` uint8 or float32.
        valid: ``(1, T, H, W)`` bool or None; invalid readings stay invalid.
    """
    allowed = modality.photometric
    exposure, contrast, saturation, hue, chance, sigma, scale, offset = rng.random(8).tolist()
    if "range" in allowed and (augment.depth_scale or augment.depth_offset):
        changed = clip * np.float32(1 + augment.depth_scale * (2 * scale - 1))
        changed += np.float32(augment.depth_offset * (2 * offset - 1))
        np.clip(changed, modality.low, modality.high, out=changed)
        return changed if valid is None else np.where(valid, changed, clip)
    if clip.dtype != np.uint8:
        return clip
    if chance < augment.photometric:
        if clip.shape[0] == 3 and "saturation" in allowed and (augment.saturation or augment.hue):
            clip = _color(clip, 1 + augment.saturation * (2 * saturation - 1), math.tau * augment.hue * (2 * hue - 1))
        gain = 1 + augment.brightness * (2 * exposure - 1) if "brightness" in allowed else 1.0
        spread = 1 + augment.contrast * (2 * contrast - 1) if "contrast" in allowed else 1.0
        if gain != 1.0 or spread != 1.0:
            middle = float(clip.mean()) * gain
            table = np.clip((np.arange(256) * gain - middle) * spread + middle + 0.5, 0, 255).astype(np.uint8)
            clip = cv2.LUT(clip.reshape(clip.shape[0], -1), table).reshape(clip.shape)
    if augment.noise and "noise" in allowed:
        noisy = rng.standard_normal(clip.shape, dtype=np.float32)
        noisy *= np.float32(augment.noise * sigma)
        noisy += clip
        clip = np.clip(np.rint(noisy, out=noisy), 0, 255, out=noisy).astype(np.uint8)
    return clip


def _color(clip: Array, saturation: float, rotation: float) -> Array:
    """Changes saturation and hue (in YIQ); brightness is kept."""
    cos, sin = saturation * math.cos(rotation), saturation * math.sin(rotation)
    matrix = np.linalg.inv(_YIQ) @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _YIQ
    pixels = cv2.merge([plane.reshape(-1, clip.shape[-1]) for plane in clip])
    return np.stack(cv2.split(cv2.transform(pixels, matrix))).reshape(clip.shape)


# ---- signals --------------------------------------------------------------------------------------------------------


def transform_signal(signal: Array, modality: Modality, augment: Augment, rng: np.random.Generator) -> Array:
    """Randomly changes the amplitude, orientation and noise of a signal ``(C, T, 1, 1)`` float32.

    Joints (triplets in meters) are scaled and rotated about the vertical axis through their mean over the clip;
    other signals are multiplied.
    """
    size, rotation = (2 * rng.random(2) - 1).tolist()
    scale = 1 + augment.signal_scale * size
    if modality.unit == "m" and signal.shape[0] % 3 == 0 and (augment.signal_rotate or augment.signal_scale):
        joints = signal.reshape(-1, 3, signal.shape[1])
        center = joints.mean(axis=(0, 2), keepdims=True)
        angle = math.radians(augment.signal_rotate) * rotation
        one, other = [axis for axis in range(3) if axis != augment.vertical]
        matrix = np.eye(3)
        matrix[one, one] = matrix[other, other] = math.cos(angle)
        matrix[one, other], matrix[other, one] = -math.sin(angle), math.sin(angle)
        transformed = (matrix * scale).astype(np.float32) @ (joints - center) + center
        signal = transformed.reshape(signal.shape)
    elif augment.signal_scale:
        signal = signal * np.float32(scale)
    if augment.signal_noise:
        spread = signal.std(axis=1, keepdims=True) * np.float32(augment.signal_noise)
        signal = signal + spread * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.ascontiguousarray(signal, dtype=np.float32)
