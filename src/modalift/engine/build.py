"""Builds the networks, scheme and experiment of a recipe."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modalift import networks, schemes
from modalift.engine.experiment import Experiment
from modalift.engine.feasible import check_validation
from modalift.engine.provenance import RecordedClips, contents_of, teacher_runs
from modalift.engine.run import Run
from modalift.engine.tables import open_table
from modalift.errors import ModaliftError, nearest
from modalift.files import is_file, is_folder
from modalift.loading.framing import Framing
from modalift.modalities import Table
from modalift.models import container, kind_of
from modalift.networks.weights import Loaded
from modalift.recipe import NetworkSection, Recipe, load_recipe
from modalift.schemes import SCHEMES, Scheme


def assemble(recipe: Recipe, *, train: bool = True) -> Experiment:
    """Builds the experiment of a recipe: its table, networks and scheme; all that is missing is found here.

    Args:
        recipe: the recipe.
        train: False builds the networks even where the runs of their teachers do not exist (`explain`).

    Raises:
        ModaliftError: e.g. a view that the table lacks, or a teacher that is not trained (with the command that trains it).
    """
    table = open_table(recipe)
    for view in recipe.data.per_view:
        if view not in table.views:
            raise ModaliftError(f"unknown view 'data.per_view.{view}' - {nearest(view, table.views)}")
    built, framings = build_networks(recipe, table, train)
    scheme = build_scheme(recipe, {role: b.network for role, b in built.items()})
    for view in scheme.required_views():
        modality = table.modality(view)
        if recipe.data.modalities and view not in recipe.data.modalities:
            raise ModaliftError(f"the scheme reads the view '{view}', which is not in data.modalities"
                                f" ({', '.join(recipe.data.modalities)})")
        framings = {view: recipe.data.framing(view, modality), **framings}
    check_regions(table, scheme, framings)
    experiment = Experiment(recipe, table, scheme, framings,
                            initialized_from={role: b.weights for role, b in built.items() if b.weights is not None})
    check_validation(experiment)
    if train:
        check_held_out(recipe, table)
    scheme.train()  # freezes the frozen networks too
    return experiment


# ---- networks and scheme --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BuiltNetwork:
    """A role's network, the framing of its view, and which weights of the file ``init`` were loaded, if there is one."""

    network: Any
    framing: Framing
    weights: Loaded | None = None


def build_networks(recipe: Recipe, table: Table, train: bool) -> tuple[dict[str, BuiltNetwork], dict[str, Framing]]:
    """Builds every role's network; returns them with the framing of each view, which networks of one view share."""
    built: dict[str, BuiltNetwork] = {}
    framings: dict[str, Framing] = {}
    for role, section in recipe.networks.items():
        built[role] = build_network(recipe, role, section, table, framings, train)
        framings = {built[role].network.view: built[role].framing, **framings}
    return built, framings


def build_network(recipe: Recipe, role: str, section: NetworkSection, table: Table, framings: Mapping[str, Framing],
                  train: bool, through: tuple[str, ...] = ()) -> BuiltNetwork:
    """Builds one role's network: by name, with the weights of ``init`` if it is set, or the trained network of a run.

    Args:
        recipe, role, section, table: the recipe, the network's role and section in it, and the table.
        framings: view -> framing, of the networks built before.
        train: whether the run ``init`` must exist.
        through: the recipes of the teachers that led here.

    Raises:
        ModaliftError: a network that must be trained before is not.
    """
    if role in SCHEMES[recipe.scheme.name].frozen_for(recipe.scheme.model_extra or {}) and not section.init:
        raise ModaliftError(f"networks.{role}: scheme '{recipe.scheme.name}' needs a trained network - set networks.{role}.init"
                            " to a run folder")
    available = not section.init or is_file(Path(section.init)) or Run(Path(section.init)).finished
    if not available and not train and not section.name and section.recipe:
        if section.recipe in through:
            raise ModaliftError(f"networks.{role}.recipe: {section.recipe} starts from itself - name another recipe")
        teacher = recipe_of_network(role, section)  # `explain` builds the teacher's network from its recipe
        teacher_role = section.role or next(iter(teacher.networks))
        return build_network(teacher, teacher_role, teacher.networks[teacher_role], table, framings, train,
                             (*through, section.recipe))
    if section.init and Run(Path(section.init)).folds():
        raise ModaliftError(f"networks.{role}.init: {section.init} is a cross-validation with a model per fold - name one of"
                            f" its folds, e.g. {section.init}/fold0, or {section.init}/fold{{fold}} for this run's")
    if not available and (train or not section.name):
        raise ModaliftError(f"networks.{role}.init: no trained network at '{section.init}' - train it with"
                            f" `{training_command(recipe, role, section)}`")
    if section.init and is_folder(Path(section.init)) and available and not section.name:
        return network_of_run(Path(section.init), section, role, table, framings)
    return new_network(recipe, role, section, table, framings, load=bool(section.init) and available)


def recipe_of_network(role: str, section: NetworkSection, changes: Sequence[str] = ()) -> Recipe:
    """The recipe that trains the run ``init`` of a network."""
    try:
        return load_recipe(section.recipe, changes)
    except ModaliftError as error:
        raise ModaliftError(f"networks.{role}.recipe: {error}") from None


