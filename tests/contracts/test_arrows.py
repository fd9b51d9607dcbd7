"""Imports run one way, and never to libraries that the project must not need."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "modalift"
#: Modules that import nothing of the project but one another: any package may import them.
LEAVES = ("errors", "files", "overrides", "registry", "settings", "signatures", "version")
#: package -> packages of the project that it may import (besides itself and the leaves).
ARROWS = {
    "modalities": set(),
    "losses": set(),
    "networks": {"modalities"},
    "schemes": {"losses", "networks", "modalities"},
    "loading": {"modalities"},
    "models": {"networks", "loading", "modalities"},
    "datasets": {"modalities", "loading"},
    "derive": {"modalities", "loading", "datasets", "models"},
    "darkroom": {"modalities"},
    "recipe_files": set(),
    "recipe": {"recipe_files", "networks", "schemes", "datasets", "loading", "modalities"},
    "deploy": {"models", "networks", "loading", "modalities"},
    "engine": {"schemes", "losses", "networks", "modalities", "loading", "datasets", "derive", "models", "recipe",
               "recipe_files"},
    "report": {"engine", "schemes", "networks", "modalities", "loading", "datasets", "derive", "models", "deploy", "recipe",
               "recipe_files"},
    "demo": {"report", "engine", "deploy", "models", "darkroom", "recipe"},
    "cli": None,
}
FILES = sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    return named_in(ast.parse(path.read_text()))


def named_in(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


def package(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_one_way(path):
    own = package(path)
    if own in ("__init__", "__main__"):
        return
    allowed = set() if own in LEAVES else ARROWS[own]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "modalift" or len(parts) < 2:
            continue
        other = parts[1]
        if other in (own, *LEAVES):
            continue
        assert other != "cli", f"{path.name} imports the command line"
        assert allowed is None or other in allowed, f"{own} must not import {other} ({name})"


def module_of(path: Path) -> str:
    return ".".join(("modalift", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def test_no_circle():
    """Imports at the top of files: none leads back to where it began, a package's ``__init__`` included."""
    modules = {module_of(path): path for path in FILES}
    leads: dict[str, set[str]] = {}
    for name, path in modules.items():
        top = ast.Module([n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)], [])
        leads[name] = {f if f in modules else f.rpartition(".")[0] for f in named_in(top)} & modules.keys() - {name}
    while ends := {name for name, found in leads.items() if not found}:
        leads = {name: found - ends for name, found in leads.items() if name not in ends}
    assert not leads, "these import each other, or one that does"


def test_no_import_stands_below_other_code():
    assert not [p.name for p in FILES if "E402" in p.read_text()]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_imports_what_is_not_everywhere(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & {"torchvision", "timm"}
    lazy = {"av", "matplotlib", "onnx", "onnxruntime", "onnxscript", "openvino", "numcodecs"}
    top = {a.name.split(".")[0] for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import) for a in n.names}
    top |= {n.module.split(".")[0] for n in ast.parse(path.read_text()).body
            if isinstance(n, ast.ImportFrom) and n.module}
    assert not top & lazy, f"import {top & lazy} inside the function that needs it"


#: Where these libraries may be imported; elsewhere nothing is shown to people.
SHOWN_BY = {"rich": ("report", "demo", "cli"), "typer": ("cli",)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_only_the_report_and_the_command_line_speak_to_people(path):
    roots = {name.split(".")[0] for name in imports(path)}
    found = {library for library, where in SHOWN_BY.items() if library in roots and package(path) not in where}
    printed = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
               and isinstance(node.func, ast.Name) and node.func.id == "print" and package(path) not in ("report", "cli")]
    assert not found, f"imports {found}"
    assert not printed, f"prints in the lines {printed}"
