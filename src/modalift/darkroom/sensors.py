"""Sensor models: from the light, heat and distance before a camera to its readings.

Every model is a frozen dataclass of constants with units; noise comes from the ``numpy`` generator that is passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


def shot(electrons: F32, rng: np.random.Generator, variance: float = 0.0) -> F32:
    """Counted electrons for expected ``electrons``: Poisson shot noise and Gaussian noise in one draw.

        y = m + n sqrt(m + v) + (n^2 - 1) / 4,   n ~ N(0, 1)

    where m is the expected number and v the ``variance`` of the electronics. This is the inverse of Anscombe's
    square-root transform: mean m, variance m + v + 1/8, skewed as a Poisson variable, at a tenth of its cost.

    Example:
        >>> y = shot(np.full(100_000, 9.0, np.float32), np.random.default_rng(0))
        >>> bool(abs(y.mean() - 9) < 0.05 and abs(y.var() - 9.125) < 0.2)
        True
    """
    n = rng.standard_normal(electrons.shape, np.float32)
    y = np.sqrt(electrons + np.float32(variance))
    y *= n
    y += electrons
    n *= n
    n -= 1
    n *= np.float32(0.25)
    y += n
    return y


@lru_cache(maxsize=4)
def _curve(gamma: float) -> U8:
    """Linear light 0..1 in 4096 steps -> 8-bit gray values, ``255 x^(1/gamma)``."""
    return np.round(255 * (np.arange(4096) / 4095) ** (1 / gamma)).astype(np.uint8)


@dataclass(frozen=True)
class FixedPattern:
    """Fixed-pattern noise of one sensor chip: ``offset`` ``(H, W, 3)`` in electrons, and ``gain`` ``(H, W, 3)``."""

    offset: F32
    gain: F32


@dataclass(frozen=True)
class RgbSensor:
    """A small color camera with automatic exposure.

    An f/2 lens, 3.1 um pixels and 1/30 s give each native pixel about 16 electrons per lux on a white surface: 1 lux is
    4.1e15 photons/(s m^2), times pixel area, time, transmission over 4 N^2, and quantum efficiency with its color filter.
    ``binning`` native pixels are added for one pixel of the image.

    Attributes:
        per_lux: electrons per native pixel and lux on a white surface (albedo 1).
        binning: number of native pixels per image pixel.
        read: read noise per native pixel, electrons (rms).
        dark: dark current per native pixel, electrons per exposure.
        dsnu, lines: fixed offset per native pixel, and per row and column, electrons (rms).
        prnu: relative fixed gain error (rms).
        target: mean of the linear image (0..1) that the automatic exposure aims at.
        white: electrons (after binning) of full white at the highest gain; a larger number gives darker images.
        full_well: electrons (after binning) above which the exposure time is shortened in bright light.
        gamma: gamma of the 8-bit curve.
    """

    per_lux: float = 16.0
    binning: int = 16
    read: float = 2.5
    dark: float = 0.4
    dsnu: float = 0.6
    lines: float = 0.5
    prnu: float = 0.01
    target: float = 0.16
    white: float = 3000.0
    full_well: float = 32000.0
    gamma: float = 2.2

    def pattern(self, height: int, width: int, seed: int = 0) -> FixedPattern:
        """The fixed-pattern noise of one chip, the same for all clips of a camera."""
        rng = np.random.default_rng([seed, height, width])
        root = self.binning ** 0.5
        offset = self.dsnu * root * rng.standard_normal((height, width, 3))
        offset += self.lines * root * (rng.standard_normal((height, 1, 1)) + rng.standard_normal((1, width, 1)))
        gain = 1 + self.prnu / root * rng.standard_normal((height, width, 3))
        return FixedPattern(offset.astype(np.float32), gain.astype(np.float32))

    def variance(self) -> float:
        """Variance of read noise and dark current together, electrons squared, after binning."""
        return self.binning * (self.read**2 + self.dark)

    def expose(self, radiance: F32, lux: float, rng: np.random.Generator, pattern: FixedPattern) -> U8:
        """8-bit images ``(T, H, W, 3)`` of a scene.

        Args:
            radiance: ``(T, H, W, 3)`` albedo times relative illuminance (1: white under ``lux``).
            lux: the illuminance of a radiance of 1.
        """
        scale = self.per_lux * self.binning * lux
        level = float(radiance[:: max(1, len(radiance) // 4)].mean())
        # In bright light the exposure is shortened (fewer electrons); in the dark the gain rises up to its maximum.
        scale *= min(1.0, self.target * self.full_well / max(scale * level, 1e-9))
        white = min(max(scale * level / self.target, self.white), self.full_well)
        electrons = radiance * np.float32(scale)
        electrons *= pattern.gain
        np.minimum(electrons, np.float32(2 * white), out=electrons)
        counted = shot(electrons, rng, self.variance())
        counted += pattern.offset
        counted *= np.float32(4095 / white)
        np.clip(counted, 0, 4095, out=counted)
        return _curve(self.gamma)[counted.astype(np.int16)]


@dataclass(frozen=True)
class DepthSensor:
    """A depth camera with an active illuminator, such as a Kinect.

    Attributes:
        floor: noise at close range, meters (rms).
        slope: noise at 3 m on a perfect frontal reflector, meters (rms).
        quartic: additional noise, proportional to z^4, in meters (rms) at 3 m.
        edge: range of depth inside a pixel, in meters, above which it is an edge.
        hole: share of edge pixels without a reading; the others mix both surfaces.
        weak: amplitude at which 63 % of the pixels have a reading.
        baseline: distance between illuminator and camera in meters; surfaces that only one of them sees have no reading.
        longest: range in meters.
        step: quantization in meters.
        sun: illuminance in lux at which daylight returns as much light as the illuminator from a surface 3 m away; daylight
            is subtracted, and its shot noise stays (an assumed value: about that of an overcast day).
    """

    floor: float = 0.0012
    slope: float = 0.0045
    quartic: float = 0.0010
    edge: float = 0.06
    hole: float = 0.35
    weak: float = 0.005
    baseline: float = 0.075
    longest: float = 8.0
    step: float = 0.001
    sun: float = 8000.0

    def sigma(self, z: F32, amplitude: F32) -> F32:
        """Noise in meters (rms): ``floor + slope (z/3)^2 / sqrt(9 A) + quartic (z/3)^4`` where ``A = rho cos / z^2``.

        The noise grows with distance and for darker surfaces; 9 A is the amplitude relative to 3 m.
        """
        far = (z / 3.0) ** 2
        return (self.floor + self.slope * far / np.sqrt(9 * np.maximum(amplitude, 1e-4))
                + self.quartic * far * far).astype(np.float32)

    def shadow(self, z: F32, focal: float) -> NDArray[np.bool_]:
        """Where the illuminator's light is blocked, ``(T, H, W)``: it is ``baseline`` to the left of the camera.

        A surface k pixels to the left shadows a pixel if its disparity ``f b / z`` exceeds the pixel's by about k.
        """
        q = np.float32(focal * self.baseline) / z
        dark = np.zeros(z.shape, bool)
        reach = int(np.ceil(float(q.max() - q.min()))) if z.size else 0
        for k in range(1, min(reach, z.shape[2] - 1) + 1):
            step = q[:, :, :-k] - q[:, :, k:]
            dark[:, :, k:] |= step > k - 0.4
        return dark

    def daylight_noise(self, z: F32, lux: float) -> F32:
        """Factor of the noise by daylight: ``sqrt(1 + lux / sun (z/3)^2)``, since daylight does not fall off with distance."""
        return np.sqrt(1 + np.float32(lux / self.sun) * (z / np.float32(3.0)) ** 2).astype(np.float32)

    def measure(self, z: F32, amplitude: F32, focal: float, rng: np.random.Generator,
                daylight: float = 0.0) -> NDArray[np.uint16]:
        """Millimeters ``(T, H, W)``, 0 where there is no reading.

        Args:
            z, amplitude: ``(S, T, H, W)`` for S rays per pixel; amplitude is ``rho cos / z^2``.
            focal: focal length in pixels.
            daylight: illuminance by daylight in lux; lamps have little near infrared.
        """
        middle = z.mean(0)
        light = amplitude.mean(0)
        if daylight:
            light = light / self.daylight_noise(middle, daylight) ** 2  # as if less of the illuminator's light returned
        spread = z.max(0) - z.min(0)
        noise = rng.standard_normal(middle.shape, np.float32)
        chance = rng.random(middle.shape, np.float32)
        reading = middle + noise * self.sigma(middle, light)
        lost = (spread > self.edge) & (chance < self.hole)
        lost |= chance > 1 - np.exp(-light / self.weak)
        lost |= (middle > self.longest) | self.shadow(middle, focal)
        steps = np.round(reading * np.float32(1 / self.step)) * np.float32(1000 * self.step)
        return np.where(lost, 0, np.clip(steps, 1, 65535)).astype(np.uint16)


@dataclass(frozen=True)
class NirSensor:
    """The gray image of a depth camera, by its own infrared light, which falls off as 1/z^2.

    Attributes:
        full: amplitude ``rho cos / z^2`` (per square meter) of full white.
        electrons: electrons of full white.
        read: read noise, electrons (rms).
        gamma: gamma of the 8-bit curve.
    """

    full: float = 0.14
    electrons: float = 700.0
    read: float = 9.0
    gamma: float = 1.6

    def measure(self, amplitude: F32, rng: np.random.Generator, daylight: F32 | None = None) -> U8:
        """Gray values ``(T, H, W)`` of amplitudes ``(T, H, W)``; the illuminator is brightest in the middle.

        ``daylight`` is the amplitude of daylight, ``(T, H, W)``, which is subtracted but for its shot noise.
        """
        H, W = amplitude.shape[1:]
        y, x = np.linspace(-1, 1, H, dtype=np.float32), np.linspace(-1, 1, W, dtype=np.float32)
        beam = (1 / (1 + 0.9 * (x[None] ** 2 + y[:, None] ** 2))).astype(np.float32)
        expected: F32 = amplitude * beam * np.float32(self.electrons / self.full)
        counted = shot(expected, rng, self.read**2)
        if daylight is not None:
            noise = np.sqrt(daylight * np.float32(self.electrons / self.full))
            counted += noise * rng.standard_normal(noise.shape, np.float32)
        counted *= np.float32(4095 / self.electrons)
        np.clip(counted, 0, 4095, out=counted)
        return _curve(self.gamma)[counted.astype(np.int16)]


@dataclass(frozen=True)
class ThermalSensor:
    """An uncooled microbolometer (8-14 um).

    Attributes:
        netd: noise-equivalent temperature difference, kelvin (rms).
        stripes: fixed offset per column amplifier, kelvin (rms).
        blur: sigma of the lens blur, pixels.
        low, high: percentiles of the clip that the gain control maps to black and white.
        least: smallest difference between black and white, kelvin.
        emissivity: emissivity of skin and cloth seen frontally.
    """

    netd: float = 0.06
    stripes: float = 0.07
    blur: float = 0.45
    low: float = 1.0
    high: float = 99.5
    least: float = 6.0
    emissivity: float = 0.97

    def apparent(self, celsius: F32, ambient: float | F32, facing: F32) -> F32:
        """Apparent temperature ``e T + (1 - e) T_ambient``; the emissivity e falls at grazing angles (Fresnel, after
        Schlick 1994)."""
        e = np.float32(self.emissivity) * (1 - np.float32(0.6) * (1 - facing) ** 4)
        return (ambient + e * (celsius - ambient)).astype(np.float32)

    def pattern(self, width: int, seed: int = 0) -> F32:
        """Column offsets ``(W,)`` in kelvin, the same for all clips of a camera."""
        rng = np.random.default_rng([seed, width, 7])
        return (self.stripes * rng.standard_normal(width)).astype(np.float32)

    def measure(self, celsius: F32, rng: np.random.Generator, pattern: F32) -> U8:
        """Gray values ``(T, H, W)`` of apparent temperatures ``(T, H, W)`` in degrees Celsius; one gain for the whole clip."""
        seen = np.stack([cv2.GaussianBlur(frame, (0, 0), self.blur) for frame in celsius])
        seen += rng.standard_normal(seen.shape, np.float32) * np.float32(self.netd)
        seen += pattern
        sample = np.sort(seen[::4, ::2, ::2], axis=None)
        low, high = (float(sample[int(p / 100 * (sample.size - 1))]) for p in (self.low, self.high))
        middle, span = (low + high) / 2, max(high - low, self.least)
        seen -= np.float32(middle - span / 2)
        seen *= np.float32(255 / span)
        return np.clip(np.round(seen), 0, 255).astype(np.uint8)
