"""The simulator: people who gesture in the dark, as color, depth, near-infrared and thermal cameras would see them."""

from modalift.darkroom.motions import GESTURES, MIRRORED
from modalift.darkroom.sheet import sheet
from modalift.darkroom.simulate import VIEWS, simulate

__all__ = ["GESTURES", "MIRRORED", "VIEWS", "sheet", "simulate"]
