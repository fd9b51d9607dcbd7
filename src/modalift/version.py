"""The version, which any package may import without importing the others."""

__version__ = "0.1.0"
