"""Image similarity, against values computed in another way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modalift.errors import ModaliftError
from modalift.models.image_similarity import edge_correlation, flicker, psnr, ssim
from modalift.models.translator import mean_figures

RNG = np.random.default_rng(0)


def noise(height: int = 16, width: int = 19, frames: int = 1) -> np.ndarray:
    return RNG.integers(0, 256, (frames, height, width, 1)).astype(np.float32)


def literal_ssim(x: np.ndarray, y: np.ndarray, span: float = 255.0) -> float:
    """Equation 13 of Wang et al., one window at a time."""
    w = np.array([[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)])
    w /= w.sum()
    c1, c2, found = (0.01 * span) ** 2, (0.03 * span) ** 2, []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i:i + 11, j:j + 11].astype(float), y[i:i + 11, j:j + 11].astype(float)
            ma, mb = (w * a).sum(), (w * b).sum()
            va, vb, vab = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
            found.append((2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(found))


def test_psnr():
    x = noise()
    assert psnr(x, x) == 100
    assert psnr(np.zeros((1, 8, 8, 1)), np.full((1, 8, 8, 1), 255.0)) == pytest.approx(0)
    assert psnr(np.zeros((1, 8, 8, 1)), np.full((1, 8, 8, 1), 1.0)) == pytest.approx(20 * math.log10(255))
    assert psnr(np.zeros((1, 8, 8, 1)), np.full((1, 8, 8, 1), 1.0), span=10) == pytest.approx(20)


def test_ssim_is_the_literal_formula():
    x, y = noise(), noise()
    assert ssim(x, x) == pytest.approx(1)
    assert ssim(x, y) == pytest.approx(literal_ssim(x[0, ..., 0], y[0, ..., 0]), rel=1e-9)
    mixed = 0.7 * x + 0.3 * y
    assert ssim(x, mixed) == pytest.approx(literal_ssim(x[0, ..., 0], mixed[0, ..., 0]), rel=1e-9)
    flat = [np.full((1, 12, 12, 1), v) for v in (50.0, 100.0)]
    c1 = 2.55**2
    assert ssim(*flat) == pytest.approx((2 * 5000 + c1) / (2500 + 10000 + c1))
    assert ssim(np.concatenate([x, x]), np.concatenate([x, y])) == pytest.approx((1 + ssim(x, y)) / 2)
    assert ssim(x[:, :6, :6], x[:, :6, :6]) == pytest.approx(1)  # smaller than a window


def test_edges_are_insensitive_to_brightness_and_polarity():
    x = noise(24, 24)
    assert edge_correlation(x, 255 - x) == pytest.approx(1)
    assert edge_correlation(x, 0.5 * x + 20) == pytest.approx(1)
    assert abs(edge_correlation(noise(96, 96), noise(96, 96))) < 0.1
    assert edge_correlation(x, np.full_like(x, 7)) == 0
    step = np.zeros((1, 24, 24, 1))
    step[:, :, 12:] = 255
    assert edge_correlation(step, np.roll(step, 6, 2)) < 0.3


def test_flicker():
    ramp = np.arange(4.0).reshape(4, 1, 1, 1) * np.ones((4, 5, 5, 1))
    assert flicker(2 * ramp, ramp) == pytest.approx(2)
    assert flicker(ramp[:1], ramp[:1]) is None
    assert flicker(ramp, np.zeros_like(ramp)) is None


def test_means_and_bad_shapes():
    rows = [{"id": k, "psnr": 10.0 * k, "ssim": 0.5, "edges": 0.1, "l1": 0.2, "flicker": f} for k, f in ((1, None), (2, 3.0))]
    assert mean_figures(rows) == {"n": 2, "psnr": 15.0, "ssim": 0.5, "edges": 0.1, "l1": 0.2, "loss": 0.2, "flicker": 3.0}
    with pytest.raises(ModaliftError, match="cannot be compared"):
        ssim(noise(16), noise(17))
