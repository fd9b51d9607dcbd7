"""The first step of framing: images much larger than a network's clips are reduced once, before anything else.

It depends on the framing and on the image's own size alone, not on augmentation, and reducing a reduced image changes
nothing. So a store may hold reduced images: a clip is the same, bit for bit, whether its frames come from files, memory or
a lossless cache, and a network gives the same prediction for a file, an array and a stream.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from modalift.loading.framing import Framing
from modalift.modalities import Modality

#: Images whose shorter side is at least FROM times what a centered clip shows are reduced to KEPT times that, which leaves
#: augmentation a crop of half the side at full resolution.
FROM, KEPT = 3, 2


@dataclass(frozen=True)
class Reduction:
    r"""Reduces images of a view whose shorter side is far larger than its clips.

    A clip of side ``size`` with ``crop_ratio`` c shows :math:`n = \mathrm{size} / c` pixels of the shorter side, times the
    scale of the track's affine map. An image with a shorter side of 3 n or more is reduced to 2 n: it is halved by area
    averages while that stays above 2 n, and the rest, less than a half, is bilinear. Invalid readings are left out.

    Attributes:
        needed: n; 0: images stay as they are (``region="valid"``, whose crop is not known before the readings, and signals).

    Example:
        >>> Reduction(112).size(720, 1280), Reduction(112).size(224, 398), Reduction(112).size(335, 500)
        ((224, 398), (224, 398), (335, 500))
    """

    needed: float = 0.0

    @classmethod
    def of(cls, framing: Framing, modality: Modality) -> Reduction:
        """The reduction that a framing implies."""
        is_cropped = framing.region == "valid" or modality.kind == "signal"
        return cls(0.0 if is_cropped else framing.size / framing.crop_ratio)

    def __bool__(self) -> bool:
        return self.needed > 0

    def size(self, height: int, width: int, affine: tuple[float, ...] | None = None) -> tuple[int, int]:
        """Height and width of the reduced image.

        Args:
            height, width: of the image.
            affine: the track's map into its space, or None: a map that enlarges shows less of the image.
        """
        needed, short = self.needed * _scale(affine), min(height, width)
        if not needed or short < FROM * needed:
            return height, width
        kept = math.ceil(KEPT * needed)
        return max(1, round(height * kept / short)), max(1, round(width * kept / short))

    def image(self, image: np.ndarray, modality: Modality, affine: tuple[float, ...] | None = None) -> np.ndarray:
        """The reduced image ``(H, W, C)``; the same array where it is small enough."""
        height, width = self.size(image.shape[0], image.shape[1], affine)
        if (height, width) == image.shape[:2]:
            return image
        while min(image.shape[:2]) >= 2 * min(height, width):
            image = shrink(image, image.shape[0] // 2, image.shape[1] // 2, modality)
        return shrink(image, height, width, modality, cv2.INTER_LINEAR)  # six times as fast as averages of unequal parts

    def images(self, images: np.ndarray, modality: Modality, affine: tuple[float, ...] | None = None) -> np.ndarray:
        """The reduced images ``(T, H, W, C)``; the same array where they are small enough."""
        if self.size(images.shape[1], images.shape[2], affine) == images.shape[1:3] or not len(images):
            return images
        return np.stack([self.image(image, modality, affine) for image in images])


def _scale(affine: tuple[float, ...] | None) -> float:
    return 1.0 if affine is None else math.sqrt(abs(affine[0] * affine[4] - affine[1] * affine[3]))


def shrink(image: np.ndarray, height: int, width: int, modality: Modality, interpolation: int = cv2.INTER_AREA) -> np.ndarray:
    """An image ``(H, W, C)`` resized to a smaller height and width, by averages over *valid* readings.

    A pixel of which less than half is valid becomes invalid. Vectors (flow) are scaled with the image.
    """
    if (height, width) == image.shape[:2]:
        return image
    size, shape, invalid = (width, height), (height, width, image.shape[2]), modality.invalid
    if invalid is None:
        small = cv2.resize(image, size, interpolation=interpolation).reshape(shape)
        if modality.mirror == "negate_x":
            small = small * np.array([width / image.shape[1], height / image.shape[0]], image.dtype)
        return small
    valid = (image != invalid).astype(np.float32)
    share = cv2.resize(valid, size, interpolation=interpolation).reshape(shape)
    total = cv2.resize(image.astype(np.float32) * valid, size, interpolation=interpolation)
    mean = total.reshape(shape) / np.maximum(share, 1e-6)
    if image.dtype.kind == "u":
        mean = np.rint(mean)
    return np.where(share >= 0.5, mean, invalid).astype(image.dtype)
