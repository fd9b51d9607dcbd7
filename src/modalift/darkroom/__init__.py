"""The simulator: gestures in the dark, as recorded by color, depth, near-infrared and thermal cameras."""

from modalift.darkroom.motions import GESTURES, MIRRORED
from modalift.darkroom.sheet import sheet
from modalift.darkroom.simulate import DAYLIGHT_VIEWS, PRESETS, VIEWS, simulate

__all__ = ["DAYLIGHT_VIEWS", "GESTURES", "MIRRORED", "PRESETS", "VIEWS", "sheet", "simulate"]
