"""Self-contained HTML pages: style and images are embedded, and nothing is loaded from other hosts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from modalift.report.numbers import UNKNOWN, percent
from modalift.version import __version__

#: No scripts, fonts or requests; browsers enforce it, even if a name in a table contains HTML.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


_LOGO = ('<svg viewBox="0 0 34 22" aria-hidden="true"><g fill="none" stroke-width="2" stroke-linecap="round">'
         '<path class="s1" d="M2 3C12 3 14 11 22 11"/><path class="s2" d="M2 11H22"/>'
         '<path class="s3" d="M2 19C12 19 14 11 22 11"/>'
         '</g><circle class="ink" cx="28" cy="11" r="4.5" fill="currentColor"/></svg>')


def esc(text: Any) -> str:
    """Escapes text for HTML, so that names of classes and files cannot contain markup."""
    return escape(str(text), quote=True)


def data_uri(content: bytes, kind: str = "image/jpeg") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def document(title: str, kind: str, summary: str, sections: Iterable[tuple[str, str, str, str]], tiles: str = "") -> str:
    """Renders a whole page.

    Args:
        title: plain text.
        kind: the kind of page, plain text next to the logo.
        summary: HTML of the first paragraph.
        sections: (anchor, heading, short heading, HTML body), the first three plain text; sections with an empty
            body are left out.
        tiles: HTML of the headline metrics.
    """
    shown = [s for s in sections if s[3]]
    nav = "".join(f'<a href="#{esc(a)}">{esc(short)}</a>' for a, _, short, _ in shown)
    body = "".join(f'<section id="{esc(a)}"><h2>{esc(h)}</h2>{b}</section>' for a, h, _, b in shown)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{esc(title)} · {esc(kind)}</title><style>{_style()}</style></head><body>"
        f'<header><div class="brand">{_LOGO}<span>Modalift · {esc(kind)}</span></div><h1>{esc(title)}</h1>'
        f'<p class="summary">{summary}</p>{tiles}</header><nav aria-label="Sections">{nav}</nav><main>{body}</main>'
        f"<footer>Made by Modalift {esc(__version__)}. This file is self-contained and loads nothing from"
        " other hosts.</footer></body></html>\n"
    )


@cache
def _style() -> str:
    return (files("modalift.report") / "style.css").read_text(encoding="utf-8")


def missing(sentence: str) -> str:
    """A placeholder for missing content, which says how to create it."""
    return f'<p class="missing">{esc(sentence)}</p>'


def warning(text: str) -> str:
    """A warning within a paragraph."""
    return f'<span class="badge bad">warning</span> {esc(text)}'


def warnings(lines: Iterable[str]) -> str:
    """Warnings, each a paragraph."""
    return "".join(f"<p>{warning(line)}</p>" for line in lines)


def tiles(entries: Iterable[tuple[str, str]]) -> str:
    """Headline metrics: (value, name), plain text."""
    return '<div class="tiles">' + "".join(f'<div class="tile"><b>{esc(a)}</b><span>{esc(b)}</span></div>'
                                           for a, b in entries) + "</div>"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[int] = ()) -> str:
    """A table; cells are plain text unless they are :class:`Raw`, columns in ``numbers`` are right-aligned."""
    def cell(tag: str, k: int, value: Any) -> str:
        css = ' class="n"' if k in numbers else ""
        return f"<{tag}{css}>{value.html if isinstance(value, Raw) else esc(value)}</{tag}>"

    lines = "".join("<tr>" + "".join(cell("td", k, v) for k, v in enumerate(row)) + "</tr>" for row in rows)
    top = "".join(cell("th", k, v) for k, v in enumerate(head))
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


class Raw:
    """HTML that is already safe."""

    def __init__(self, html: str) -> None:
        self.html = html


def bar(share: float | None) -> Raw:
    """A small bar and its percentage."""
    if share is None:
        return Raw(f'<span class="soft">{UNKNOWN}</span>')
    filled = f'<span class="bar"><i style="width:{100 * min(1, max(0, share)):.1f}%"></i></span>'
    return Raw(f'<span class="nowrap">{filled}{percent(share)}</span>')


def pairs(entries: Iterable[tuple[str, Any]]) -> str:
    """A list of names and values."""
    return "<dl>" + "".join(f"<dt>{esc(k)}</dt><dd>{v.html if isinstance(v, Raw) else esc(v)}</dd>"
                            for k, v in entries) + "</dl>"


def fold(summary: str, body: str) -> str:
    """An expandable section."""
    return f"<details><summary>{esc(summary)}</summary>{body}</details>"


def card(title: str, body: str, caption: str = "") -> str:
    note = f"<figcaption>{esc(caption)}</figcaption>" if caption else ""
    return f'<figure class="card"><h3>{esc(title)}</h3>{body}{note}</figure>'
