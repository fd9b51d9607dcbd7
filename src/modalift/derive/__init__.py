"""What is computed from a sensor once, written to files, and then a view like any other."""

from modalift.derive.registry import DERIVED, derive, derived
from modalift.registry import discover

__all__ = ["DERIVED", "derive", "derived"]

discover(__name__)  # one file adds a derived view
