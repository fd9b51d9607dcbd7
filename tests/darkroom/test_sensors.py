"""The sensors' noise follows the stated laws."""

from __future__ import annotations

import numpy as np
import pytest

from modalift.darkroom.sensors import DepthSensor, NirSensor, RgbSensor, ThermalSensor, shot


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("expected", [0.5, 4.0, 50.0, 2000.0])
def test_shot_noise_has_the_mean_and_variance_of_photons(expected: float) -> None:
    y = shot(np.full(200_000, expected, np.float32), rng(), variance=9.0)
    assert y.mean() == pytest.approx(expected, abs=0.05, rel=0.005)
    assert y.var() == pytest.approx(expected + 9.0, rel=0.03)
    # A Poisson variable is skewed to the right, by 1 / sqrt(its mean); read noise dilutes that.
    assert ((y - y.mean()) ** 3).mean() > 0


def _electrons(sensor: RgbSensor, level: float, lux: float) -> np.ndarray:
    """Electrons read back from 8-bit pictures of an evenly lit surface whose gain stands at its cap."""
    seen = sensor.expose(np.full((40, 24, 24, 3), level, np.float32), lux, rng(), sensor.pattern(24, 24))
    return (seen / 255.0) ** sensor.gamma * sensor.white


def test_dark_rgb_variance_grows_with_the_mean_as_photons_do() -> None:
    sensor = RgbSensor()
    means, variances = [], []
    for level in (0.3, 0.9):
        e = _electrons(sensor, level, lux=1.0)
        assert e.mean() == pytest.approx(sensor.per_lux * sensor.binning * level, rel=0.03)
        means.append(e.mean())
        variances.append((np.diff(e, axis=0) ** 2).mean() / 2)         # differences cancel the fixed pattern
    slope = (variances[1] - variances[0]) / (means[1] - means[0])
    assert slope == pytest.approx(1.0, abs=0.12)
    assert variances[0] - means[0] == pytest.approx(sensor.variance(), rel=0.2)


def test_less_light_is_darker_and_noisier() -> None:
    sensor = RgbSensor()
    pattern = sensor.pattern(24, 24)
    scene = np.linspace(0.1, 0.9, 24, dtype=np.float32)[None, None, :, None] * np.ones((8, 24, 1, 3), np.float32)
    levels, clarity = [], []
    for lux in (0.5, 2.0, 400.0):
        seen = sensor.expose(scene, lux, rng(), pattern).astype(float)
        levels.append(seen.mean())
        clarity.append(seen.mean(axis=(0, 1, 3)).std() / np.diff(seen, axis=0).std())
    assert levels == sorted(levels)
    assert clarity == sorted(clarity)
    assert levels[0] < 50


def test_fixed_pattern_is_the_chips_own() -> None:
    sensor = RgbSensor()
    black = np.full((60, 48, 48, 3), 0.05, np.float32)

    def residue(seed: int, draw: int) -> np.ndarray:
        seen = sensor.expose(black, 0.5, np.random.default_rng(draw), sensor.pattern(48, 48, seed)).mean(0)
        return (seen - seen.mean()).ravel()

    same = np.corrcoef(residue(0, 1), residue(0, 2))[0, 1]
    other = np.corrcoef(residue(0, 1), residue(5, 2))[0, 1]
    assert same > 0.4
    assert abs(other) < 0.2


@pytest.mark.parametrize("z", [1.5, 3.0, 4.5])
def test_depth_noise_is_as_stated_and_grows_with_distance(z: float) -> None:
    sensor = DepthSensor()
    flat = np.full((4, 20, 24, 24), z, np.float32)
    light = np.float32(0.5) / flat**2
    seen = sensor.measure(flat, light, 100.0, rng())
    read = seen[seen > 0].astype(float) / 1000
    expected = float(sensor.sigma(flat[:1, :1, :1, :1], light[:1, :1, :1, :1]).item())
    assert seen.dtype == np.uint16
    assert read.mean() == pytest.approx(z, abs=0.002)
    assert read.std() == pytest.approx(expected, rel=0.08)
    assert expected > float(sensor.sigma(flat[:1, :1, :1, :1] - 0.5, 0.5 / (flat[:1, :1, :1, :1] - 0.5) ** 2).item())


