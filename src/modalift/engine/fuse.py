"""`modalift fuse`: late fusion, the mean of the probabilities of trained networks on their common clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modalift.engine.evaluate import current_predictions, evaluate
from modalift.engine.monitor import Monitor
from modalift.engine.provenance import Evidence
from modalift.engine.roles import RoleChoice, deployable, names_of, networks_of
from modalift.engine.run import Run
from modalift.engine.scope import joined_held_out
from modalift.errors import ModaliftError
from modalift.models import Predictions
from modalift.models.recognizer import ClassifierModel, RecognizerModel


@dataclass(frozen=True)
class Member:
    """A network of a run, and its predictions."""

    run: Run
    role: str
    predictions: Predictions

    @property
    def name(self) -> str:
        """The run's short name and the role."""
        return f"{self.run.short_name}:{self.role}"


def fuse(runs: Sequence[Run], split: str = "test", roles: Sequence[str] = (), overrides: Sequence[str] = (),
         monitor: Monitor | None = None) -> dict[str, Any]:
    r"""Late fusion: the mean of several networks' probabilities.

    .. math:: p = \frac{1}{M} \sum_m \mathrm{softmax}(z_m)

    where :math:`z_m` are the logits of network m of M.

    Networks without predictions of their present weights on the present clips of the split are evaluated first, as by
    `modalift eval`. For the test split a line is appended to the ledger of every run; nothing else is written.

    Args:
        runs: finished runs; of one that trained several networks all are members.
        split: ``test``, ``val`` or ``train``.
        roles: ``ROLE`` or ``RUN=ROLE``: of a run that has such a role, only these networks.
        overrides: see :func:`~modalift.engine.evaluate.evaluate`.
        monitor: see :func:`~modalift.engine.evaluate.evaluate`.

    Returns:
        ``{"split", "members": {name: metrics}, "fusion": metrics, "left_out": n}``: all metrics on the common clips, their
        number is ``n``, with their ``coverage`` and ``held_out`` (:mod:`~modalift.engine.scope`); ``left_out`` clips have
        predictions of some of the networks only.

    Raises:
        ModaliftError: fewer than two networks, an unknown role, networks of different classes, no common clip, or
            different labels.

    Source: MTUT, section 4.4 (there MTUT with a superscript F).
    """
    choice, known_names = RoleChoice.parse(roles), [names_of(run) for run in runs]
    networks = [networks_of(run) for run in runs]
    choice.check(networks, known_names)
    requested = [(run, role) for run, known, also in zip(runs, networks, known_names, strict=True)
                 for role in _requested(known, choice, also)]
    if len(requested) < 2:
        raise ModaliftError(f"fusion needs two networks or more, and there is {len(requested)} - give further runs, or fewer"
                            " --student")
    first, classes = requested[0], _classes(*requested[0])
    for run, role in requested[1:]:
        if _classes(run, role) != classes:
            raise ModaliftError(f"{run.folder}: '{role}' has the classes {_few(_classes(run, role))}, '{first[1]}' of"
                                f" {first[0].folder} has {_few(classes)} - fuse networks of the same classes")
    every = [Member(run, role, _predictions(run, role, split, overrides, monitor)) for run, role in requested]
    members = _on_common_clips(every, split)
    names = [m.name for m in members]
    if len(set(names)) < len(names):
        names = [f"{m.run.folder}:{m.role}" for m in members]
    if len(set(names)) < len(names):
        raise ModaliftError(f"{members[0].run.folder}: is given twice - give each run once")
    mean = np.mean([m.predictions.probabilities.astype(np.float64) for m in members], 0)
    whole = RecognizerModel.metrics_of(dataclasses.replace(members[0].predictions, probabilities=mean), classes)
    everything = set().union(*(m.predictions.ids.tolist() for m in every))
    scope = _scope(every, split, whole, everything)
    if split == "test":
        headline = ClassifierModel.headline
        for folder in dict.fromkeys(m.run.folder for m in members):
            Run(folder).append_to_ledger(f"mean of {', '.join(names)}", whole["n"], {
                headline.key: headline.of(whole), "left_out": scope["coverage"]["clips"] - whole["n"]})
    return {"split": split, "fusion": whole | scope, "left_out": len(everything) - len(members[0].predictions),
            "members": {n: RecognizerModel.metrics_of(m.predictions, classes) | scope
                        for n, m in zip(names, members, strict=True)}}


