"""What a training and a figure belong to: recipe, weights, clips and the contents of their files.

A training records its clips (``clips.json``), and every evaluation its :class:`Evidence`. A training is resumed, and a
figure is shown, reused or shipped, only where these are those at hand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

from modalift.engine.run import Run
from modalift.errors import ModaliftError
from modalift.files import read_json, to_json, write_text
from modalift.loading.framing import Protocol
from modalift.loading.sources import digest, digests
from modalift.loading.stores import Store
from modalift.modalities import SPLITS, Table, Track
from modalift.models import is_bundle, read_weights_hash
from modalift.recipe import Recipe

#: Clip id -> view -> digest of its files and its window in them.
Contents = dict[str, dict[str, str]]
#: What an evaluation read, if not a lossy frame cache.
RECORDINGS = "recordings"

# ---- recipes --------------------------------------------------------------------------------------------------------


def identity(recipe: Recipe) -> dict[str, Any]:
    """The keys of a recipe that make it another experiment: all but paths, hardware and the paper."""
    tree = recipe.model_dump(mode="json")
    tree["run"] = {"seed": tree["run"]["seed"]}
    tree.pop("paper")
    for key in ("cache", "root", "max_corrupt"):
        tree["data"].pop(key)
    for network in tree["networks"].values():
        network.pop("recipe")  # only named in messages
    return tree


def fingerprint(recipe: Recipe, table: Table, precision: str) -> str:
    """A hash of all that must not change when a run is resumed: recipe, clips, and the weights that networks start from.

    Args:
        recipe: the recipe.
        table: its table.
        precision: of the training, which ``run.precision=auto`` leaves open.
    """
    tree = identity(recipe)
    tree["run"]["precision"] = precision
    for role, section in tree["networks"].items():
        section["init"] = initial_weights(recipe, role)  # the same weights may lie in another folder
    return hashlib.sha256((json.dumps(tree, sort_keys=True) + table.fingerprint()).encode()).hexdigest()[:16]


def initial_weights(recipe: Recipe, role: str) -> str:
    """A hash of the weights that a network starts from; empty for random ones, or where they do not exist."""
    section = recipe.networks[role]
    if not section.init:
        return ""
    path = Path(section.init)
    if path.is_dir():
        run = Run(path)
        path = run.model_path(run.resolve_role(section.role)) if run.finished and not run.folds() else path / "unfinished"
    if not path.is_file():
        return ""
    return read_weights_hash(path) if is_bundle(path) else digest(Track(path))


def difference(one: Recipe, other: Recipe) -> str:
    """The first key in which two recipes are different experiments, with both values; empty if there is none.

    Example:
        >>> from modalift.recipe import parse_recipe
        >>> tree = {"data": {"root": "x"}, "networks": {"student": {"name": "small", "view": "rgb"}}}
        >>> a, b = parse_recipe(tree), parse_recipe({**tree, "optim": {"lr": 0.5}})
        >>> difference(a, b), difference(a, a)
        ('optim.lr is 0.001 there and 0.5 here', '')
    """
    here, there = _flat(identity(other)), _flat(identity(one))
    for key in [*there, *(k for k in here if k not in there)]:
        if there.get(key) != here.get(key):
            return f"{key} is {there.get(key)!r} there and {here.get(key)!r} here"
    return ""


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inside = isinstance(value, Mapping) and value
        flat.update(_flat(value, f"{before}{key}.") if inside else {f"{before}{key}": value})
    return flat


def teacher_runs(recipe: Recipe) -> list[Run]:
    """The runs whose trained networks a recipe uses."""
    return [Run(Path(t)) for t in sorted({s.init for s in recipe.networks.values() if s.init and Path(s.init).is_dir()})]


# ---- clips ----------------------------------------------------------------------------------------------------------


def contents_of(table: Table, views: Iterable[str] | None = None, store: Store | None = None) -> Contents:
    """The contents of a table's clips; the digest is empty for files that are gone.

    Args:
        table: the clips.
        views: which views; by default all.
        store: a frame cache knows the digests of files that are gone.
    """
    found = digests(table, table.views if views is None else views, getattr(store, "digests", None))
    return {row.id: {v: f"{d}:{row.tracks[v].start}:{'' if row.tracks[v].end is None else row.tracks[v].end}"
                     for v, d in found[row.id].items()} for row in table}


def changed_clips(then: Contents, now: Contents) -> list[str]:
    """Clips whose recordings or windows are not the same; views and clips that only one side has do not count, nor do files
    that are gone."""
    return [clip for clip, views in now.items()
            if any(_known(views[v]) and _known(was) and views[v] != was for v, was in then.get(clip, {}).items() if v in views)]


def _known(content: str) -> bool:
    return content[:1] != ":"


@dataclass(frozen=True)
class RecordedClips:
    """The clips of a training, as its run's ``clips.json`` has them.

    Attributes:
        trained_on: the training clips, and those of the teachers.
        splits: the clips of ``val`` and ``test`` at the start of the training.
        tables: fingerprints of these splits.
        left_out: clip -> why it could not be read at the start of the training; it stays left out when the run is resumed.
    """

    trained_on: Contents
    splits: Mapping[str, Contents] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(run: Run) -> RecordedClips:
        """Those of a run; of a cross-validation none, since each fold has its own; none for a run without a record."""
        if not run.clips_path.is_file():
            return RecordedClips({})
        advice = f"`modalift train {run.folder}` writes it again"
        return RecordedClips(**read_json(run.clips_path, dict, advice, _is_record))

    def save(self, run: Run) -> None:
        """Writes ``clips.json``."""
        write_text(run.clips_path, to_json(vars(self)))

    def seen_in(self, part: Table, split: str, now: Contents) -> list[str]:
        """The clips of a held-out split on which the training was done.

        These are the same recordings under the same id, or under another one, unless the split had that recording at the start
        of the training, too: a dataset may hold a recording twice.
        """
        windows = {c for views in self.trained_on.values() for c in views.values() if _known(c)}
        before = {c for views in self.splits.get(split, {}).values() for c in views.values()}
        seen = []
        for row in part:
            then = self.trained_on.get(row.id, {})
            shared = [v for v in now[row.id] if v in then and _known(then[v]) and _known(now[row.id][v])]
            same = any(_file(then[v]) == _file(now[row.id][v]) for v in shared)
            if same or any(c in windows and c not in before for c in now[row.id].values()):
                seen.append(row.id)
        return seen


def _file(content: str) -> str:
    return content.partition(":")[0]


def _is_record(held: Any) -> bool:
    return set(held) == {"trained_on", "splits", "tables", "left_out"} and all(isinstance(part, dict) for part in held.values())


def record_clips(run: Run, table: Table, train: Table, teachers: Sequence[Run], store: Store | None,
                 left_out: Mapping[str, str]) -> None:
    """Writes the clips of a training before its first step; of a run that was begun, checks that they are the same.

    Args:
        run: the run.
        table: all clips.
        train: the training clips, without those that were left out.
        teachers: the runs whose networks the training uses.
        store: the frame cache, if there is one.
        left_out: clip -> why it cannot be read.

    Raises:
        ModaliftError: the recordings of training clips have changed since the run was begun.
    """
    if run.clips_path.is_file():
        check_recordings(run, train, store)
        return
    now = contents_of(train, store=store)
    trained_on: Contents = {}
    for teacher in teachers:
        for clip, views in RecordedClips.of(teacher).trained_on.items():
            trained_on.setdefault(clip, {}).update(views)
    trained_on |= {r.id: trained_on.get(r.id, {}) | now[r.id] for r in train}
    held_out = {split: table.split(split) for split in SPLITS if split != "train" and len(table.split(split))}
    RecordedClips(trained_on, {split: contents_of(part, store=store) for split, part in held_out.items()},
                  {split: part.fingerprint() for split, part in held_out.items()}, dict(left_out)).save(run)


def check_recordings(run: Run, train: Table, store: Store | None = None) -> None:
    """Checks that the recordings of training clips are those with which a run was begun.

    Raises:
        ModaliftError: some have changed.
    """
    changed = changed_clips(RecordedClips.of(run).trained_on, contents_of(train, store=store))
    if changed:
        raise ModaliftError(f"{run.folder}: the recordings of {len(changed)} training clips have changed since this run was"
                            f" begun ('{changed[0]}', ...) - set run.dir to another folder, or restore the recordings")


# ---- figures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """What a figure was measured on; plain values in ``results.json``, in predictions and in bundles.

    Attributes:
        weights: SHA-256 of the weights.
        recipe: fingerprint of the training.
        split: the split.
        crops: temporal x spatial crops, e.g. ``10x3``.
        table: fingerprint of the split's clips: ids, labels, subjects, windows.
        contents: view -> hash of the contents of the clips' files.
        frames: ``recordings``, or the lossy frame cache that was read instead.
        conditions: how the evaluation differs from the run's own recipe, e.g. ``10x3 crops``; empty if it does not.
    """

    weights: str
    recipe: str
    split: str
    crops: str
    table: str
    contents: Mapping[str, str]
    frames: str = RECORDINGS
    conditions: str = ""

    @property
    def key(self) -> str:
        """The key of the results: the split, with the conditions if they are not the run's own."""
        return f"{self.split}, {self.conditions}" if self.conditions else self.split

    def same_data(self, other: Evidence) -> bool:
        """Whether two figures were measured on the same clips: labels, windows, and recordings of the views that both read."""
        shared = [v for v in self.contents if v in other.contents]
        return self.table == other.table and all(
            self.contents[v] == other.contents[v] or "" in (self.contents[v], other.contents[v]) for v in shared)

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)

    @staticmethod
    def parse(held: Mapping[str, Any] | None) -> Evidence | None:
        """From plain values; None where they are missing (a figure of an earlier version) or incomplete."""
        names = {f.name for f in dataclasses.fields(Evidence)}
        return Evidence(**held) if held and set(held) == names else None


