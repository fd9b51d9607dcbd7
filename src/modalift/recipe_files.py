"""Where recipes are: those of the package, by name; a user's own, by the path of their file; those of runs, by their folder."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from modalift.errors import ModaliftError

#: The recipes of the package, ``<dataset>/<row>.yaml``. Python installs packages as files, so this is a folder on disk.
FOLDER = Path(str(files("modalift") / "recipes"))


@dataclass(frozen=True)
class RecipeFile:
    """A recipe that was found.

    Attributes:
        path: its YAML file.
        name: ``utd_mhad/distill_pose`` of a recipe of the package; of a user's own the name of its file without ``.yaml``.
        run: the run folder that it describes, or None.
    """

    path: Path
    name: str
    run: Path | None = None


@cache
def _packaged() -> dict[str, Path]:
    """Name -> file of every recipe of the package, bases included."""
    return {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in sorted(FOLDER.rglob("*.yaml"))}


def recipe_names() -> list[str]:
    """The names of the package's recipes, without those that start with ``_``, which are bases of others."""
    return [name for name, path in _packaged().items() if not path.name.startswith("_")]


def find_recipe(recipe: str | Path, beside: Path | None = None) -> RecipeFile:
    """Finds a recipe by its name, its file or its run folder; a file or run folder that exists is preferred to a name.

    Args:
        recipe: ``utd_mhad/distill_pose``, ``mine.yaml`` or ``runs/mine/seed0``.
        beside: the folder that a relative path starts from; by default the current one.

    Raises:
        ModaliftError: there is no such recipe; the message names those with similar names.

    Example:
        >>> find_recipe("utd_mhad/distill_pose").path.name
        'distill_pose.yaml'
        >>> find_recipe("utd_mhad/distil_pose")
        Traceback (most recent call last):
        modalift.errors.ModaliftError: utd_mhad/distil_pose: no such recipe - did you mean 'utd_mhad/distill_pose'?
    """
    path = (beside or Path()) / recipe
    if str(recipe) and os.path.isfile(path / "recipe.yaml"):
        return RecipeFile(path / "recipe.yaml", path.resolve().name, run=path)
    if os.path.isfile(path):
        named = path.resolve()
        inside = named.suffix == ".yaml" and named.is_relative_to(FOLDER.resolve())
        return RecipeFile(path, named.relative_to(FOLDER.resolve()).with_suffix("").as_posix() if inside else path.stem)
    name = Path(recipe).as_posix()
    if name in _packaged():
        return RecipeFile(_packaged()[name], name)
    raise ModaliftError(f"{recipe}: no such recipe - {_similar(name)}")


def _similar(name: str) -> str:
    """The end of an error message about an unknown recipe: up to three similar names."""
    wanted, known = name.lower().removeprefix("recipes/").removesuffix(".yaml"), recipe_names()
    if any(k.startswith(f"{wanted}/") for k in known):
        return f"name one of the recipes of '{wanted}' that `modalift list recipes` lists"
    rows = [k for k in known if "/" not in wanted and k.split("/")[1] == wanted]  # the dataset was left out
    close = [wanted] if wanted in known else rows[:3] or difflib.get_close_matches(wanted, known, n=1)
    if not close:
        return "give a file, a run folder or one of `modalift list recipes`"
    return f"did you mean {' or '.join(repr(k) for k in close)}?"
