"""From a recipe to the things that it names: table, networks, scheme."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from modalift import datasets, networks, schemes
from modalift.engine.run import Run, read_network
from modalift.errors import ModaliftError, nearest
from modalift.loading.augment import Augment
from modalift.loading.cache import build_cache, open_cache
from modalift.loading.clips import ClipSet
from modalift.loading.framing import Framing
from modalift.loading.stores import Memory, Store
from modalift.modalities import Table
from modalift.networks import Recognizer
from modalift.networks.weights import Loaded
from modalift.recipe import NetworkSection, Recipe, load_recipe
from modalift.schemes import SCHEMES, Scheme


@dataclass
class Experiment:
    """Everything that a recipe names, ready to train or to evaluate.

    Attributes:
        skip: corrupt clip -> what is wrong with it.
        begun: role -> what came of the file of weights that it starts from.
    """

    recipe: Recipe
    table: Table
    scheme: Scheme
    framings: dict[str, Framing]
    skip: dict[str, str] = field(default_factory=dict)
    begun: dict[str, Loaded] = field(default_factory=dict)
    _store: Store | None = None

    @property
    def train(self) -> Table:
        """Training clips with the labels that the scheme may use, in a fixed order."""
        scheme, views = self.scheme, self.scheme.needs()
        shown = _hide_labels(self.table.split("train"), self.recipe.data.labeled, self.recipe.data.label_seed)
        kept = shown.where(lambda r: r.id not in self.skip and bool(views & set(r.tracks))
                           and (scheme.uses_unlabeled or r.label is not None))
        if not len(kept):
            raise ModaliftError(f"{self.table.name}: no training clip has any of the views {', '.join(sorted(views))}"
                                " and what the scheme needs - look at `modalift check`")
        return kept

    def steps(self, world: int = 1) -> tuple[int, int]:
        """Steps of an epoch, and clips of a step over all processes; what does not fill a step waits for another epoch.

        Raises:
            ModaliftError: accumulation over more clips than there are.
        """
        optim, clips = self.recipe.optim, len(self.train)
        per_step = optim.batch * optim.accumulate * world
        if clips < per_step and optim.accumulate > 1:
            raise ModaliftError(f"optim.batch x accumulate x processes = {per_step}, but there are {clips} training clips"
                                " - lower one of them")
        return max(1, clips // per_step), per_step

    def fingerprint(self, precision: str) -> str:
        """What must not change between a run and its resumption: everything but where and how it is computed.

        Args:
            precision: what it is computed in, which a recipe may leave to the machine.
        """
        tree = self.recipe.model_dump(mode="json")
        tree["run"] = {"seed": tree["run"]["seed"], "precision": precision}
        tree.pop("paper")
        for key in ("cache", "root"):
            tree["data"].pop(key)
        return hashlib.sha256((json.dumps(tree, sort_keys=True) + self.table.fingerprint()).encode()).hexdigest()[:16]

    def clips(self, table: Table, views: set[str], *, augment: bool) -> ClipSet:
        """Clips of a table as networks receive them: augmented for training, by the protocol for evaluation."""
        data, protocol = self.recipe.data, self.recipe.protocol
        return ClipSet(table, {v: self.framings[v] for v in sorted(views)},
                       augment=augment_of(data.augment) if augment else None, seed=self.recipe.run.seed,
                       cache=self.store(), skip=set(self.skip),
                       time_views=1 if augment else protocol.time_views, crops=1 if augment else protocol.crops)

    def store(self) -> Store | None:
        """Where decoded frames are kept: memory, a cache folder, or nowhere."""
        place, views = self.recipe.data.cache, sorted(self.scheme.needs())
        if place == "memory" and self._store is None:
            self._store = Memory.of(self.table, views)
        elif place and self._store is None:
            folder = Path(place)
            cache = open_cache(folder) if folder.is_dir() else build_cache(self.table, folder, views)
            if not cache.covers(self.table, views):
                raise ModaliftError(f"{folder}: this cache was made from other clips or views - remove the folder or"
                                    " give data.cache another one")
            self._store = cache
        return self._store


def assemble(recipe: Recipe, *, train: bool = True) -> Experiment:
    """Table, networks and scheme of a recipe; fails before any training where something is missing.

    Args:
        recipe: the experiment.
        train: False builds the networks without looking for the teachers' checkpoints (`explain`).

    Raises:
        ModaliftError: a view that the table lacks, a teacher without a checkpoint (with the command that makes it), ...
    """
    augment_of(recipe.data.augment)
    table = open_table(recipe)
    for view in recipe.data.per_view:
        if view not in table.views:
            raise ModaliftError(f"unknown view 'data.per_view.{view}' - {nearest(view, table.views)}")
    framings: dict[str, Framing] = {}
    begun: dict[str, Loaded] = {}
    nets = {role: _network(recipe, role, section, table, framings, begun, train)
            for role, section in recipe.networks.items()}
    with torch.random.fork_rng(devices=[]):  # decoders, projections, judges: their first weights depend on the seed alone
        torch.manual_seed(zlib.crc32(f"{recipe.run.seed}/parts of the scheme".encode()))
        scheme = schemes.build(recipe.scheme.name, nets, recipe.scheme.model_extra)
    allowed = recipe.data.modalities
    for view in scheme.needs():
        table.modality(view)
        if allowed and view not in allowed:
            raise ModaliftError(f"the scheme reads the view '{view}', which data.modalities leaves out"
                                f" ({', '.join(allowed)})")
        framings.setdefault(view, framing_of(recipe, view, table))
    for role, net in scheme.students.items():
        if framings[net.view].region == "valid" and table.modality(net.view).invalid is None:
            raise ModaliftError(f"networks.{role}: data.region=valid of '{net.view}' would be cut by another sensor, which is"
                                f" not there when it ships - set data.per_view.{net.view}.region=whole")
    if not len(table.split("val")):
        for key, value in (("protocol.select", recipe.protocol.select), ("optim.schedule", recipe.optim.schedule)):
            if value in ("best", "plateau"):
                raise ModaliftError(f"{key}={value} needs validation clips, and there was none - set"
                                    " protocol.val_subjects (never the test split)")
    if train:
        _no_leak(recipe, table)
    scheme.train()  # freezes what must be frozen
    return Experiment(recipe, table, scheme, framings, begun=begun)


def origin(table: Table) -> str:
    """A table's fingerprint whatever its splits: the same recordings, however they are dealt."""
    return table.map(lambda r: dataclasses.replace(r, split="train")).fingerprint()


