"""Docstrings for the site: the roles of reStructuredText and arguments that are explained together, as Markdown."""

from __future__ import annotations

import re
from typing import Any

from griffe import Docstring, Extension, Object

#: A role that refers to an object, such as :class:`~modalift.modalities.Table` or :func:`decoupled`.
_REFERENCE = re.compile(r":(?:class|func|meth|attr|data|mod):`(~?)([\w.]+)`")
_SHARED = re.compile(r"^( {4})(\w+(?:, \w+)+): (.*(?:\n {5,}.*)*)", re.MULTILINE)
_DISPLAYED = re.compile(r"^( *)\.\. math::[ \t]*(.*(?:\n\1[ \t]+\S.*|\n[ \t]*(?=\n\1[ \t]+\S))*)", re.MULTILINE)


def as_markdown(text: str) -> str:
    """A docstring with Markdown in place of roles and directives."""
    text = _DISPLAYED.sub(lambda m: f"{m[1]}$${' '.join(m[2].split())}$$", text)
    text = re.sub(r":math:`(.+?)`", lambda m: f"${' '.join(m[1].split())}$", text, flags=re.DOTALL)
    text = _REFERENCE.sub(lambda m: f"`{m[2].rsplit('.', 1)[-1] if m[1] else m[2]}`", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL)
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


def apart(text: str) -> str:
    """One entry per argument: `a, b: what` becomes an entry for each, with the same text."""
    return _SHARED.sub(lambda m: "\n".join(f"{m[1]}{name}: {m[3]}" for name in m[2].split(", ")), text)


class Roles(Extension):
    """Changes every docstring before it is parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if isinstance(obj.docstring, Docstring):
            obj.docstring.value = apart(as_markdown(obj.docstring.value))
