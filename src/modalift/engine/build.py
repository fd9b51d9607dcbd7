"""From a recipe to what it names: networks, scheme, and the experiment of both."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modalift import networks, schemes
from modalift.engine.experiment import Experiment
from modalift.engine.run import Run
from modalift.engine.tables import open_table, split_free_fingerprint
from modalift.errors import ModaliftError, nearest
from modalift.loading.framing import Framing
from modalift.modalities import Table
from modalift.networks.weights import Loaded
from modalift.recipe import NetworkSection, Recipe, load_recipe
from modalift.schemes import SCHEMES, Scheme


def assemble(recipe: Recipe, *, train: bool = True) -> Experiment:
    """Table, networks and scheme of a recipe; fails before any training where something is missing.

    Args:
        recipe: the experiment.
        train: False builds the networks without looking for the teachers' checkpoints (`explain`).

    Raises:
        ModaliftError: a view that the table lacks, a teacher without a checkpoint (with the command that makes it), ...
    """
    table = open_table(recipe)
    for view in recipe.data.per_view:
        if view not in table.views:
            raise ModaliftError(f"unknown view 'data.per_view.{view}' - {nearest(view, table.views)}")
    built, framings = build_networks(recipe, table, train)
    scheme = build_scheme(recipe, {role: found.network for role, found in built.items()})
    for view in scheme.needs():
        modality = table.modality(view)
        if recipe.data.modalities and view not in recipe.data.modalities:
            raise ModaliftError(f"the scheme reads the view '{view}', which data.modalities leaves out"
                                f" ({', '.join(recipe.data.modalities)})")
        framings = {view: recipe.data.framing(view, modality), **framings}
    check_regions(table, scheme, framings)
    check_validation(recipe, table)
    if train:
        check_held_out(recipe, table)
    scheme.train()  # freezes what must be frozen
    return Experiment(recipe, table, scheme, framings,
                      initialized_from={role: f.weights for role, f in built.items() if f.weights is not None})


# ---- networks and scheme --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """A role's network, how its recordings are framed, and what came of the file of weights that it starts from."""

    network: Any
    framing: Framing
    weights: Loaded | None = None


def build_networks(recipe: Recipe, table: Table, train: bool) -> tuple[dict[str, Built], dict[str, Framing]]:
    """Every role's network, and the framing of each view: networks that read one view share it."""
    built: dict[str, Built] = {}
    framings: dict[str, Framing] = {}
    for role, section in recipe.networks.items():
        built[role] = build_network(recipe, role, section, table, framings, train)
        framings = {built[role].network.view: built[role].framing, **framings}
    return built, framings


def build_network(recipe: Recipe, role: str, section: NetworkSection, table: Table, framings: Mapping[str, Framing],
                  train: bool) -> Built:
    """One role's network: built by name, started from ``init`` where there is one, or taken whole from a run.

    Args:
        recipe, role, section, table: what to build.
        framings: of the views that networks before it read.
        train: whether the runs that it starts from must be there.
    """
    if role in SCHEMES[recipe.scheme.name].frozen_for(recipe.scheme.model_extra or {}) and not section.init:
        raise ModaliftError(f"networks.{role}: scheme '{recipe.scheme.name}' needs it trained - give networks.{role}.init"
                            " (a run folder)")
    there = not section.init or Path(section.init).is_file() or Run(Path(section.init)).finished
    if not there and not train and not section.name and Path(section.recipe).is_file():
        made = load_recipe(section.recipe)  # to explain an experiment, what its teacher will be is enough
        other = section.role or next(iter(made.networks))
        return build_network(made, other, made.networks[other], table, framings, train)
    if not there and (train or not section.name):
        how = section.recipe or f"RECIPE run.dir={section.init}"
        raise ModaliftError(f"networks.{role}.init: no trained network at '{section.init}' - make it with"
                            f" `modalift train {how}" + (f" run.dir={section.init}`" if section.recipe else "`"))
    if section.init and Path(section.init).is_dir() and there and not section.name:
        return network_of_run(Path(section.init), section, role, table, framings)
    return new_network(recipe, role, section, table, framings, load=bool(section.init) and there)


