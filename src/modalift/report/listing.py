"""Tables of everything that is registered, for `modalift list`."""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.table import Table
from rich.text import Text

from modalift.errors import ModaliftError, nearest
from modalift.report.numbers import UNKNOWN, quantity

Rows = list[dict[str, Any]]


def listing(what: str) -> tuple[Rows, Table]:
    """Lists one kind of entries, as rows and as a table.

    Raises:
        ModaliftError: an unknown kind.
    """
    kinds: dict[str, Callable[[], Rows]] = {"schemes": _schemes, "networks": _networks, "modalities": _modalities,
                                            "datasets": _datasets, "derived": _derived, "recipes": _recipes, "keys": _keys}
    if what not in kinds:
        raise ModaliftError(f"cannot list '{what}' - {nearest(what, kinds)}")
    rows = kinds[what]()
    shown = [_shown_network(row) for row in rows] if what == "networks" else rows
    table = Table(title=what, title_justify="left", expand=what == "networks", padding=(0, 1))
    for name in shown[0] if shown else ("none",):
        figure = name in ("params", "MACs")
        table.add_column(name, justify="right" if figure else "left", no_wrap=figure or name in ("name", "clip", "recipe"),
                         ratio={"loads": 5, "description": 6}.get(name), width=10 if name == "papers" else None)
    for row in shown:
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
                     "description": summary_of(SCHEMES[name])})
    return rows


def _networks() -> Rows:
    """The families, with the cost for their default clip and 27 classes (computed on the meta device)."""
    from modalift.networks import FAMILIES, NETWORKS, options_of
    from modalift.networks.cost import macs
    from modalift.networks.weights import formats_for
    from modalift.report.costing import clip_of, make

    rows: Rows = []
    for name in NETWORKS:
        clip = clip_of(name)
        net = make(name, 27, clip)
        rows.append({"name": name, "parameters": sum(p.numel() for p in net.parameters()),
                     "macs": macs(net, clip.frames, (clip.height, clip.width)), "input": str(clip),
                     "papers": FAMILIES[name].papers, "weights": formats_for(name),
                     "streams": "causal" in options_of(name), "description": summary_of(NETWORKS[name])})
    return rows


def _shown_network(row: dict[str, Any]) -> dict[str, Any]:
    first = row["description"].split(". ")[0].rstrip(".").replace("``", "")
    return {"name": row["name"], "params": quantity(row["parameters"], digits=4),
            "MACs": quantity(row["macs"], digits=4), "clip": row["input"],
            "papers": re.sub(r" \([^)]*\)", "", row["papers"]).replace("Modalift's own", "own") or UNKNOWN,
            "loads": ", ".join(w for w in row["weights"] if w != "modalift") or UNKNOWN,  # which every network loads
            "streams": "causal" if row["streams"] else "no", "description": first}


def _modalities() -> Rows:
    from modalift.modalities import MODALITIES

    return [{"name": n, "kind": m.kind, "channels": m.channels or "as recorded", "unit": m.unit,
             "range": f"{m.low:g} to {m.high:g}", "invalid reading": UNKNOWN if m.invalid is None else f"{m.invalid:g}",
             "computed from": m.derived_from or UNKNOWN} for n in MODALITIES for m in (MODALITIES[n],)]


def _datasets() -> Rows:
    from modalift.datasets import DATASETS

    return [{"name": n, "description": summary_of(DATASETS[n])} for n in DATASETS]


def _derived() -> Rows:
    from modalift.derive import DERIVED

    return [{"name": n, "description": summary_of(DERIVED[n])} for n in DERIVED]


def _keys() -> Rows:
    """The keys of a recipe; ``ROLE`` stands for the role of a network."""
    from modalift.recipe import NetworkSection, Recipe
    from modalift.settings import fields, span_of

    found = [(key, field) for key, field in fields(Recipe) if key != "networks"]
    before = next(i for i, (key, _) in enumerate(found) if key.startswith("scheme"))
    found[before:before] = fields(NetworkSection, "networks.ROLE")
    return [{"key": key, "type": _type_name(field.annotation), "default": _default_of(field),
             "range": span_of(field.rebuild_annotation()).removeprefix("be ").removeprefix("lie in "),
             "description": field.description} for key, field in found if field.description]


def _default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return UNKNOWN  # its keys have their own
    return value if value and isinstance(value, str) else json.dumps(value, default=str).strip('"') or '""'


def _type_name(hint: Any) -> str:
    """The type of a key in words: ``float``, ``cpu or cuda``, ``list of str``."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if origin is Annotated:
        return _type_name(typing.get_args(hint)[0])
    parts = [_type_name(part) for part in typing.get_args(hint) if part is not Ellipsis]
    if origin in (Union, UnionType):
        return " or ".join(parts)
    if origin in (list, tuple):
        return f"list of {parts[0]}" if len(parts) == 1 else f"list of {len(parts)} {parts[0]}"
    if (isinstance(hint, type) and issubclass(hint, BaseModel)) or origin is dict:
        return "section"
    return "none" if hint is type(None) else str(hint.__name__).lower()


def _recipes() -> Rows:
    from modalift.recipe import load_recipe
    from modalift.recipe_files import recipe_names

    rows = []
    for name in recipe_names():
        recipe = load_recipe(name)
        rows.append({"recipe": name, "scheme": recipe.scheme.name, "paper": recipe.paper.title or UNKNOWN,
                     "row": recipe.paper.row or UNKNOWN, "paper's result": recipe.paper.value or UNKNOWN,
                     "level reached": recipe.paper.level})
    return rows
