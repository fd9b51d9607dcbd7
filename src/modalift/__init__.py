"""Modalift: several sensors teach, one network of one sensor goes home."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Idle OpenMP threads that spin starve everything else on a shared machine; must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

__version__ = "0.1.0"
_SUBPACKAGES = ("datasets", "deploy", "derive", "losses", "modalities", "networks", "report", "schemes")

if TYPE_CHECKING:
    from modalift import datasets, deploy, derive, losses, modalities, networks, report, schemes
    from modalift.deploy.bundle import load

__all__ = ["__version__", "datasets", "deploy", "derive", "load", "losses", "modalities", "networks", "report", "schemes"]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"modalift.{name}")
    if name == "load":
        return importlib.import_module("modalift.deploy.bundle").load
    raise AttributeError(f"module 'modalift' has no attribute '{name}'")
