"""Docstrings for the site: the roles of reStructuredText and arguments that are explained together, as Markdown."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

from griffe import Docstring, Extension, Object

SOURCE = Path(__file__).resolve().parents[2] / "src" / "modalift"
#: The public packages that have a page of the API, in the order of the menu.
PACKAGES = ("losses", "networks", "schemes", "modalities", "datasets", "models", "derive", "darkroom", "deploy")

#: A role that refers to an object, such as :class:`~modalift.modalities.Table` or :func:`decoupled`.
_REFERENCE = re.compile(r":(?:class|func|meth|attr|data|mod):`(~?)([\w.]+)`")
_SHARED = re.compile(r"^( {4})(\w+(?:, \w+)+): (.*(?:\n {5,}.*)*)", re.MULTILINE)
_DISPLAYED = re.compile(r"^( *)\.\. math::(.*(?:\n\1 +\S.*)*)", re.MULTILINE)
_LITERAL = re.compile(r"^( *)Example::\n\n((?:\1 +.*\n?|\n)+)", re.MULTILINE)


@cache
def public(package: str) -> dict[str, str]:
    """The names in a package's `__all__` -> where each is defined."""
    tree = ast.parse((SOURCE / package / "__init__.py").read_text())
    where = {name.asname or name.name: f"{node.module}.{name.name}" for node in tree.body if isinstance(node, ast.ImportFrom)
             for name in node.names}
    listed = next(ast.literal_eval(node.value) for node in tree.body
                  if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__")
    return {name: where[name] for name in listed}


@cache
def _addresses() -> dict[str, str]:
    """How a docstring may name a public object -> where it is defined: by its full name, or alone if only one has that name."""
    found: dict[str, str] = {}
    alone: dict[str, list[str]] = {}
    for package in PACKAGES:
        for name, path in public(package).items():
            found |= {f"modalift.{package}.{name}": path, path: path}
            alone.setdefault(name, []).append(path)
    return found | {name: paths[0] for name, paths in alone.items() if len(paths) == 1}


def as_markdown(text: str) -> str:
    """A docstring with Markdown in place of roles and directives; references to public objects are links."""
    def reference(found: re.Match[str]) -> str:
        short, name = found.groups()
        shown = f"`{name.rsplit('.', 1)[-1] if short else name}`"
        address = _addresses().get(name)
        return f"[{shown}][{address}]" if address else shown

    def literal(found: re.Match[str]) -> str:
        lines = found[2].rstrip().splitlines()
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        return "\n".join([f"{found[1]}Examples:", f"{found[1]}    ```python",
                          *(f"{found[1]}    {line[indent:]}" for line in lines), f"{found[1]}    ```", ""])

    text = _DISPLAYED.sub(lambda m: f"{m[1]}$${' '.join(m[2].split())}$$", text)
    text = re.sub(r":math:`(.+?)`", lambda m: f"${' '.join(m[1].split())}$", text, flags=re.DOTALL)
    text = re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL)
    text = _LITERAL.sub(literal, text)
    text = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)
    return _REFERENCE.sub(reference, text)


def apart(text: str) -> str:
    """One entry per argument: `a, b: what` becomes an entry for each, with the same text."""
    return _SHARED.sub(lambda m: "\n".join(f"{m[1]}{name}: {m[3]}" for name in m[2].split(", ")), text)


class Roles(Extension):
    """Changes every docstring before it is parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if isinstance(obj.docstring, Docstring):
            obj.docstring.value = apart(as_markdown(obj.docstring.value))
