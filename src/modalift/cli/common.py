"""Shared by all verbs: consoles, common options, and printing of results as text or JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.text import Text

from modalift.errors import ModaliftError, printable
from modalift.files import to_json

if TYPE_CHECKING:
    from modalift.modalities import Table
    from modalift.recipe import Recipe


class PlainConsole(Console):
    """Prints text as it is: brackets in names are no markup, colons no emoji, and control characters are written out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            plain = segment.control or segment.text.isprintable()
            yield segment if plain else Segment(printable(segment.text), segment.style)


# A file or a pipe has no width limit: tables must not be truncated.
out, err = PlainConsole(width=None if sys.stdout.isatty() else 160), PlainConsole(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
DataFolder = Annotated[Path, typer.Argument(metavar="DATA", help="the folder of a dataset")]
DatasetName = Annotated[str, typer.Option(
    help="the dataset's format, see `modalift list datasets`; default: detected from the folder")]
DatasetOptions = Annotated[list[str] | None, typer.Option(
    "--option", "-o", metavar="KEY=VALUE", help="an option of the dataset's format; may be repeated")]
Overrides = Annotated[list[str] | None, typer.Argument(
    metavar="KEY=VALUE", help="changes to the recipe, as section.key=value")]
RecipeName = Annotated[str, typer.Argument(
    metavar="RECIPE", help="a recipe's name (`modalift list recipes`), a recipe file, or a run folder")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")]


def print_result(as_json: bool, data: Any, *renderables: Any) -> None:
    """Prints a result, as text or as JSON."""
    if as_json:
        print(to_json(data, default=str))
    else:
        # Text, not str: names of files and classes may contain brackets, which Rich would read as markup.
        for part in renderables:
            out.print(Text(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, str))


def print_error(message: str) -> None:
    """Prints one line on standard error."""
    err.print(Text.assemble(("error ", "bold red"), " ".join(message.split("\n"))), soft_wrap=True)


def recipe_of(recipe: str, overrides: list[str] | None, scale: str = "") -> Recipe:
    """Loads a recipe with the overrides of the command line."""
    from modalift.recipe import TINY, load_recipe

    if scale not in ("", "tiny"):
        raise ModaliftError(f"--scale {scale}: only 'tiny' is available")
    return load_recipe(recipe, [*(TINY if scale else ()), *(overrides or [])])


def table_of(data: Path, dataset: str, options: list[str] | None) -> Table:
    """Opens a dataset: in the given format, or in the one that is detected."""
    from modalift import datasets

    name, given = dataset_of(data, dataset, options)
    return datasets.open(name, data, **given)


def dataset_of(data: Path, dataset: str, options: list[str] | None) -> tuple[str, dict[str, Any]]:
    """The format of a dataset, given or detected, and its options."""
    from modalift import datasets
    from modalift.overrides import key_values

    return dataset or datasets.guess(data), dict(key_values(options or [], "option"))
