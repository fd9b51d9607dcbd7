"""Registries of what one file can add: modalities, networks, schemes, datasets, derived views."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from modalift.errors import ModaliftError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """A dictionary of named entries that suggests the right name for a wrong one.

    Example:
        >>> colors: Registry[int] = Registry("color")
        >>> colors.add("red", 1)
        1
        >>> colors["redd"]
        Traceback (most recent call last):
        modalift.errors.ModaliftError: unknown color 'redd' - did you mean 'red'?
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        if name in self._entries and self._entries[name] is not entry:
            raise ModaliftError(f"{self.kind} '{name}' is registered twice - rename one of them")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator form of :meth:`add`."""
        return lambda entry: self.add(name, entry)

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise ModaliftError(f"unknown {self.kind} '{name}' - {nearest(name, self._entries)}") from None

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)


def discover(package: str) -> None:
    """Imports every module of a package, in alphabetical order, so that each registers what it adds.

    A package calls it at the end of its ``__init__`` with its own name; a new file in its folder is found automatically.
    """
    for name in sorted(module.name for module in pkgutil.iter_modules(sys.modules[package].__path__)):
        importlib.import_module(f"{package}.{name}")
