"""Similarity of two clips of images: PSNR, SSIM, edge correlation, flicker."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from modalift.errors import ModaliftError

Clip = NDArray[Any]  # (T, H, W, C)


def psnr(generated: Clip, real: Clip, span: float = 255.0) -> float:
    r"""Peak signal-to-noise ratio in dB: :math:`10 \log_{10}(\text{span}^2 / \overline{(x - y)^2})`, at most 100.

    Example:
        >>> a = np.full((1, 4, 4, 1), 100.0)
        >>> round(psnr(a, a + 25.5), 6)  # a tenth of the range everywhere
        20.0
    """
    error = float(np.square(np.asarray(generated, np.float64) - real).mean())
    return min(100.0, 10 * float(np.log10(span**2 / error))) if error else 100.0


def ssim(generated: Clip, real: Clip, span: float = 255.0) -> float:
    r"""Structural similarity: the mean over all windows inside the image, over channels and frames, of

    .. math::
        \frac{(2\mu_x\mu_y + C_1)(2\sigma_{xy} + C_2)}{(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)}

    with a Gaussian window of 11 x 11 and sigma 1.5 (a smaller one for images below 11 pixels),
    :math:`C_1 = (.01\,\text{span})^2` and :math:`C_2 = (.03\,\text{span})^2`.

    Source: Wang et al., *Image quality assessment: from error visibility to structural similarity*, 2004, equation 13.
    """
    size = min(11, *generated.shape[1:3])
    size -= 1 - size % 2
    window, edge = cv2.getGaussianKernel(size, 1.5), size // 2
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2

    def mean(x: Clip) -> Clip:
        blurred = cv2.sepFilter2D(x, cv2.CV_64F, window, window)
        return blurred[edge: x.shape[0] - edge, edge: x.shape[1] - edge]

    each = []
    for x, y in _planes(generated, real):
        mx, my = mean(x), mean(y)
        vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
        each.append(((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())
    return float(np.mean(each))


def edge_correlation(generated: Clip, real: Clip) -> float:
    """Correlation of the two images' edges (Sobel magnitudes), mean over frames and channels; 0 where one has none.

    Insensitive to brightness, contrast and polarity: a silhouette in the right place counts, whatever its gray value.
    """
    each = []
    for x, y in _planes(generated, real):
        a, b = (np.hypot(cv2.Sobel(p, cv2.CV_64F, 1, 0), cv2.Sobel(p, cv2.CV_64F, 0, 1)).ravel() for p in (x, y))
        a, b = a - a.mean(), b - b.mean()
        norm = float(np.sqrt((a @ a) * (b @ b)))
        each.append(float(a @ b) / norm if norm > 1e-9 else 0.0)
    return float(np.mean(each))


def flicker(generated: Clip, reference: Clip) -> float | None:
    """Mean change from frame to frame, over that of a reference (the target, or the input where there is none).

    1: changes as much as the reference; above 1: flickers. None for one frame or a constant reference. Both clips are
    scaled such that their sensor's range is 1.
    """
    if len(generated) < 2:
        return None
    own, other = (float(np.abs(np.diff(np.asarray(x, np.float64), axis=0)).mean()) for x in (generated, reference))
    return own / other if other > 0 else None


def _planes(generated: Clip, real: Clip) -> list[tuple[Clip, Clip]]:
    """Pairs of single-channel images ``(H, W)`` float64."""
    if generated.shape != real.shape or generated.ndim != 4:
        raise ModaliftError(f"images of {generated.shape} and {real.shape} cannot be compared - give both (T, H, W, C)")
    x, y = (np.ascontiguousarray(v.transpose(0, 3, 1, 2), np.float64).reshape(-1, *v.shape[1:3]) for v in (generated, real))
    return list(zip(x, y, strict=True))