def _no_leak(recipe: Recipe, table: Table) -> None:
    """Refuses a network that was trained on clips that this recipe holds out."""
    held = {r.id for r in table if r.split != "train"}
    for role, section in recipe.networks.items():
        known = Run(Path(section.init)).compute() if section.init and Path(section.init).is_dir() else {}
        both = held & set(known.get("trained_on", {}).get(origin(table), ()))
        if both:
            raise ModaliftError(f"networks.{role}.init: {section.init} was trained on {len(both)} clips that this recipe"
                                f" holds out ('{min(both)}', ...) - train it with the same split, folds and fold")


def augment_of(given: dict[str, Any]) -> Augment:
    """The recipe's ``data.augment``; a key that it does not know is answered with the nearest one."""
    known = [f.name for f in dataclasses.fields(Augment)]
    for key in given:
        if key not in known:
            raise ModaliftError(f"unknown key 'data.augment.{key}' - {nearest(key, known)}")
    return Augment(**given)


def open_table(recipe: Recipe) -> Table:
    """The recipe's table, with its validation subjects and folds."""
    data, protocol = recipe.data, recipe.protocol
    table = datasets.open(data.dataset, data.root, **data.options)
    if protocol.fold is not None and not protocol.folds:
        raise ModaliftError(f"protocol.fold={protocol.fold} needs protocol.folds - say how many folds there are")
    if protocol.folds:
        table = _fold(table, protocol.folds, protocol.fold or 0)
    for subject in protocol.val_subjects:
        if subject not in table.split("train").subjects:
            raise ModaliftError(f"protocol.val_subjects: no training clip of subject '{subject}'"
                                f" - {nearest(subject, table.split('train').subjects)}")
    held = set(protocol.val_subjects)
    if held:
        table = table.map(lambda r: dataclasses.replace(r, split="val")
                          if r.split == "train" and r.subject in held else r)
    if data.limit:
        table = _limit(table, data.limit)
    return table


def _fold(table: Table, folds: int, fold: int) -> Table:
    """Subjects dealt round into ``folds`` groups; group ``fold`` is the test split, the others train."""
    if not 0 <= fold < folds <= len(table.subjects):
        raise ModaliftError(f"protocol.fold={fold} of folds={folds}: {table.name} has {len(table.subjects)} subjects"
                            " - use 0 <= fold < folds <= subjects")
    held = set(table.subjects[fold::folds])
    return table.map(lambda r: dataclasses.replace(r, split="test" if r.subject in held else "train"))


