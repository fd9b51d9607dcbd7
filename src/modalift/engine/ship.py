"""Shipping: from a run to the bundle that is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modalift.engine.run import Run
from modalift.errors import ModaliftError
from modalift.files import read_json
from modalift.models import KINDS
from modalift.recipe import Recipe, load_recipe


def ship(run: Run, role: str, path: Path) -> dict[str, Any]:
    """Writes the bundle of one network of a run: its model with the protocol, its measured accuracy and its provenance.

    Args:
        run: a finished run.
        role: the network's role; see :meth:`Run.resolve_role` for the default.
        path: the file to write.

    Returns:
        Properties of the bundle: ``bundle``, ``view``, ``classes``, ``bytes``, ``parameters``, ``scheme``.

    Raises:
        ModaliftError: an unfinished run, an unknown role, or a model of several sensors.
    """
    role = run.resolve_role(role)
    if not run.ships(role):
        raise ModaliftError(f"{run.folder}: '{role}' reads several sensors; it is an upper bound and cannot be deployed - ship"
                            f" one of its networks: --student {run.roles()[0]}")
    model, recipe = run.model(role), load_recipe(run.folder)
    environment = read_json(run.environment_path, dict, f"`modalift train {run.folder}` writes it")
    model.protocol = recipe.protocol.crops_only()
    model.provenance = {
        "run": run.folder.name, "role": role, "scheme": recipe.scheme.name, "dataset": recipe.data.dataset,
        "recipe": _public(recipe), "training_macs": run.compute().get("training_macs"),
        "versions": {k: environment.get(k) for k in ("modalift", "torch", "python")},
        "measured": {split: _summary(metrics) for split, metrics in run.results().get(role, {}).items()},
    }
    model.save(path)
    return {"bundle": path, "view": model.view, "classes": len(model.classes), "bytes": path.stat().st_size,
            "parameters": sum(p.numel() for p in model.network.parameters()), "scheme": recipe.scheme.name}


def _summary(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics of an evaluation that are single numbers, and the intervals of the headline metric."""
    kind = KINDS[metrics["kind"]]
    figures = {column.key: value for column in kind.columns if isinstance(value := metrics.get(column.key), int | float)}
    return {"clips": metrics["n"], **figures, "intervals": metrics.get("intervals", {}).get(kind.headline.key)}


def _public(recipe: Recipe) -> dict[str, Any]:
    """The recipe without settings of the machine: paths, device, workers and threads."""
    tree = recipe.model_dump(mode="json")
    for section, keys in (("data", ("root", "cache", "options")), ("run", ("dir", "device", "workers", "threads"))):
        for key in keys:
            tree[section].pop(key)
    for network in tree["networks"].values():
        network.pop("init")
    return tree