def new_network(recipe: Recipe, role: str, section: NetworkSection, table: Table, framings: Mapping[str, Framing],
                load: bool) -> Built:
    """A network of a registered family, with random weights or those of a file or run."""
    view = section.view or (next(iter(table.views)) if len(table.views) == 1 else "")
    if not view:
        raise ModaliftError(f"networks.{role}.view is missing - one of {', '.join(table.views)}")
    sensor = table.modality(view)
    if not table.classes and networks.has_classes(section.name):
        raise ModaliftError(f"{table.name}: no clip has a label - nothing can be learned to be told apart")
    framing = framings.get(view) or recipe.data.framing(view, sensor)
    options = {"frames": framing.frames, "size": framing.size, "channels": sensor.channels, **(section.model_extra or {})}
    # The student starts alike whatever stands beside it: its first weights depend on the seed and the role alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{recipe.run.seed}/{role}".encode()))
        net = networks.build(section.name, classes=len(table.classes), view=view, modality_name=sensor.name, **options)
    if not load:
        return Built(net, framing)
    path = Path(section.init)
    file = Run(path).model_file(Run(path).role(section.role)) if path.is_dir() else path
    return Built(net, framing, networks.load_weights(net, file))


def network_of_run(path: Path, section: NetworkSection, role: str, table: Table, framings: Mapping[str, Framing]) -> Built:
    """The trained network of an earlier run, framed as it was there."""
    model = Run(path).model(section.role)
    if model.classes and model.classes != table.classes:
        raise ModaliftError(f"networks.{role}.init: {path} knows {len(model.classes)} classes"
                            f" ({', '.join(model.classes[:3])}, ...), the table has {len(table.classes)}"
                            f" ({', '.join(table.classes[:3])}, ...) - train it on the same classes")
    if not model.deployable:
        raise ModaliftError(f"networks.{role}.init: the {model.kind} of {path} reads several sensors - name one of its networks"
                            f" with networks.{role}.role")
    held = framings.get(model.view, model.framing)
    if held != model.framing:
        raise ModaliftError(f"networks.{role}: {path} reads '{model.view}' as {model.framing}, another network as {held}"
                            " - give both the same data.per_view")
    return Built(model.network, model.framing)


def build_scheme(recipe: Recipe, nets: Mapping[str, Any]) -> Scheme:
    """The scheme over its networks; the first weights of decoders and projections depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{recipe.run.seed}/parts of the scheme".encode()))
        return schemes.build(recipe.scheme.name, nets, recipe.scheme.model_extra)


# ---- what is refused before any training ----------------------------------------------------------------------------


def check_regions(table: Table, scheme: Scheme, framings: Mapping[str, Framing]) -> None:
    """Refuses a student whose clips would be cut by another sensor, which is not there when it is deployed."""
    for role, net in scheme.students.items():
        if framings[net.view].region == "valid" and table.modality(net.view).invalid is None:
            raise ModaliftError(f"networks.{role}: data.region=valid of '{net.view}' would be cut by another sensor, which is"
                                f" not there when it is deployed - set data.per_view.{net.view}.region=whole")


def check_validation(recipe: Recipe, table: Table) -> None:
    """Refuses settings that need validation clips where there are none."""
    if not len(table.split("val")):
        for key, value in (("protocol.select", recipe.protocol.select), ("optim.schedule", recipe.optim.schedule)):
            if value in ("best", "plateau"):
                raise ModaliftError(f"{key}={value} needs validation clips, and there are none - set"
                                    " protocol.val_subjects (never the test split)")


def check_held_out(recipe: Recipe, table: Table) -> None:
    """Refuses a network that was trained on clips that this recipe holds out."""
    held = {r.id for r in table if r.split != "train"}
    for role, section in recipe.networks.items():
        known = Run(Path(section.init)).compute() if section.init and Path(section.init).is_dir() else {}
        both = held & set(known.get("trained_on", {}).get(split_free_fingerprint(table), ()))
        if both:
            raise ModaliftError(f"networks.{role}.init: {section.init} was trained on {len(both)} clips that this recipe"
                                f" holds out ('{min(both)}', ...) - train it with the same split, folds and fold")
