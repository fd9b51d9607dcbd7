"""The version, in a module that any package can import without importing the others."""

__version__ = "0.1.0"