def _scope(members: Sequence[Member], split: str, fused: dict[str, Any],
           predicted: set[str]) -> dict[str, Any]:
    """What the metrics on the common clips are of, from the results of the members' own evaluations.

    Args:
        members: the networks, as they were evaluated.
        split: the split.
        fused: metrics on the common clips.
        predicted: the clips with predictions of any network, which count as the split where its size is not known.
    """
    keys = [e.key if (e := Evidence.parse(m.predictions.evidence)) else split for m in members]
    results = [m.run.results().get(m.role, {}).get(key, {}) for m, key in zip(members, keys, strict=True)]
    known = [r["coverage"] for r in results if r.get("coverage")]
    clips = max([len(predicted), *(c["clips"] for c in known)])
    unreadable = {clip: reason for r in results for clip, reason in r.get("left_out", {}).items()
                  if "coverage" in r or clip in predicted}  # an earlier version also listed clips of other splits
    limit = max((c["left_out"].get("limit", 0) for c in known), default=0)
    reasons = {"unreadable": len(unreadable), "unlabeled": fused["unlabeled"], "limit": limit}
    reasons["no_view"] = clips - fused["n"] - sum(reasons.values())
    return {"left_out": unreadable, "held_out": joined_held_out([r.get("held_out") for r in results]),
            "coverage": {"clips": clips, "scored": fused["n"], "left_out": {k: n for k, n in reasons.items() if n},
                         "unreadable_labeled": 0, "max_corrupt": min((c["max_corrupt"] for c in known), default=1.0)}}


def _requested(known: Mapping[str, str], choice: RoleChoice, names: Sequence[str]) -> list[str]:
    """The roles of one run that are fused: those that were given, or all if none of them is the run's."""
    own = choice.of(names)
    return [own] if own else [role for role in known if role in choice.general] or deployable(known)


def _classes(run: Run, role: str) -> tuple[str, ...]:
    return tuple(run.describe(role)["classes"])


def _predictions(run: Run, role: str, split: str, overrides: Sequence[str], monitor: Monitor | None) -> Predictions:
    found = None if overrides else current_predictions(run, role, split)
    if found is not None:
        return found
    evidence = Evidence(**evaluate(run, split, [role], overrides, monitor)[role]["evidence"])
    return Predictions.load(run.predictions_path(role, evidence.key))


def _on_common_clips(members: Sequence[Member], split: str) -> list[Member]:
    """The members with their predictions on the common clips, in one order."""
    first = members[0].predictions
    shared = set(first.ids.tolist()).intersection(*(m.predictions.ids.tolist() for m in members[1:]))
    ids = [x for x in first.ids.tolist() if x in shared]
    if not ids:
        raise ModaliftError(f"no clip of the split '{split}' has predictions of all of {', '.join(m.name for m in members)} -"
                            " fuse runs of one table, whose sensors recorded the same clips")
    kept: list[Member] = []
    for m in members:
        place = {x: i for i, x in enumerate(m.predictions.ids.tolist())}
        own = m.predictions.take(np.array([place[x] for x in ids], dtype=np.int64))
        if kept and (differ := own.labels != kept[0].predictions.labels).any():
            k = int(differ.argmax())
            raise ModaliftError(f"clip '{ids[k]}' has label {kept[0].predictions.labels[k]} for {kept[0].name} and"
                                f" {own.labels[k]} for {m.name} - fuse runs of one table")
        kept.append(Member(m.run, m.role, own))
    return kept


def _few(classes: Sequence[str]) -> str:
    return f"{', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''} ({len(classes)})"
