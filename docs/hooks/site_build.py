"""What the site's build adds to the pages of docs/: generated parts, pages from elsewhere in the repository, equations.

- `<!-- generated: NAME -->` in a page becomes what the function of that name in `generated.py` returns.
- README, CONTRIBUTING, CHANGELOG, the notebook and benchmarks/results become pages; links between them are kept.
- Equations become MathML and diagrams SVG, so that pages need no script and nothing from another host.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator
from html import escape, unescape
from pathlib import Path
from typing import Any

import diagrams
import fonts
import generated
from docstrings import PACKAGES
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "examples/your_own_sensors.ipynb"


def pages_from_elsewhere() -> dict[str, str]:
    """Files of the repository outside docs/ -> their pages in the site."""
    found = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
             NOTEBOOK: "start/notebook.md"}
    results = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
    return found | {f"benchmarks/results/{path.name}": f"results/{path.name}" for path in results}


ELSEWHERE = pages_from_elsewhere()
SOURCES = {page: source for source, page in ELSEWHERE.items()}


def on_config(config: MkDocsConfig) -> None:
    """Completes the menu, in the order of the index pages, and draws diagrams in place of `mermaid` blocks."""
    def listed(index: str, link: str) -> list[Any]:
        return re.findall(link, (ROOT / "docs" / index).read_text(), re.MULTILINE)

    schemes = listed("schemes/README.md", r"^\| \[`\w+`\]\((\w+\.md)\)")
    results = listed("results/index.md", r"^- \[(.+?)\]\(\S+/(\w+\.md)\)")
    more: dict[str, list[Any]] = {"schemes/README.md": [{Path(page).stem: f"schemes/{page}"} for page in schemes],
                                  "api/index.md": [{f"modalift.{name}": f"api/{name}.md"} for name in PACKAGES],
                                  "results/index.md": [{title: f"results/{page}"} for title, page in results]}
    for entries in list(_lists(config.nav)):
        if isinstance(entries[0], str):
            entries += more.get(entries[0], [])
    config.mdx_configs["pymdownx.superfences"] = {
        "custom_fences": [{"name": "mermaid", "class": "diagram", "format": diagrams.fence}]}


def _lists(entries: Any) -> Iterator[list[Any]]:
    if isinstance(entries, list):
        yield entries
        for entry in entries:
            for inside in entry.values() if isinstance(entry, dict) else ():
                yield from _lists(inside)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages that are not in docs/."""
    for source, page in ELSEWHERE.items():
        path = ROOT / source
        text = generated.notebook(path) if path.suffix == ".ipynb" else path.read_text()
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "assets/math.woff", content=fonts.math_font()))
    for name in PACKAGES:
        files.append(File.generated(config, f"api/{name}.md", content=generated.api_page(name)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Generates the marked parts of a page, and changes links to files of the repository into links to pages."""
    def make(found: re.Match[str]) -> str:
        part: Callable[[], str] | None = getattr(generated, found[1], None)
        if part is None:
            raise PluginError(f"{page.file.src_uri}: nothing generates '{found[1]}' - see docs/hooks/generated.py")
        return part()

    uri = page.file.src_uri
    if page.parent is None:  # alone in its tab: a menu of one entry is no help
        page.meta.setdefault("hide", ["navigation"])
    folder = posixpath.dirname(SOURCES.get(uri, f"docs/{uri}"))
    return outside_code(re.sub(r"<!-- generated: (\w+) -->", make, markdown), lambda text: relinked(text, folder, uri))


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """The text with a change of everything but blocks of code."""
    parts = re.split(r"(^ *```.*?^ *```)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))


def relinked(text: str, folder: str, uri: str) -> str:
    """Changes links that are relative to a folder of the repository into links that are relative to a page.

    A link to a file that has no page becomes its text alone; one to a file that does not exist is an error.
    """
    code = [span.span() for span in re.finditer(r"`[^`]+`", text)]

    def change(found: re.Match[str]) -> str:
        bang, words, target = found.groups()
        path, _, anchor = target.partition("#")
        if not path or ":" in path or any(first < found.start(3) < last for first, last in code):
            return found[0]
        there = posixpath.normpath(posixpath.join(folder, path))
        page = ELSEWHERE.get(there) or (there.removeprefix("docs/") if there.startswith("docs/") else "")
        if page:
            return f"{bang}[{words}]({posixpath.relpath(page, posixpath.dirname(uri) or '.')}{'#' + anchor if anchor else ''})"
        if not (ROOT / there).exists():
            raise PluginError(f"{uri}: the link to {there} leads nowhere")
        return str(words)

    return re.sub(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)", change, text)


#: What a page loads when it is shown: these may not come from another host.
LOADED = re.compile(r'<(?:script|img|iframe|source|audio|video)\b[^>]*\bsrc="((?:https?:)?//[^"]+)"'
                    r'|<link\b[^>]*\bhref="((?:https?:)?//[^"]+)"|class="mermaid"', re.IGNORECASE)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuses a page that loads anything from another host (the theme loads Mermaid where it finds its class)."""
    found = LOADED.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri}: loads {found[0]} from another host")
    return output


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Equations as MathML, and drawings as part of the page, so that they follow its colors."""
    html = mathml_of(html, page.file.src_uri)
    return re.sub(r'<img alt="([^"]*)" src="([^"]+\.svg)" */?>', lambda m: drawing(m[1], m[2], page), html)


def mathml_of(html: str, uri: str) -> str:
    """A page's equations as MathML."""
    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', lambda m: mathml(m[2], uri), html, flags=re.DOTALL)


#: Commands that the converter does not know, in its words.
UNKNOWN = {r"\arg": r"\mathrm{arg}\,", r"\langle": "⟨", r"\rangle": "⟩"}


def mathml(found: str, uri: str) -> str:
    r"""MathML of `\(...\)` or `\[...\]`."""
    latex, block = unescape(found).strip(), found.lstrip().startswith("\\[")
    text = latex[2:-2].strip()
    for command, known in UNKNOWN.items():
        text = text.replace(command, known)
    if ("&" in text or r"\\" in text) and r"\begin" not in text:  # several lines
        text = rf"\begin{{align*}}{text}\end{{align*}}"
    try:
        made = convert(text, display="block" if block else "inline")
    except Exception as error:
        raise PluginError(f"{uri}: the equation {latex} cannot be shown: {type(error).__name__} {error}") from None
    unknown = re.search(r">(\\[A-Za-z]+)<", made)
    if unknown:
        raise PluginError(f"{uri}: the equation {latex} cannot be shown: unknown command {unknown[1]}")
    # A bar that stretches: the converter's is a dash.
    return re.sub(r"<mo[^>]*>&#x0*(?:2015|AF);</mo></mover>", '<mo stretchy="true" accent="true">&#x203E;</mo></mover>', made)


def drawing(words: str, source: str, page: Page) -> str:
    path = Path(page.file.abs_dest_path).parent / source
    drawn = ROOT / "docs" / os.path.relpath(path, Path(page.file.dest_dir))
    svg = re.sub(r"<\?xml.*?\?>\s*", "", drawn.read_text())
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(unescape(words))}" ', 1)
