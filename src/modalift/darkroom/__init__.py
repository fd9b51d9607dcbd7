"""The simulator: gestures in the dark, as recorded by color, depth, near-infrared and thermal cameras."""

from modalift.darkroom.motions import GESTURES, MIRRORED
from modalift.darkroom.sheet import sheet
from modalift.darkroom.simulate import VIEWS, simulate

__all__ = ["GESTURES", "MIRRORED", "VIEWS", "sheet", "simulate"]
