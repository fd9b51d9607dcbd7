"""Shipping: from a run to the bundle that is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modalift.engine.evaluate import evaluate
from modalift.engine.monitor import Monitor
from modalift.engine.provenance import RECORDINGS, Evidence, belongs
from modalift.engine.run import Run
from modalift.errors import ModaliftError
from modalift.files import read_json
from modalift.models import KINDS
from modalift.recipe import Recipe, load_recipe


def ship(run: Run, role: str, path: Path, monitor: Monitor | None = None) -> dict[str, Any]:
    """Writes the bundle of one network of a run: its model with the protocol, its measured accuracy and its provenance.

    The accuracy is that of the bundle: of its weights, by its protocol, on the clips of the run's recipe and on recordings, as
    the bundle reads them. A figure that was measured on a lossy frame cache is measured again without it.

    Args:
        run: a finished run.
        role: the network's role; see :meth:`Run.resolve_role` for the default.
        path: the file to write.
        monitor: receives what was measured again, and which figures are not those of the bundle.

    Returns:
        Properties of the bundle: ``bundle``, ``view``, ``classes``, ``bytes``, ``parameters``, ``scheme``, ``measured``.

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
    measured = measured_on_recordings(run, role, monitor or Monitor())
    model.provenance = {
        "run": run.folder.name, "role": role, "scheme": recipe.scheme.name, "dataset": recipe.data.dataset,
        "recipe": _public(recipe), "training_macs": run.compute().get("training_macs"),
        "versions": {k: environment.get(k) for k in ("modalift", "torch", "python")},
        "measured": measured,
    }
    model.save(path)
    return {"bundle": path, "view": model.view, "classes": len(model.classes), "bytes": path.stat().st_size,
            "parameters": sum(p.numel() for p in model.network.parameters()), "scheme": recipe.scheme.name,
            "measured": measured}


def measured_on_recordings(run: Run, role: str, monitor: Monitor) -> dict[str, Any]:
    """Split -> metrics of a model, only those of its present weights, by the run's recipe, on recordings.

    Figures of a lossy frame cache are measured again on the recordings; where these are gone, they are left out.
    """
    measured = {}
    for key, metrics in run.results().get(role, {}).items():
        evidence = Evidence.parse(metrics.get("evidence"))
        if evidence is None or not belongs(run, role, metrics["evidence"]):
            monitor.message(f"the figures on {key} are not known to be those of '{role}' as it is now, so the bundle does not"
                            f" have them - evaluate it again with `modalift eval {run.folder}`", warning=True)
        elif evidence.conditions:
            continue  # other data or another protocol than the bundle's
        elif evidence.frames == RECORDINGS:
            measured[key] = _summary(metrics)
        else:
            monitor.message(f"the figures on {key} were measured on {evidence.frames}; they are measured again on the"
                            " recordings, as the bundle reads them")
            try:
                measured[key] = _summary(evaluate(run, key, [role], ["data.cache="], monitor)[role])
            except ModaliftError as error:
                monitor.message(f"the bundle has no figures on {key}, because the recordings cannot be read: {error}",
                                warning=True)
    return measured


def _summary(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics of an evaluation that are single numbers, the intervals of the headline metric, and what they are of."""
    kind = KINDS[metrics["kind"]]
    figures = {column.key: value for column in kind.columns if isinstance(value := metrics.get(column.key), int | float)}
    covered = metrics.get("coverage")
    left_out = covered["left_out"] if covered else {"unreadable": len(metrics.get("left_out", ()))}
    return {"clips": metrics["n"], "left_out": left_out, **figures,
            "intervals": metrics.get("intervals", {}).get(kind.headline.key), "held_out": metrics.get("held_out"),
            "evidence": metrics["evidence"]}


def _public(recipe: Recipe) -> dict[str, Any]:
    """The recipe without settings of the machine: paths, device, workers and threads."""
    tree = recipe.model_dump(mode="json")
    for section, keys in (("data", ("root", "cache", "options")), ("run", ("dir", "device", "workers", "threads"))):
        for key in keys:
            tree[section].pop(key)
    for network in tree["networks"].values():
        network.pop("init")
    return tree