def _limit(table: Table, limit: int) -> Table:
    """At most ``limit`` clips of each split, spread over it."""
    keep: set[str] = set()
    for split in ("train", "val", "test"):
        rows = table.split(split).rows
        step = max(1, len(rows) // limit)
        keep |= {r.id for r in rows[::step][:limit]}
    return table.where(lambda r: r.id in keep)


def _hide_labels(table: Table, share: float, seed: int) -> Table:
    """Keeps the labels of a share of the clips, the same share of each class (at least one of each)."""
    if share >= 1:
        return table
    kept: set[str] = set()
    for label in range(len(table.classes)):
        ids = sorted(r.id for r in table if r.label == label)
        random.Random(f"{seed}/{label}").shuffle(ids)
        kept |= set(ids[: max(1, round(share * len(ids)))]) if ids else set()
    return table.map(lambda r: r if r.id in kept else dataclasses.replace(r, label=None))


def framing_of(recipe: Recipe, view: str, table: Table) -> Framing:
    """How a recipe frames a view."""
    data = recipe.data
    base = {f.name: getattr(data, f.name) for f in dataclasses.fields(Framing)}
    own = data.per_view.get(view, {})
    for key in own:
        if key not in base:
            raise ModaliftError(f"unknown key 'data.per_view.{view}.{key}' - {nearest(key, base)}")
    merged = {**base, **own}
    if table.modality(view).kind == "signal":
        merged |= {"size": 1, "region": "whole"}  # a signal has no picture to cut a region from
    try:
        return TypeAdapter(Framing).validate_python(merged)
    except ValidationError as error:
        first = error.errors()[0]
        raise ModaliftError(f"data.per_view.{view}.{first['loc'][-1]} = {first['input']!r}: {first['msg']}") from None


def _network(recipe: Recipe, role: str, section: NetworkSection, table: Table, framings: dict[str, Framing],
             begun: dict[str, Loaded], train: bool) -> Recognizer:
    """One role's network: built by name, started from ``init`` where there is one, or taken whole from a run."""
    frozen = role in SCHEMES[recipe.scheme.name].frozen_for(recipe.scheme.model_extra or {})
    if frozen and not section.init:
        raise ModaliftError(f"networks.{role}: scheme '{recipe.scheme.name}' needs it trained - give networks.{role}.init"
                            " (a run folder)")
    there = not section.init or _exists(section.init)
    if not there and not train and not section.name and Path(section.recipe).is_file():
        made = load_recipe(section.recipe)  # to explain an experiment, what its teacher will be is enough
        other = section.role or next(iter(made.networks))
        return _network(made, other, made.networks[other], table, framings, begun, train)
    if not there and (train or not section.name):
        how = section.recipe or f"RECIPE run.dir={section.init}"
        raise ModaliftError(f"networks.{role}.init: no trained network at '{section.init}' - make it with"
                            f" `modalift train {how}" + (f" run.dir={section.init}`" if section.recipe else "`"))
    if section.init and there and Path(section.init).is_dir() and not section.name:
        return _from_run(Path(section.init), section, role, table, framings)
    view = section.view or (next(iter(table.views)) if len(table.views) == 1 else "")
    if not view:
        raise ModaliftError(f"networks.{role}.view is missing - one of {', '.join(table.views)}")
    sensor = table.modality(view)
    if not table.classes and networks.has_classes(section.name):
        raise ModaliftError(f"{table.name}: no clip has a label - nothing can be learned to be told apart")
    framing = framings.setdefault(view, framing_of(recipe, view, table))
    options = {"frames": framing.frames, "size": framing.size, "channels": sensor.channels, **(section.model_extra or {})}
    # The student starts alike whatever stands beside it: its first weights depend on the seed and the role alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{recipe.run.seed}/{role}".encode()))
        net = networks.build(section.name, classes=len(table.classes), view=view, modality_name=sensor.name, **options)
    if section.init and there:
        path = Path(section.init)
        file = Run(path).network_file(Run(path).role(section.role)) if path.is_dir() else path
        begun[role] = networks.load_weights(net, file)
    return net


def _exists(init: str) -> bool:
    path = Path(init)
    return path.is_file() or Run(path).finished


def _from_run(path: Path, section: NetworkSection, role: str, table: Table, framings: dict[str, Framing]) -> Recognizer:
    run = Run(path)
    trained = read_network(run.network_file(run.role(section.role)))
    if trained.net.classes and trained.classes != table.classes:
        raise ModaliftError(f"networks.{role}.init: {path} knows {len(trained.classes)} classes"
                            f" ({', '.join(trained.classes[:3])}, ...), the table has {len(table.classes)}"
                            f" ({', '.join(table.classes[:3])}, ...) - train it on the same classes")
    view = trained.net.view
    held = framings.setdefault(view, trained.framing)
    if held != trained.framing:
        raise ModaliftError(f"networks.{role}: {path} reads '{view}' as {trained.framing}, another network as {held}"
                            " - give both the same data.per_view")
    return trained.net