def training_command(recipe: Recipe, role: str, section: NetworkSection) -> str:
    """The command that trains the run ``init`` of a network with the seed and fold of a recipe."""
    seed, protocol = recipe.run.seed, recipe.protocol
    changes = ([f"run.seed={seed}"] if seed else []) + ([f"protocol.folds={protocol.folds}"] if protocol.folds else [])
    changes += [] if protocol.fold is None else [f"protocol.fold={protocol.fold}"]
    if not section.recipe or recipe_of_network(role, section, changes).run.dir != Path(section.init):
        changes.append(f"run.dir={section.init}")
    return " ".join(["modalift train", section.recipe or "RECIPE", *changes])


def new_network(recipe: Recipe, role: str, section: NetworkSection, table: Table, framings: Mapping[str, Framing],
                load: bool) -> BuiltNetwork:
    """Builds a network of a registered family, with random weights or those of a file or run.

    Raises:
        ModaliftError: no view, no labels to learn, or weights that do not match.
    """
    view = section.view or (next(iter(table.views)) if len(table.views) == 1 else "")
    if not view:
        raise ModaliftError(f"networks.{role}.view is missing - set it to one of {', '.join(table.views)}")
    sensor = table.modality(view)
    if not table.classes and networks.has_classes(section.name):
        raise ModaliftError(f"{table.name}: no clip has a label - a recognizer needs labeled clips")
    framing = framings.get(view) or recipe.data.framing(view, sensor)
    options = {"frames": framing.frames, "size": framing.size, "channels": sensor.channels, **(section.model_extra or {})}
    # Initial weights depend on seed and role alone, so that a student starts equally under every scheme.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{recipe.run.seed}/{role}".encode()))
        net = networks.build(section.name, classes=len(table.classes), view=view, modality_name=sensor.name, **options)
    if not load:
        return BuiltNetwork(net, framing)
    path = Path(section.init)
    file = Run(path).model_path(Run(path).resolve_role(section.role)) if path.is_dir() else path
    check_weights_file(role, file, net)
    return BuiltNetwork(net, framing, networks.load_weights(net, file))


def network_of_run(path: Path, section: NetworkSection, role: str, table: Table,
                   framings: Mapping[str, Framing]) -> BuiltNetwork:
    """The trained network of an earlier run, with its framing.

    Raises:
        ModaliftError: a model of other classes, of several sensors, or with a framing that differs from another network's.
    """
    model = Run(path).model(section.role)
    if model.classes and model.classes != table.classes:
        raise ModaliftError(f"networks.{role}.init: {path} has {len(model.classes)} classes"
                            f" ({', '.join(model.classes[:3])}, ...), the table has {len(table.classes)}"
                            f" ({', '.join(table.classes[:3])}, ...) - train it on the same classes")
    if not model.deployable:
        raise ModaliftError(f"networks.{role}.init: the {model.kind} of {path} reads several sensors - name one of its networks"
                            f" with networks.{role}.role")
    framing = framings.get(model.view, model.framing)
    if framing != model.framing:
        raise ModaliftError(f"networks.{role}: {path} reads '{model.view}' with {model.framing}, another network with {framing}"
                            " - set data.per_view to the framing of the run")
    return BuiltNetwork(model.network, model.framing)


def build_scheme(recipe: Recipe, nets: Mapping[str, Any]) -> Scheme:
    """Builds the scheme of its networks; the initial weights of its own modules depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{recipe.run.seed}/parts of the scheme".encode()))
        return schemes.build(recipe.scheme.name, nets, recipe.scheme.model_extra)


# ---- checks before training -----------------------------------------------------------------------------------------


def check_regions(table: Table, scheme: Scheme, framings: Mapping[str, Framing]) -> None:
    """Refuses a student whose clips would be cropped by another sensor's readings, which it lacks when deployed."""
    for role, net in scheme.students.items():
        if framings[net.view].region == "valid" and table.modality(net.view).invalid is None:
            raise ModaliftError(f"networks.{role}: data.region=valid would crop '{net.view}' by another sensor's readings,"
                                f" which the student lacks when it is deployed - set data.per_view.{net.view}.region=whole")


def check_weights_file(role: str, file: Path, net: Any) -> None:
    """Refuses the file of a model that is damaged, or of another kind than the network that it would initialize."""
    if container.is_bundle(file):
        kind, expected = container.read(file).document.get("kind"), kind_of(net).kind
        if kind != expected:
            raise ModaliftError(f"networks.{role}.init: {file} holds a {kind}, not a {expected} - give the file of a"
                                f" {expected}, or name another network of its run with networks.{role}.role")


def check_held_out(recipe: Recipe, table: Table) -> None:
    """Refuses a network that was trained on validation or test clips of this recipe."""
    held_out = {split: part for split in ("val", "test") if len(part := table.split(split))}
    now = {split: contents_of(part) for split, part in held_out.items()} if teacher_runs(recipe) else {}
    for run in teacher_runs(recipe):
        recorded = RecordedClips.of(run)
        for split in now:
            if seen := recorded.seen_in(held_out[split], split, now[split]):
                role = next(role for role, section in recipe.networks.items() if Path(section.init) == run.folder)
                raise ModaliftError(f"networks.{role}.init: {run.folder} was trained on {len(seen)} clips that this recipe"
                                    f" holds out ('{min(seen)}', ...) - train it with the same splits, folds and fold")
