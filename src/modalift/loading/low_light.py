"""Low-light enhancement without learning: a baseline for networks that are taught by another sensor."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Method = Literal["none", "gamma", "clahe"]
#: Default strengths (used where the strength is 0): the exponent of gamma, the clip limit of CLAHE.
DEFAULT_STRENGTH = {"gamma": 2.5, "clahe": 4.0}


def enhance(clip: NDArray[np.uint8], method: Method, strength: float = 0.0) -> NDArray[Any]:
    r"""Brightens gray values ``(C, T, H, W)`` frame by frame; ``strength`` 0 is the method's default.

    ``gamma``: :math:`u' = 255\,(u / 255)^{1/\gamma}`. ``clahe``: histogram equalization in each of 8 x 8 tiles, whose
    slope is limited to ``strength`` times that of a uniform histogram. For color images it is applied to the luminance,
    and the ratios of the colors to the luminance are kept.

    Source: CLAHE: Zuiderveld, *Contrast limited adaptive histogram equalization*, Graphics Gems IV, 1994.

    Example:
        >>> enhance(np.full((1, 1, 2, 2), 64, np.uint8), "gamma", 2.0).max()
        np.uint8(128)
    """
    if method == "none":
        return clip
    strength = strength or DEFAULT_STRENGTH[method]
    if method == "gamma":
        table = np.rint(255 * (np.arange(256) / 255) ** (1 / strength)).astype(np.uint8)
        return cv2.LUT(clip.reshape(clip.shape[0], -1), table).reshape(clip.shape)
    equalize = cv2.createCLAHE(strength, (8, 8))
    enhanced = np.empty_like(clip)
    for t in range(clip.shape[1]):
        if clip.shape[0] != 3:
            for c in range(clip.shape[0]):
                enhanced[c, t] = equalize.apply(np.ascontiguousarray(clip[c, t]))
            continue
        luminance = np.tensordot((0.299, 0.587, 0.114), clip[:, t].astype(np.float32), 1)
        equalized = equalize.apply(np.rint(luminance).astype(np.uint8))
        enhanced[:, t] = np.clip(clip[:, t] * (equalized / np.maximum(luminance, 1.0))[None] + 0.5, 0, 255)
    return enhanced
