"""What an evaluation covers: which clips of a split were scored and why the others were not, and what the split holds out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modalift.engine.provenance import RecordedClips
from modalift.engine.run import Run
from modalift.loading.clips import ClipSet
from modalift.modalities import Row, Table, is_known
from modalift.models import is_bundle
from modalift.models.metrics import GROUPS
from modalift.recipe import Recipe

#: Columns of metadata that are recording conditions also where they are numbers with many values.
_CONDITIONS = frozenset(("background", "camera", "date", "day", "device", "environment", "illumination", "light", "location",
                         "place", "recording", "room", "scene", "session", "setup", "site", "viewpoint"))


def scope_of(metrics: Mapping[str, Any], table: Table, split: str, clips: ClipSet, seen: tuple[set[str], bool], *,
             beyond_limit: int = 0, max_corrupt: float = 1.0) -> dict[str, Any]:
    """What the metrics of an evaluation are of, as plain JSON values.

    Args:
        metrics: ``n`` scored clips and, where the metrics need a label, ``unlabeled`` ones.
        table, split: all clips, and which are evaluated.
        clips: the evaluated clips, after :meth:`~modalift.loading.clips.ClipSet.find_corrupt`.
        seen: see :func:`seen_clips`.
        beyond_limit: number of the split's clips that ``data.limit`` leaves out.
        max_corrupt: the largest share of unreadable clips that is no cause for a warning (``data.max_corrupt``).

    Returns:
        ``left_out`` (unreadable clip -> reason), ``coverage`` (see :func:`coverage`), ``held_out`` (see :func:`held_out`).
    """
    # The list of a cache also names clips of other splits.
    unreadable = {row.id: clips.corrupt[row.id] for row in clips.table if row.id in clips.corrupt}
    needs_label = "unlabeled" in metrics
    ids = {clips.table[i].id for i in clips.indices if not needs_label or clips.table[i].label is not None}
    scored = table.where(lambda row: row.id in ids)
    return {"left_out": unreadable,
            "coverage": coverage(metrics["n"], metrics.get("unlabeled", 0), table.split(split), clips.table, unreadable,
                                 beyond_limit=beyond_limit, max_corrupt=max_corrupt),
            "held_out": held_out(table, scored, *seen)}


def coverage(scored: int, unlabeled: int, part: Table, usable: Table, unreadable: Mapping[str, str], *, beyond_limit: int = 0,
             max_corrupt: float = 1.0) -> dict[str, Any]:
    """How many clips of a split were scored, and why the others were not, as plain JSON values.

    Args:
        scored: number of clips behind the metrics.
        unlabeled: number of readable clips without a label, where the metrics need one.
        part: the split.
        usable: its clips that have the views that the evaluation reads.
        unreadable: which of these cannot be read, and why.
        beyond_limit, max_corrupt: see :func:`scope_of`.

    Returns:
        ``clips`` (of the split), ``scored``, ``left_out`` (reason -> how many: ``unreadable``, ``no_view``, ``unlabeled``,
        ``limit``), ``unreadable_labeled`` (how many of the unreadable clips have a label) and ``max_corrupt``.
    """
    labeled = sum(row.label is not None for row in usable if row.id in unreadable)
    reasons = {"unreadable": len(unreadable), "no_view": len(part) - len(usable), "unlabeled": unlabeled, "limit": beyond_limit}
    return {"clips": len(part) + beyond_limit, "scored": scored, "left_out": {k: n for k, n in reasons.items() if n},
            "unreadable_labeled": labeled, "max_corrupt": max_corrupt}


def joined_scope(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What metrics over the folds of a cross-validation are of; None where the results of an earlier version do not tell."""
    return {"left_out": {clip: reason for part in parts for clip, reason in part.get("left_out", {}).items()},
            "coverage": _joined_coverage([part.get("coverage") for part in parts]),
            "held_out": joined_held_out([part.get("held_out") for part in parts])}


