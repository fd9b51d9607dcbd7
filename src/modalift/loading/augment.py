"""What may change by chance in training: one frozen value, with every range stated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from modalift.errors import ModaliftError, nearest

Crop = Literal["center", "random", "corner"]

# field -> the range that each of its numbers must lie in
_RANGES: dict[str, tuple[float, float]] = {
    "scale": (0.05, 4.0), "scales": (0.05, 4.0), "aspect": (0.25, 4.0), "rotate": (0.0, 180.0), "shift": (0.0, 1.0),
    "flip": (0.0, 1.0), "speed": (0.1, 4.0), "warp": (0.0, 0.95), "brightness": (0.0, 1.0), "contrast": (0.0, 1.0),
    "saturation": (0.0, 1.0), "hue": (0.0, 0.5), "photometric": (0.0, 1.0), "noise": (0.0, 128.0),
    "depth_scale": (0.0, 0.5), "depth_offset": (0.0, 5000.0), "signal_scale": (0.0, 0.9), "signal_rotate": (0.0, 180.0),
    "signal_noise": (0.0, 5.0),
}
_PAIRS = ("scale", "aspect", "speed")


@dataclass(frozen=True)
class Augment:
    """Random changes of a training clip; the defaults change nothing but which frame of a segment is seen.

    Geometry is drawn once for each space (aligned views move together), time and the mirror once for a clip, and
    photometric changes once for each view. Every parameter is constant over a clip, but for noise.

    Attributes:
        crop: where the crop lies in the region: its ``center``, anywhere (``random``), or one of the four corners
            and the center (``corner``).
        scale: range of the crop's side as a share of the framing's (below 1 zooms in), in [0.05, 4].
        scales: choose the side from these shares instead: ``(1, 7/8, 3/4, 2/3)`` in MSD.
        aspect: range of the crop's width over its height, in [0.25, 4]; drawn evenly in the logarithm.
        rotate: largest rotation, degrees, either way.
        shift: largest displacement as a share of the crop's side, either way, in x and in y.
        flip: probability of a mirror image. Only clips whose label survives it (``Table.mirrored``; the label is
            changed with it) and whose views all have mirror images are mirrored.
        speed: range of the share of the event that a clip covers, in [0.1, 4]; above 1 it holds still at its ends.
        warp: largest depth of slowing and hurrying inside a clip, in [0, 0.95].
        brightness: largest relative change of exposure of 8-bit views, in [0, 1].
        contrast: largest relative change of contrast about the clip's mean, in [0, 1].
        saturation: largest relative change of saturation, in [0, 1].
        hue: largest turn of the color circle, in [0, 0.5] turns.
        photometric: probability that brightness, contrast, saturation and hue change at all (MSD: 0.4).
        noise: largest standard deviation of added noise, gray levels; new in every frame.
        depth_scale: largest relative change of depth, in [0, 0.5].
        depth_offset: largest change of depth, mm, either way.
        signal_scale: largest relative change of a signal's size (joints: about their center), in [0, 0.9].
        signal_rotate: largest rotation of joints about the vertical axis through their center, degrees.
        signal_noise: standard deviation of noise, as a share of each channel's deviation over the clip.
        vertical: which of a joint's three coordinates is vertical.

    Raises:
        ModaliftError: a value out of its range, by name.

    Example:
        >>> Augment(crop="corner", scales=(1, 7/8, 3/4, 2/3)).scales[0]
        1.0
        >>> Augment(flip=2)
        Traceback (most recent call last):
        modalift.errors.ModaliftError: augment.flip is 2 - it must lie in [0, 1]
    """

    crop: Crop = "center"
    scale: tuple[float, float] = (1.0, 1.0)
    scales: tuple[float, ...] = ()
    aspect: tuple[float, float] = (1.0, 1.0)
    rotate: float = 0.0
    shift: float = 0.0
    flip: float = 0.0
    speed: tuple[float, float] = (1.0, 1.0)
    warp: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    photometric: float = 1.0
    noise: float = 0.0
    depth_scale: float = 0.0
    depth_offset: float = 0.0
    signal_scale: float = 0.0
    signal_rotate: float = 0.0
    signal_noise: float = 0.0
    vertical: int = 1

    def __post_init__(self) -> None:
        for name in (*_PAIRS, "scales"):  # recipes hand in lists
            try:
                object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
            except (TypeError, ValueError):
                raise ModaliftError(f"augment.{name} is {getattr(self, name)!r} - give a list of numbers") from None
        if self.crop not in get_args(Crop):
            raise ModaliftError(f"augment.crop is '{self.crop}' - {nearest(str(self.crop), get_args(Crop))}")
        if self.vertical not in (0, 1, 2):
            raise ModaliftError(f"augment.vertical is {self.vertical} - it must be 0, 1 or 2")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if not isinstance(number, int | float) or not low <= number <= high:
                    raise ModaliftError(f"augment.{name} is {value} - it must lie in [{low:g}, {high:g}]")
        for name in _PAIRS:
            pair = getattr(self, name)
            if len(pair) != 2 or pair[0] > pair[1]:
                raise ModaliftError(f"augment.{name} is {list(pair)} - give two numbers, the smaller one first")

    @classmethod
    def none(cls) -> Augment:
        """Nothing changes but which frames are seen."""
        return cls()

    @classmethod
    def strong(cls) -> Augment:
        """For small sets: large affine changes without a mirror image, and changes of light, depth, size and pace."""
        return cls(crop="center", scale=(0.9, 1.25), aspect=(0.85, 1.18), rotate=12.0, shift=0.08, speed=(0.8, 1.1),
                   warp=0.3, brightness=0.3, contrast=0.3, saturation=0.3, noise=4.0, depth_scale=0.05,
                   depth_offset=150.0, signal_scale=0.15, signal_rotate=25.0, signal_noise=0.05)


