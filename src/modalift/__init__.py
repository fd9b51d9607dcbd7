"""Modalift: multimodal training, unimodal deployment of gesture and action recognizers.

Every wrong input raises :class:`ModaliftError`, a message of one line that names the file or key, says what is wrong and what
to do. It is the only exception to catch::

    try:
        bundle = modalift.load("student.modalift")
    except modalift.ModaliftError as error:
        print(error)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from modalift.errors import ModaliftError
from modalift.version import __version__

_SUBPACKAGES = ("datasets", "deploy", "derive", "losses", "modalities", "networks", "report", "schemes")

if TYPE_CHECKING:
    from modalift import datasets, deploy, derive, losses, modalities, networks, report, schemes
    from modalift.models import load

__all__ = ["ModaliftError", "__version__", "datasets", "deploy", "derive", "load", "losses", "modalities", "networks", "report",
           "schemes"]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"modalift.{name}")
    if name == "load":
        return importlib.import_module("modalift.models").load
    raise AttributeError(f"module 'modalift' has no attribute '{name}'")
