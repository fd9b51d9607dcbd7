"""What is built of the project and installed is all there: recipes, styles and types, and commands that need no source tree."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from modalift.recipe_files import FOLDER, recipe_names

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "modalift"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def call(*words: object, folder: Path = ROOT) -> str:
    """The output of a command, which must succeed, without this process's paths of Python modules."""
    plain = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([*map(str, words)], cwd=folder, env={**plain, "COLUMNS": "200"}, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built of it alone."""
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    (source,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return source, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """``(words, folder) -> output`` of a command of the installed wheel, in an environment without the source tree."""
    home = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(home, symlinks=os.name != "nt")
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))
    call(sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--no-deps", "--no-index", built[1])
    # The libraries are those of this environment; a .pth file does not read others, so an editable install is not seen.
    libraries = dict.fromkeys(p for p in sys.path if p.endswith(("site-packages", "dist-packages")))
    (packages / "libraries.pth").write_text("\n".join(libraries))

    where = call(scripts / "python", "-c", "import modalift; print(modalift.__file__)", folder=home)
    assert Path(where.strip()).is_relative_to(packages)
    return lambda words, folder: call(scripts / "modalift", *words.split(), folder=folder)


def package_files() -> set[str]:
    """The files of the package in the source tree."""
    kept = [p for p in SOURCE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return {p.relative_to(SOURCE.parent).as_posix() for p in kept}


def test_the_wheel_holds_the_package_and_nothing_else(built):
    names = {n for n in zipfile.ZipFile(built[1]).namelist() if ".dist-info/" not in n}
    assert names == package_files()
    assert {"modalift/report/style.css", "modalift/py.typed", "modalift/recipes/darkroom/_base.yaml"} <= names
    assert len([n for n in names if n.startswith("modalift/recipes/") and "/_" not in n]) == len(recipe_names())


def test_the_source_distribution_holds_what_its_tests_need(built):
    with tarfile.open(built[0]) as archive:
        names = {n.split("/", 1)[1] for n in archive.getnames() if "/" in n}
    assert {f"src/{n}" for n in package_files()} <= names
    for needed in ("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "constraints.txt", "pyproject.toml",
                   "tests/conftest.py", "tests/contracts/test_packaging.py", "benchmarks/scheme_tables.py", "docs/recipes.md",
                   "docs/hooks/site_build.py", "mkdocs.yml", "examples/your_own_sensors.ipynb"):
        assert needed in names
    assert not [n for n in names if "__pycache__" in n or n.startswith((".venv/", "runs/"))]


def test_an_installed_wheel_lists_and_explains_recipes(installed, tmp_path):
    listed = installed("list recipes", tmp_path)
    assert [name for name in recipe_names() if name not in listed] == []
    installed("simulate data/darkroom --clips 8 --size 32 --frames 4 --test-subjects 2", tmp_path)
    assert "teacher teaches student" in installed("explain darkroom/taught_thermal", tmp_path)
    installed("look darkroom/labels_only --clips 1", tmp_path)
    assert (tmp_path / "look.png").is_file()
    (tmp_path / "mine.yaml").write_text("base: darkroom/labels_only\n")
    assert '"networks": ["student"]' in installed("train mine.yaml --scale tiny --json", tmp_path)
    assert (tmp_path / "runs" / "mine" / "seed0" / "models" / "student.modalift").is_file()


@pytest.mark.slow
def test_an_installed_wheel_runs_the_demo(installed, tmp_path):
    said = installed("demo --scale tiny", tmp_path)
    out = tmp_path / "runs" / "demo-tiny"
    assert "against labels only" in said
    assert "s in total" in said
    assert "[bold" not in said, "styles are not text"
    for name in ("demo.html", "dark.modalift", "dark.onnx"):
        assert (out / name).stat().st_size > 1000
    assert "<style>" in (out / "demo.html").read_text()


def test_recipes_are_files_beside_the_code():
    assert FOLDER == SOURCE / "recipes"


# ---- optional dependencies ------------------------------------------------------------------------------------------


def library(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ;]", requirement)[0].lower()


def imported() -> set[str]:
    """The libraries that the package imports, and those that PyTorch imports for it."""
    found = {"tensorboard"}  # by torch.utils.tensorboard
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {name.split(".")[0].lower() for name in names}
    return found


def test_every_dependency_is_imported_and_every_extra_has_a_use():
    renamed = {"opencv-python-headless": "cv2", "pyyaml": "yaml", "annotated-types": "annotated_types"}
    extras = {name: reqs for name, reqs in PROJECT["optional-dependencies"].items() if name not in ("test", "docs", "dev")}
    found = imported()
    for requirement in (*PROJECT["dependencies"], *(r for reqs in extras.values() for r in reqs)):
        name = library(requirement)
        assert renamed.get(name, name) in found, requirement


def test_the_extras_that_messages_and_pages_name_exist():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *SOURCE.rglob("*.py")]
    named = {extra for page in pages for found in re.findall(r'(?:modalift|"\.)\[([\w,]+)\]', page.read_text())
             for extra in found.split(",")}
    assert {"export", "cache", "log"} <= named
    assert named <= PROJECT["optional-dependencies"].keys()
