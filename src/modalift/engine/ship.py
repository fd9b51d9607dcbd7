"""From a run to the bundle that is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modalift.engine.run import Run
from modalift.errors import ModaliftError
from modalift.files import read_json
from modalift.models import KINDS
from modalift.recipe import Recipe, load_recipe


def ship(run: Run, role: str, to: Path) -> dict[str, Any]:
    """Writes the bundle of one network of a run: its model with the protocol, its measured accuracy and its provenance.

    Returns:
        What is in it: ``bundle``, ``view``, ``classes``, ``bytes``, ``parameters``, ``scheme``.

    Raises:
        ModaliftError: an unfinished run, a role that it does not have, or a model of several sensors.
    """
    role = run.role(role)
    if not run.ships(role):
        raise ModaliftError(f"{run.folder}: '{role}' reads several sensors; it is an upper bound and cannot be deployed - ship"
                            f" one of its networks: --student {run.roles()[0]}")
    model, recipe = run.model(role), load_recipe(run.folder)
    environment = read_json(run.environment, dict, f"`modalift train {run.folder}` writes it")
    model.protocol = recipe.protocol.crops_only()
    model.provenance = {
        "run": run.folder.name, "role": role, "scheme": recipe.scheme.name, "dataset": recipe.data.dataset,
        "recipe": _public(recipe), "training_macs": run.compute().get("training_macs"),
        "versions": {k: environment.get(k) for k in ("modalift", "torch", "python")},
        "measured": {split: _summary(metrics) for split, metrics in run.measured().get(role, {}).items()},
    }
    model.save(to)
    return {"bundle": to, "view": model.view, "classes": len(model.classes), "bytes": to.stat().st_size,
            "parameters": sum(p.numel() for p in model.network.parameters()), "scheme": recipe.scheme.name}


def _summary(metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures of an evaluation that stand in one number each, and the intervals of the headline."""
    kind = KINDS[metrics["kind"]]
    figures = {column.key: value for column in kind.columns if isinstance(value := metrics.get(column.key), int | float)}
    return {"clips": metrics["n"], **figures, "intervals": metrics.get("intervals", {}).get(kind.headline.key)}


def _public(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the paths of the machine that it ran on."""
    tree = recipe.model_dump(mode="json")
    for section, keys in (("data", ("root", "cache", "options")), ("run", ("dir", "device", "workers", "threads"))):
        for key in keys:
            tree[section].pop(key)
    for network in tree["networks"].values():
        network.pop("init")
    return tree
