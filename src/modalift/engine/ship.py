"""From a run to the bundle that goes home."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modalift.deploy.bundle import save_bundle
from modalift.engine.run import FUSION, Run
from modalift.errors import ModaliftError
from modalift.files import read_json
from modalift.recipe import Recipe, load_recipe


def ship(run: Run, role: str, to: Path) -> dict[str, Any]:
    """Writes the bundle of one network of a run; says what is in it.

    Raises:
        ModaliftError: an unfinished run, a role that it does not have, or a joint answer of several sensors.
    """
    role = run.role(role)
    if role == FUSION and run.fuses():
        raise ModaliftError(f"{run.folder}: the joint answer of several sensors is a bound and does not ship - ship one of its"
                            f" networks: --student {run.roles()[0]}")
    trained, recipe = run.trained(role), load_recipe(run.folder)
    measured = run.measured().get(role, {})
    advice = f"`modalift train {run.folder}` writes it"
    environment = read_json(run.environment, dict, advice)
    provenance = {
        "run": run.folder.name, "role": role, "scheme": recipe.scheme.name, "dataset": recipe.data.dataset,
        "recipe": _public(recipe), "training_macs": run.compute().get("training_macs"),
        "versions": {k: environment.get(k) for k in ("modalift", "torch", "python")},
        "measured": {split: {"clips": m["n"], **{k: m[k] for k in ("top1", "psnr", "ssim", "edges") if k in m},
                             "intervals": m.get("intervals", {}).get("top1")} for split, m in measured.items()},
    }
    save_bundle(to, trained.net, framing=trained.framing, classes=trained.classes,
                protocol={"time_views": recipe.protocol.time_views, "crops": recipe.protocol.crops},
                provenance=provenance)
    return {"bundle": to, "view": trained.net.view, "classes": len(trained.classes), "bytes": to.stat().st_size,
            "parameters": sum(p.numel() for p in trained.net.parameters()), "scheme": recipe.scheme.name}


def _public(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the paths of the machine that it ran on."""
    tree = recipe.model_dump(mode="json")
    for section, keys in (("data", ("root", "cache", "options")), ("run", ("dir", "device", "workers", "threads"))):
        for key in keys:
            tree[section].pop(key)
    for network in tree["networks"].values():
        network.pop("init")
    return tree
