"""docs/schemes says what the code says."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import casting
import pytest
import yaml

from modalift.recipe import load_recipe
from modalift.recipe_files import find_recipe, recipe_names
from modalift.report.explain import who
from modalift.schemes import SCHEMES, check_settings, optional_roles_of, roles_of, settings_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "schemes"
TEXTS = {path.stem: path.read_text() for path in sorted(PAGES.glob("*.md"))}
#: Settings that bring terms which none of the contracts' variants has.
MORE = {"crd": [{"kd_weight": 1.0}]}


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.stem}_for_docs", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tables = loaded(ROOT / "benchmarks" / "scheme_tables.py")
every = pytest.mark.parametrize("name", list(SCHEMES))


def emitted(name: str) -> set[str]:
    """Every term that a scheme has on a small batch, under any of the settings that are looked at."""
    cases = [case for case in casting.CASES if case.name == name]
    cases += [case for settings in MORE.get(name, []) for case in casting.cases_of(name, settings)]
    return {term for case in cases for term in casting.scheme(case)(casting.batch(), casting.END)}


def fixed(name: str) -> set[str]:
    """Who has one name whatever a recipe says."""
    return {*roles_of(name)[0], *optional_roles_of(name), "anchor", "labels", "discriminator", "back_discriminator"}


def arrows(name: str) -> list[tuple[set[str], set[str], set[str]]]:
    """An image's arrows: who teaches, the terms, who learns. What stands between, fed by plain arrows, is looked through."""
    image = "\n".join(re.findall(r"^```mermaid\n(.*?)^```", TEXTS[name], re.MULTILINE | re.DOTALL))
    found, feeds = [], {}

    def ends(text: str) -> set[str]:
        return {re.match(r"\s*(\w+)", end)[1] for end in text.split(" & ")}

    for one, label, other in re.findall(r"^ *(\S.*?) (?:-->|-\.->|==>)(?:\|(.*?)\|)? (.+)$", image, re.MULTILINE):
        words = set(re.findall(r"(\w+):", label) if ":" in label else re.findall(r"\w+", label))
        if words:
            found.append((ends(one), words, ends(other)))
        else:
            for end in ends(other):
                feeds.setdefault(end, set()).update(ends(one))
    cast = fixed(name)
    return [({s for end in one for s in (feeds.get(end, {end}) if end not in cast else {end})}, words, other)
            for one, words, other in found]


def drawn(name: str, term: str) -> bool:
    """Whether an image has a term. Roles with names must be met; views and networks that a recipe names may differ."""
    what, _, ends = term.partition("/")
    teachers, arrow, learners = ends.partition(">")
    if not arrow:
        teachers, learners = "labels", teachers
    cast = fixed(name)

    def met(named: str, there: set[str]) -> bool:
        return {n for n in named.split("+") if n in cast} <= there

    return any(what in words and met(teachers, one) and met(learners, other) for one, words, other in arrows(name))


@every
def test_every_scheme_has_a_page_with_a_picture_and_equations(name: str) -> None:
    assert "```mermaid\ngraph LR\n" in TEXTS[name]
    assert "$$" in TEXTS[name]
    for title in ("Equations", "Settings", "Deviations", "Bad input", "Measured"):
        assert re.search(rf"^## {title}", TEXTS[name], re.MULTILINE), title
    assert re.search(rf"^\| \[`?{name}`?\]\({name}\.md\)", TEXTS["README"], re.MULTILINE), "no row in docs/schemes/README.md"


@every
def test_settings_are_those_of_the_constructor(name: str) -> None:
    explained = {n for names in tables.arguments(name) for n in names}
    assert set(settings_of(name)) <= explained, "a setting lacks a line under Args"
    assert f"<!-- made: settings {name} -->" in TEXTS[name]
    assert tables.with_tables(TEXTS[name]) == TEXTS[name], "run `python benchmarks/scheme_tables.py`"


@every
def test_every_term_is_in_the_picture_and_no_other(name: str) -> None:
    terms = emitted(name)
    for term in terms:
        assert drawn(name, term), f"{term} ({who(term)}) is not in the image of docs/schemes/{name}.md"
    known = {term.split("/")[0] for term in terms}
    for _, words, _ in arrows(name):
        assert words <= known, f"docs/schemes/{name}.md draws what the scheme does not have"


@pytest.mark.parametrize("name", TEXTS)
def test_recipes_and_links_that_are_named_exist(name: str) -> None:
    sets = "|".join(sorted({recipe.split("/")[0] for recipe in recipe_names()}))
    for recipe in re.findall(rf"(?<![\w/])((?:{sets})/\w+)(?![\w/])", TEXTS[name]):
        assert find_recipe(recipe).name == recipe
        if recipe in recipe_names():  # others are bases
            load_recipe(recipe)
    for link in re.findall(r"\]\(([^)#:]+)\)", TEXTS[name]):
        made_by = ROOT / "benchmarks" / f"{Path(link).stem}.py"  # what a benchmark writes may not have been written yet
        assert (PAGES / link).exists() or (Path(link).parent.name == "results" and made_by.exists()), link


@pytest.mark.parametrize("name", TEXTS)
def test_fragments_of_recipes_are_understood(name: str) -> None:
    for block in re.findall(r"^```yaml\n(.*?)^```", TEXTS[name], re.MULTILINE | re.DOTALL):
        given = yaml.safe_load(block)
        if "scheme" in given:
            settings = {k: v for k, v in given["scheme"].items() if k != "name"}
            check_settings(given["scheme"]["name"], settings)
            known = {*roles_of(given["scheme"]["name"])[0], *optional_roles_of(given["scheme"]["name"])}
            assert set(given.get("networks", {})) <= known


@every
def test_the_index_knows_which_schemes_compare_clips_of_a_batch(name: str) -> None:
    (row,) = [line for line in TEXTS["README"].splitlines() if line.startswith(f"| [`{name}`]")]
    told = row.split("|")[7].strip()
    cases = [casting.scheme(c) for c in casting.CASES if c.name == name]
    related = {bool(s.relates_batch) for s in cases}
    assert told.split()[0] == ("yes" if related == {True} else "no" if related == {False} else "some"), row