def evidence_of(run: Run, role: str, part: Table, now: Contents, protocol: Protocol, store: Store | None = None) -> Evidence:
    """The evidence of an evaluation.

    Args:
        run: the run.
        role: the model.
        part: the clips of one split.
        now: the contents of those that the model reads.
        protocol: the crops.
        store: where frames are read from.
    """
    lossy = store is not None and not getattr(store, "lossless", True)
    return Evidence(weights_of(run, role), str(run.compute().get("fingerprint", "")), part[0].split,
                    f"{protocol.temporal_crops}x{protocol.spatial_crops}", part.fingerprint(), summarized(now),
                    "a lossy frame cache" if lossy else RECORDINGS)


def weights_of(run: Run, role: str) -> str:
    """The hash of a model's present weights; of a cross-validation, of all folds' weights."""
    if run.folds():
        return short_hash("".join(weights_of(fold, role) for fold in run.folds()))
    return read_weights_hash(run.model_path(role))


def belongs(run: Run, role: str, held: Mapping[str, Any] | None) -> bool:
    """Whether stored evidence is that of a model's present weights; a figure without evidence is of an earlier version."""
    evidence = Evidence.parse(held)
    return evidence is None or evidence.weights == weights_of(run, role)


def summarized(now: Contents) -> dict[str, str]:
    """View -> a hash over the contents of all clips, in any order; empty if the files of any clip are gone."""
    found: dict[str, str] = {}
    for clip, views in now.items():
        for view, content in views.items():
            found[view] = _both(found.get(view, NO_CLIP), short_hash(f"{clip}:{content}") if _known(content) else "")
    return dict(sorted(found.items()))


#: The hash over no clip.
NO_CLIP = 16 * "0"


def _both(one: str, other: str) -> str:
    """The hash over the clips of both; empty if one is unknown."""
    return f"{int(one, 16) ^ int(other, 16):016x}" if one and other else ""


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The evidence of predictions that were joined over the folds of a cross-validation; empty if that of a fold is missing."""
    found = [Evidence.parse(part) for part in parts]
    known = [e for e in found if e is not None]
    if not known or len(known) < len(found):
        return {}
    first = known[0]
    contents = {view: reduce(_both, (e.contents.get(view, "") for e in known)) for view in first.contents}
    return dataclasses.replace(
        first, weights=short_hash("".join(e.weights for e in known)), recipe=short_hash("".join(e.recipe for e in known)),
        table=short_hash("".join(e.table for e in known)), contents=contents).plain()


def short_hash(text: str) -> str:
    """16 hex digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