def _joined_coverage(parts: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    known = [part for part in parts if part]
    if not known or len(known) < len(parts):
        return None
    reasons = dict.fromkeys(reason for part in known for reason in part["left_out"])
    return {**{key: sum(part[key] for part in known) for key in ("clips", "scored", "unreadable_labeled")},
            "left_out": {reason: sum(part["left_out"].get(reason, 0) for part in known) for reason in reasons},
            "max_corrupt": known[0]["max_corrupt"]}


# ---- what is held out -----------------------------------------------------------------------------------------------


def seen_clips(run: Run, recipe: Recipe, table: Table, split: str) -> tuple[set[str], bool]:
    """The clips of a table that a run's networks and their teachers were trained on, and whether these are all clips.

    Where validation clips select the checkpoint or set the learning rate, they are among them. Not all are known where a
    network starts from a bundle, or from a run on other recordings.

    Args:
        run: the run.
        recipe: its recipe.
        table: all clips.
        split: what is evaluated. Clips of a held-out split are not among the seen ones, since an evaluation refuses them: equal
            ids are of other recordings.
    """
    ids, starts = {row.id for row in table}, [Path(s.init) for s in recipe.networks.values() if s.init]
    if trained := set(RecordedClips.of(run).trained_on):
        seen, whole = ids & trained, ids >= trained and not any(_trained_on_unknown(start) for start in starts)
    else:  # a run of an earlier version
        seen, whole = {row.id for row in table.split("train")}, not starts
    if split != "train":
        seen -= {row.id for row in table.split(split)}
    if recipe.protocol.select == "best" or recipe.optim.schedule == "plateau":
        seen |= {row.id for row in table.split("val")}
    return seen, whole


def _trained_on_unknown(init: Path) -> bool:
    """Whether initial weights do not tell their training clips: a bundle's, or a run's of an earlier version."""
    if init.is_dir():
        return not Run(init).clips_path.is_file()
    return is_bundle(init) if init.is_file() else init.suffix == ".modalift"


def held_out(table: Table, part: Table, seen: set[str], whole: bool) -> dict[str, Any]:
    """Which of a split's clips, subjects and recording conditions the training has not seen.

    Args:
        table: all clips.
        part: the clips that are evaluated.
        seen, whole: see :func:`seen_clips`.

    Returns:
        ``clips``, ``subject`` and ``metadata`` (column -> ...): True where no value occurs in the training, False where one
        does, None where it is not known; ``shared_subjects``: how many subjects occur in both. Columns of metadata are
        included where their values recur: text, numbers of few values, and those named like a condition (``session``).
    """
    rows = [row for row in table if row.id in seen]

    def disjoint(ours: Iterable[Any], theirs: Iterable[Any]) -> bool | None:
        own, other = set(ours), set(theirs)
        if (own & other) - {None}:
            return False
        return None if None in own | other or not own or not whole else True

    subjects, taught = ([_subject(row) for row in group] for group in (part, rows))
    columns = sorted({name for row in (*part, *rows) for name in row.metadata})
    metadata = {name: [[_value(row, name) for row in group] for group in (part, rows)] for name in columns}
    return {"clips": disjoint((row.id for row in part), seen), "subject": disjoint(subjects, taught),
            "shared_subjects": len((set(subjects) & set(taught)) - {None}),
            "metadata": {name: disjoint(*values) for name, values in metadata.items() if _is_condition(name, *values)}}


def _subject(row: Row) -> str | None:
    return row.subject if is_known(row.subject) else None


def _value(row: Row, name: str) -> str | float | None:
    value = row.metadata.get(name)
    return None if isinstance(value, str) and not is_known(value) else value


def _is_condition(name: str, ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Whether a column is a recording condition: it takes several values, these recur, and it is not another split."""
    values = [v for v in (*ours, *theirs) if v is not None]
    different = len(set(values))
    few = all(isinstance(v, str) for v in values) or different <= GROUPS or name.lower() in _CONDITIONS
    return 1 < different <= len(values) / 2 and few and "split" not in name.lower()


def joined_held_out(parts: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """What several evaluations hold out together (folds, fused networks, compared runs); None if none of them tells.

    True where all hold it out, False where one does not, else None.
    """
    told = [part for part in parts if part]
    if not told:
        return None

    def joined(values: Sequence[bool | None]) -> bool | None:
        return False if False in values else None if None in values or len(told) < len(parts) else True

    columns = dict.fromkeys(name for part in told for name in part["metadata"])
    return {"clips": joined([part["clips"] for part in told]), "subject": joined([part["subject"] for part in told]),
            "shared_subjects": max(part["shared_subjects"] for part in told),
            "metadata": {name: joined([part["metadata"].get(name) for part in told]) for name in columns}}