def test_depth_has_holes_at_edges_in_shadows_and_where_little_light_returns() -> None:
    sensor = DepthSensor()
    z = np.full((4, 30, 20, 40), 4.0, np.float32)
    z[..., 10:20] = 1.5                                                  # something near, columns 10 to 19
    z[:2, ..., 20] = 1.5                                                 # half of the rays of column 20 meet it
    focal = 100.0
    holes = (sensor.measure(z, 0.5 / z**2, focal, rng()) == 0).mean(axis=(0, 1))
    gap = focal * sensor.baseline * (1 / 1.5 - 1 / 4.0)                  # the shadow's width in pixels
    assert 3 < gap < 4
    assert holes[20:23].min() > 0.95                                     # the shadow lies to the right
    assert holes[24:].max() < 0.3                                        # and ends
    assert holes[:10].max() < 0.3
    assert holes[10:19].max() < 0.1
    z[:2, ..., 9] = 1.5                                                  # the edge on the illuminator's side
    edge = sensor.measure(z, 0.5 / z**2, focal, rng())[..., 9]
    assert (edge == 0).mean() == pytest.approx(sensor.hole, abs=0.06)
    flying = edge[edge > 0]
    assert 2500 < flying.mean() < 3000                                   # neither surface: 2.75 m
    dim = sensor.measure(z, np.full_like(z, 1e-4), focal, rng())
    assert (dim == 0).mean() > 0.9
    assert (sensor.measure(np.full_like(z, 9.0), 0.5 / z**2, focal, rng()) == 0).all()


def test_nir_falls_off_with_the_square_of_the_distance() -> None:
    sensor = NirSensor(read=0.0, gamma=1.0)
    near, far = (sensor.measure(np.full((9, 16, 16), 0.5 / d**2, np.float32), rng())[:, 6:10, 6:10].mean()
                 for d in (2.5, 5.0))
    assert near / far == pytest.approx(4.0, rel=0.08)


def test_daylight_adds_noise_to_sensors_with_their_own_light() -> None:
    depth = DepthSensor()
    flat = np.full((4, 20, 24, 24), 3.0, np.float32)
    light = np.float32(0.5) / flat**2
    seen = {lux: depth.measure(flat, light, 100.0, rng(), lux) for lux in (0.0, depth.sun)}
    reads = {lux: found[found > 0].astype(float) for lux, found in seen.items()}
    assert np.array_equal(seen[0.0], depth.measure(flat, light, 100.0, rng()))
    dark = float(depth.sigma(flat[:1, :1, :1, :1], light[:1, :1, :1, :1]).item())
    day = dark + (2**0.5 - 1) * depth.slope / float(np.sqrt(9 * light[0, 0, 0, 0]))  # twice the light of the illuminator counts
    assert reads[depth.sun].std() / 1000 == pytest.approx(day, rel=0.08)
    assert reads[depth.sun].mean() == pytest.approx(3000, abs=2)
    assert (seen[depth.sun] == 0).mean() > (seen[0.0] == 0).mean()
    nir = NirSensor(gamma=1.0)
    gray = np.full((20, 16, 16), 0.05, np.float32)
    night, sunny = nir.measure(gray, rng()).astype(float), nir.measure(gray, rng(), gray).astype(float)
    assert sunny.mean() == pytest.approx(night.mean(), rel=0.02), "daylight is subtracted"
    electrons = 0.05 * nir.electrons / nir.full
    assert (sunny[:, 8, 8].var() / night[:, 8, 8].var()) == pytest.approx(1 + electrons / (electrons + nir.read**2), rel=0.6)


def test_thermal_shows_warm_things_bright_and_grazing_skin_cooler() -> None:
    sensor = ThermalSensor()
    seen = np.full((8, 24, 32), 20.0, np.float32)
    seen[:, 8:16, 10:20] = 33.0
    gray = sensor.measure(seen, rng(), sensor.pattern(32))
    assert gray[:, 10:14, 12:18].mean() > 220
    assert gray[:, :4].mean() < 40
    skin = sensor.apparent(np.full(2, 33.0, np.float32), 20.0, np.array([1.0, 0.05], np.float32))
    assert skin[0] > 32
    assert 20 < skin[1] < 29


def test_thermal_noise_is_not_stretched_when_nothing_is_warm() -> None:
    sensor = ThermalSensor()
    gray = sensor.measure(np.full((8, 24, 32), 20.0, np.float32), rng(), sensor.pattern(32))
    assert gray.std() < 255 * 0.15 / sensor.least
