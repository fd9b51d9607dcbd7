"""What the documentation shows works: tutorials are run, every command is understood, every recipe, link and file exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from doc_blocks import ROOT, Block, blocks, pages, runs_after

from modalift.cli import app
from modalift.errors import ModaliftError
from modalift.recipe import load_recipe
from modalift.recipe_files import recipe_names

PAGES = pages()
ids = [str(page.relative_to(ROOT)) for page in PAGES]
every_page = pytest.mark.parametrize("page", PAGES, ids=ids)
TUTORIALS = [page for page in PAGES if runs_after(page) == page]


def run(block: Block, folder: Path) -> None:
    """Runs a block as a person would: a shell with `modalift` in the path, or a Python program."""
    if block.language == "bash":
        shell = f'set -e\nmodalift() {{ {sys.executable} -m modalift.cli "$@"; }}\n{block.run_as()}'
        command = ["bash", "-c", shell]
    else:
        command = [sys.executable, "-c", block.run_as()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})
    assert done.returncode == 0, f"{block.where}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs(page: Path, tmp_path: Path) -> None:
    """And after it, in the same folder, the pages that continue it; then the files that it promises exist."""
    for each in [page, *(other for other in PAGES if other != page and runs_after(other) == page)]:
        for block in blocks(each):
            if block.language in ("bash", "python") and not block.skipped:
                run(block, tmp_path)
        promised = re.search(r"<!-- promised: (\S+) -->\n((?:- .*\n)+)", each.read_text())
        for name in re.findall(r"`([\w/]+(?:\.\w+)?/?)`:|`([\w/.]+)`[,;:]", promised[2]) if promised else []:
            assert (tmp_path / promised[1] / next(filter(None, name))).exists(), name


# ---- every command of every page -----------------------------------------------------------------------------------------


@cache
def program() -> Any:
    return typer.main.get_command(app)


def parsed(line: str, where: str) -> None:
    """Parses a command line without running it: the verb, its options and their types, the recipe with its overrides."""
    line = re.sub(r"(\s#.*|\s*[|>&].*)$", "", line)
    words = shlex.split(line)[1:]
    while words and words[0] == "--plugin":
        words = words[2:]
    if not words or words[0] == "--help":
        return
    verb = program().commands.get(words[0])
    assert verb is not None, f"{where}: `{line}`: there is no verb '{words[0]}'"
    if "--help" in words:
        return
    try:
        context = verb.make_context(words[0], words[1:])
    except Exception as error:
        told = error.format_message() if hasattr(error, "format_message") else error
        raise AssertionError(f"{where}: `{line}`: {told}") from None
    given = context.params
    named = given.get("recipe") or given.get("recipes") or []
    for recipe in [named] if isinstance(named, str) else named:
        if re.fullmatch(r"[a-z_0-9]+/[a-z_0-9]+", recipe):
            overrides = [o for o in given.get("overrides") or [] if "..." not in o]
            load_recipe(recipe, overrides)


def lines_of(page: Path) -> list[tuple[str, str]]:
    """The lines that call `modalift` in a page's blocks, with their place: `bash` and `console` blocks, and indented ones."""
    found = []
    for block in blocks(page):
        if block.language in ("bash", "console", "sh", "shell"):
            found += [(line, block.where) for line in block.commands()]
    assert not re.search(r"^    (?:\$ )?modalift \S", without_blocks(page), re.MULTILINE), f"{page}: use a ```bash block"
    return [(line, where) for line, where in found if line.split()[0] == "modalift"]


def without_blocks(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def spoken(page: Path) -> list[str]:
    """Commands within a sentence, such as `modalift explain RECIPE`."""
    text = without_blocks(page)
    return [" ".join(found.split()) for found in re.findall(r"`(modalift [^`]+)`", text)]


@every_page
def test_commands_are_understood(page: Path) -> None:
    for line, where in lines_of(page):
        parsed(line, where)


@every_page
def test_commands_in_sentences_name_verbs_options_and_recipes_that_exist(page: Path) -> None:
    for line in spoken(page):
        words = line.split()[1:]
        if words[0] in ("VERB", "--plugin"):
            continue
        verb = program().commands.get(words[0])
        assert verb is not None, f"{page.name}: `{line}`: there is no verb '{words[0]}'"
        known = {name for option in verb.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
        for word in words[1:]:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{page.name}: `{line}`: {words[0]} has no option {word}"
            if re.fullmatch(rf"(?:{'|'.join(SETS)})/\w+", word):
                assert word in recipe_names(), f"{page.name}: `{line}`: there is no recipe {word}"


SETS = sorted({name.split("/")[0] for name in recipe_names()})


@every_page
def test_python_blocks_name_what_exists(page: Path) -> None:
    """Blocks that are not run: they compile, their imports exist, and so does every attribute of a modalift module."""
    for block in blocks(page):
        if block.language != "python":
            continue
        tree = ast.parse(block.text, block.where)
        modules: dict[str, Any] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    modules[name.asname or name.name.split(".")[0]] = importlib.import_module(name.name)
            elif isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                for name in node.names:
                    assert hasattr(module, name.name), f"{block.where}: {node.module} has no {name.name}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and re.fullmatch(r"[\w.]+", ast.unparse(node)):
                path = ast.unparse(node).split(".")
                thing = modules.get(path[0])
                for name in path[1:] if inspect.ismodule(thing) else []:
                    assert hasattr(thing, name), f"{block.where}: {'.'.join(path)}: there is no '{name}'"
                    thing = getattr(thing, name)
                    if not inspect.ismodule(thing):
                        break


@every_page
def test_recipes_that_are_shown_are_understood(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks(page):
        if block.language == "yaml" and {"data", "networks"} <= (yaml.safe_load(block.text) or {}).keys():
            given = yaml.safe_load(block.text)
            if "root" in given["data"]:  # a fragment is not a recipe
                for other in re.findall(r"recipe: (\w+\.yaml)", block.text):  # recipes beside it, which the text describes
                    (tmp_path / other).write_text("data: {root: recordings}\nnetworks: {student: {name: small}}\n")
                (tmp_path / "shown.yaml").write_text(block.text)
                monkeypatch.chdir(tmp_path)
                load_recipe("shown.yaml")


@every_page
def test_links_lead_to_files(page: Path) -> None:
    text = without_blocks(page)
    for link in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text):
        if ":" not in link:
            made = page.parent / link
            generated = made.parent.name == "api" and "docs" in made.parts  # pages that the site's build makes
            assert made.exists() or generated, f"{page.name}: {link}"


def test_a_page_with_a_wrong_command_is_found(tmp_path: Path) -> None:
    for wrong, told in (("modalift trian darkroom/mtut", "no verb 'trian'"), ("modalift train x.yaml --scales tiny", "scales"),
                        ("modalift look", "RECIPE"), ("modalift ship a b c", "unexpected"),
                        ("modalift simulate x --clips many", "many"), ("modalift train darkroom/mtut optim.lrr=1", "lrr"),
                        ("modalift train darkroom/no_such", "no_such")):
        with pytest.raises((AssertionError, ModaliftError), match=told):
            parsed(wrong, "here")
