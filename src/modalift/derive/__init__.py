"""Derived views: computed once from a recorded view, written to files, then used as any other view."""

from modalift.derive.registry import DERIVED, derive, derived
from modalift.registry import discover

__all__ = ["DERIVED", "derive", "derived"]

discover(__name__)  # one file adds a derived view
