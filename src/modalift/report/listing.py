"""What is registered, as tables."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from modalift.errors import ModaliftError, nearest

Rows = list[dict[str, Any]]


def listing(what: str) -> tuple[Rows, Table]:
    """Rows of one kind of thing, and a table of them.

    Raises:
        ModaliftError: a kind that is not listed.
    """
    kinds: dict[str, Callable[[], Rows]] = {"schemes": _schemes, "networks": _networks, "modalities": _modalities,
                                            "datasets": _datasets, "derived": _derived, "recipes": _recipes}
    if what not in kinds:
        raise ModaliftError(f"list {what}: {nearest(what, kinds)}")
    rows = kinds[what]()
    table = Table(title=what, title_justify="left")
    for name in rows[0] if rows else ("nothing",):
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(str(v)) for v in row.values()))
    return rows, table


def summary_of(thing: Any) -> str:
    """The first sentence of a docstring."""
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


def _schemes() -> Rows:
    from modalift.schemes import SCHEMES, roles_of, settings_of

    rows = []
    for name in SCHEMES:
        named, more = roles_of(name)
        rows.append({"name": name, "networks": ", ".join(named) + ("any number" if more else ""),
                     "settings": ", ".join(f"{k}={v}" for k, v in settings_of(name).items()),
                     "what it does": summary_of(SCHEMES[name])})
    return rows


def _networks() -> Rows:
    from modalift.networks import NETWORKS, build, cost, options_of

    rows = []
    for name in NETWORKS:
        # A signal network is shown on twenty joints, the others on 112 pixels of colour.
        signal = name == "signal"
        net = build(name, classes=27, view="pose" if signal else "rgb", channels=60 if signal else 3, frames=16,
                    size=1 if signal else 112)
        spent = cost(net, frames=16, size=net.size)
        rows.append({"name": name, "parameters": f"{spent.parameters:,}", "MACs": f"{spent.macs:,}",
                     "counted on": "60 x 16" if signal else "3 x 16 x 112 x 112", "streams": "with causal=true"
                     if "causal" in options_of(name) else "no", "what it is": summary_of(NETWORKS[name])})
    return rows


def _modalities() -> Rows:
    from modalift.modalities import MODALITIES

    return [{"name": n, "kind": m.kind, "channels": m.channels or "as recorded", "unit": m.unit,
             "range": f"{m.low:g} .. {m.high:g}", "no reading": "-" if m.invalid is None else f"{m.invalid:g}",
             "computed from": m.derived_from or "-"} for n in MODALITIES for m in (MODALITIES[n],)]


def _datasets() -> Rows:
    from modalift.datasets import DATASETS

    return [{"name": n, "what it reads": summary_of(DATASETS[n])} for n in DATASETS]


def _derived() -> Rows:
    from modalift.derive import DERIVED

    return [{"name": n, "what it computes": summary_of(DERIVED[n])} for n in DERIVED]


def _recipes() -> Rows:
    from modalift.recipe import find_recipes, load_recipe

    rows = []
    for path in find_recipes([Path("recipes")]):
        recipe = load_recipe(path)
        rows.append({"recipe": path, "scheme": recipe.scheme.name, "paper": recipe.paper.title or "-",
                     "row": recipe.paper.row or "-", "its figure": recipe.paper.value or "-",
                     "level": recipe.paper.level})
    return rows
