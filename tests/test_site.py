"""The parts of the site's build: what is generated is whole, equations and diagrams are drawn, links lead to pages."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the site is built with the extra `docs`")
pytest.importorskip("latex2mathml")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs" / "hooks"))
import diagrams  # noqa: E402
import docstrings  # noqa: E402
import generated  # noqa: E402
import site_build  # noqa: E402
from mkdocs.exceptions import PluginError  # noqa: E402
from typer.models import ArgumentInfo  # noqa: E402

from modalift.cli import app  # noqa: E402
from modalift.datasets import DATASETS  # noqa: E402
from modalift.derive import DERIVED  # noqa: E402
from modalift.modalities import MODALITIES  # noqa: E402
from modalift.recipe_files import recipe_names  # noqa: E402
from modalift.report.listing import listing  # noqa: E402

# ---- generated parts ----------------------------------------------------------------------------------------------------


def test_every_key_of_a_recipe_is_in_the_reference():
    page = generated.recipe_keys()
    for row in listing("keys")[0]:
        assert f"`{row['key']}`{{ #{row['key'].lower()} }}" in page
    assert "`data.frames`{ #data.frames } *int, 1 or more, default `16`*\n:   number of frames" in page
    assert re.search(r"`data\.root`\{.*\} \*path\* \*\*required\*\*", page)
    assert len(re.findall(r"^## ", page, re.MULTILINE)) == len(set(re.findall(r"^## (.+)", page, re.MULTILINE)))


def test_every_recipe_is_listed():
    page = generated.recipe_files()
    assert [name for name in recipe_names() if f"`{name}`" not in page] == []


def test_every_verb_is_in_the_reference_with_its_options_and_example():
    page = generated.verbs()
    for verb in app.registered_commands:
        name = verb.name or verb.callback.__name__
        section = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
        assert section, name
        for key, (_, given) in generated.parameters(verb.callback).items():
            option = [f"--{key.replace('_', '-')}"]
            shown = given.metavar if isinstance(given, ArgumentInfo) else (given.param_decls or option)[0]
            assert f"`{shown}" in section[1], (name, key)
            assert given.help in section[1], (name, key)
        assert f"modalift {name} " in section[1].split("```bash")[-1], f"{name} has no example"
    assert "`--lux NUMBER NUMBER` *default 1.0 8.0*" in page
    assert "modalift export BUNDLE --out, -o FILE.onnx [OPTIONS]" not in page
    assert "modalift export BUNDLE -o FILE.onnx [OPTIONS]" in page


def test_every_modality_dataset_and_derived_view_is_described():
    page = generated.modalities()
    for name in MODALITIES:
        assert page.count(f"| `{name}` |") == 2, name
    assert "| `depth` | video | 1 | mm | 1 to 10000 | uint16 | 0 |  |" in page
    assert "`modalift derive flow` from `rgb`" in page
    for registered, made in ((DATASETS, generated.datasets()), (DERIVED, generated.derived_views())):
        for name in registered:
            assert f"### {name}\n" in made
    assert "`id`, `label`, `label_name`, `subject`, `split`\n:   names of columns" in generated.datasets()


@pytest.mark.parametrize("package", docstrings.PACKAGES)
def test_every_public_name_is_in_the_api(package):
    module = __import__(f"modalift.{package}", fromlist=["*"])
    page = generated.api_page(package)
    for name in module.__all__:
        assert f'<a id="modalift.{package}.{name}"></a>\n\n::: modalift.' in page
    for name, path in docstrings.public(package).items():
        where, _, _ = path.rpartition(".")
        assert hasattr(__import__(where, fromlist=["*"]), name), path


def test_a_notebook_becomes_a_page(tmp_path):
    (tmp_path / "n.ipynb").write_text('{"cells": [{"cell_type": "markdown", "source": ["# Title\\n", "text"]},'
                                      ' {"cell_type": "code", "source": ["!modalift check a\\n", "!modalift look b"]},'
                                      ' {"cell_type": "code", "source": ["x = 1"]}]}')
    page = generated.notebook(tmp_path / "n.ipynb")
    assert "# Title\ntext" in page
    assert "```bash\nmodalift check a\nmodalift look b\n```" in page
    assert "```python\nx = 1\n```" in page


# ---- docstrings -----------------------------------------------------------------------------------------------------------


def test_roles_and_equations_of_docstrings_become_markdown():
    text = ("Distance of :math:`a_1` and\n:func:`~modalift.losses.soft_target`, :class:`NoSuch`, ``x``.\n\n"
            ".. math::\n    L = \\sum_i\n    x_i\n\nwhere\n\nExample::\n\n    go()\n")
    made = docstrings.as_markdown(text)
    assert "$a_1$" in made
    assert "[`soft_target`][modalift.losses.soft_target.soft_target]" in made
    assert "`NoSuch`, `x`" in made
    assert "$$L = \\sum_i x_i$$\n\nwhere" in made
    assert "Examples:\n    ```python\n    go()\n    ```" in made


def test_arguments_that_are_explained_together_have_an_entry_each():
    assert docstrings.apart("Args:\n    a, b: both\n        of them.\n    c: one.") == (
        "Args:\n    a: both\n        of them.\n    b: both\n        of them.\n    c: one.")


def test_no_docstring_of_the_package_keeps_a_role_or_a_directive():
    for path in sorted(docstrings.SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                made = docstrings.as_markdown(ast.get_docstring(node) or "")
                assert not re.search(r":(?:math|class|func|meth|attr|data|mod):|\.\. math", made), f"{path}: {node}"


# ---- equations ------------------------------------------------------------------------------------------------------------


def test_an_equation_becomes_mathml():
    html = '<p><span class="arithmatex">\\(\\overline{x} &lt; 1\\)</span></p>'
    made = site_build.mathml_of(html, "page.md")
    assert made.startswith("<p><math")
    assert '<mo stretchy="true" accent="true">&#x203E;</mo></mover>' in made
    assert "arithmatex" not in made


def test_lines_are_aligned_and_every_command_is_known():
    made = site_build.mathml(r"\[L &= a \\ &+ \arg\min_m \big\langle x \big\rangle\]", "page.md")
    assert made.count("<mtr>") == 2
    assert "mtable" in made
    assert "&<" not in made
    assert "\\" not in made
    assert "⟨" in made or "&#x027E8;" in made


def test_an_equation_that_cannot_be_shown_names_its_page():
    for wrong in (r"\frac", r"\nosuch x"):
        with pytest.raises(PluginError, match=r"page\.md: the equation .*(frac|nosuch)"):
            site_build.mathml_of(rf'<span class="arithmatex">\({wrong}\)</span>', "page.md")


# ---- links and what is loaded ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "uri", "link", "there"), [
    ("", "index.md", "docs/recipes.md", "recipes.md"),
    ("docs/schemes", "schemes/mtut.md", "../../benchmarks/results/survey.md", "../results/survey.md"),
    ("docs/start", "start/demo.md", "own-recordings.md", "own-recordings.md"),
    ("docs/start", "start/demo.md", "../../CONTRIBUTING.md", "../contributing.md"),
    ("benchmarks/results", "results/demo.md", "../../README.md#two-commands", "../index.md#two-commands"),
    ("", "index.md", "examples/your_own_sensors.ipynb", "start/notebook.md"),
])
def test_links_between_files_become_links_between_pages(folder, uri, link, there):
    assert site_build.relinked(f"see [it `x`]({link}), {{", folder, uri) == f"see [it `x`]({there}), {{"


def test_other_links_are_kept_made_text_or_refused():
    same = "[a](https://example.org/x) [b](#there) `[c](d)`"
    assert site_build.outside_code(same, lambda text: site_build.relinked(text, "", "index.md")) == same
    assert site_build.relinked("[the license](LICENSE)", "", "index.md") == "the license"
    with pytest.raises(PluginError, match=r"index\.md: the link to nowhere\.md leads nowhere"):
        site_build.relinked("[x](nowhere.md)", "", "index.md")


@pytest.mark.parametrize("html", ['<script src="https://cdn.example.org/a.js">', '<link rel="x" href="//fonts.example.org/f">',
                                  '<img alt="x" src="http://example.org/a.png">', '<pre class="mermaid">'])
def test_a_page_that_loads_from_another_host_is_refused(html):
    class File:
        src_uri = "page.md"

    class Page:
        file = File()

    with pytest.raises(PluginError, match=r"page\.md: loads"):
        site_build.on_post_page(f"<html>{html}</html>", Page(), None)
    fine = '<a href="https://example.org">x</a><script src="a.js"></script>'
    assert site_build.on_post_page(fine, Page(), None) == fine


# ---- diagrams ----------------------------------------------------------------------------------------------------------------

SOURCES = [block for page in sorted((ROOT / "docs").rglob("*.md"))
           for block in re.findall(r"^```mermaid\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)]


def test_a_diagram_is_read():
    boxes, arrows = diagrams.parse('graph LR\n  a["first, one"] -->|"x: 1"| b\n  a & c -.-> b\n  b ==> d((out))\n  s[("kept")]')
    assert {name: (box.text, box.shape) for name, box in boxes.items()} == {
        "a": ("first, one", "box"), "b": ("b", "box"), "c": ("c", "box"), "d": ("out", "round"), "s": ("kept", "store")}
    assert [(a.start, a.end, a.kind, a.label) for a in arrows] == [
        ("a", "b", "-->", "x: 1"), ("a", "b", "-.->", ""), ("c", "b", "-.->", ""), ("b", "d", "==>", "")]
    with pytest.raises(ValueError, match="not with 'graph LR'"):
        diagrams.parse("graph TD\n a --> b")
    with pytest.raises(ValueError, match="is not a node"):
        diagrams.parse("graph LR\n a{b} --> c")


@pytest.mark.parametrize("source", SOURCES, ids=range(len(SOURCES)))
def test_boxes_of_a_diagram_do_not_overlap_and_every_text_is_drawn(source):
    boxes, arrows = diagrams.parse(source)
    layers = diagrams.ordered(diagrams.layers_of(boxes, arrows), arrows)
    wide, high = diagrams.placed(layers, arrows)
    every = [box for layer in layers for box in layer if box.shape != "point"]
    for i, a in enumerate(every):
        assert a.x - a.width / 2 >= -0.1
        assert a.x + a.width / 2 <= wide + 0.1
        assert a.y - a.height / 2 >= -0.1
        assert a.y + a.height / 2 <= high + 0.1
        for b in every[i + 1:]:
            apart = abs(a.x - b.x) >= (a.width + b.width) / 2 - 0.1 or abs(a.y - b.y) >= (a.height + b.height) / 2 - 0.1
            assert apart, (a.text, b.text)
    said = " ".join(re.findall(r">([^<]+)</text>", diagrams.svg(source)))
    for words in [box.text for box in boxes.values()] + [arrow.label for arrow in arrows]:
        assert all(word in said.replace("&gt;", ">").replace("&#x27;", "'") for word in words.split())


def test_an_arrow_that_closes_a_circle_points_back():
    boxes, arrows = diagrams.parse("graph LR\n a --> b\n b --> a")
    diagrams.layers_of(boxes, arrows)
    assert [arrow.backward for arrow in arrows] == [False, True]
    assert (boxes["a"].layer, boxes["b"].layer) == (0, 1)
