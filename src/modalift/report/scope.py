"""In words: of how many clips figures are, which clips were left out and why, and for which other clips or people they hold.

The metrics say it in ``coverage``, ``left_out`` and ``held_out`` (:mod:`modalift.engine.scope`) and in ``over_subjects``;
results of earlier versions lack some of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from modalift.modalities import is_known
from modalift.models.intervals import MIN_SUBJECTS
from modalift.report.numbers import percent

#: Metrics of one network on one split, or a row of a comparison.
Metrics = Mapping[str, Any]
#: Why clips are left out: key in the coverage -> words.
_REASONS = {"unreadable": "unreadable", "no_view": "not recorded by a sensor that is needed", "unlabeled": "without a label",
            "limit": "beyond data.limit"}


def clips_of(metrics: Metrics) -> str:
    """The number of clips behind the figures, and of how many if some were left out.

    Example:
        >>> clips_of({"n": 24}), clips_of({"n": 7, "coverage": {"clips": 12, "left_out": {"unreadable": 5}}})
        ('24', '7 of 12')
    """
    covered = metrics.get("coverage")
    return f"{metrics['n']:,}" + (f" of {covered['clips']:,}" if covered and covered["left_out"] else "")


def left_out(metrics: Metrics) -> str:
    """Which clips were left out and why, as a phrase; empty if none was.

    Example:
        >>> left_out({"n": 7, "coverage": {"clips": 12, "left_out": {"unreadable": 4, "unlabeled": 1}}})
        '5 left out: 4 unreadable, 1 without a label'
    """
    unreadable, covered = metrics.get("left_out") or {}, metrics.get("coverage")
    # The results of an earlier version also list unreadable clips of other splits, so they give no number of clips.
    reasons = covered["left_out"] if covered else {"unreadable": len(unreadable), "unlabeled": metrics.get("unlabeled") or 0}
    told = ", ".join(f"{n:,} {_REASONS.get(reason, reason)}" for reason, n in reasons.items() if n)
    if not told:
        return ""
    first = next(iter(unreadable.items()), None)
    return (f"{sum(reasons.values()):,} left out: {told}"
            + (f"; the first unreadable one: '{first[0]}': {first[1]}" if first else ""))


def counted(metrics: Metrics) -> str:
    """The clips behind the figures and those that were left out, as a phrase.

    Example:
        >>> counted({"n": 1}), counted({"n": 7, "coverage": {"clips": 12, "left_out": {"unreadable": 5}}})
        ('1 clip', '7 of 12 clips (5 left out: 5 unreadable)')
    """
    text, missing = clips_of(metrics), left_out(metrics)
    return f"{text} clip{'s' * (text != '1')}" + (f" ({missing})" if missing else "")


def warning(metrics: Metrics) -> str:
    """A warning where more of a split is unreadable than ``data.max_corrupt`` allows, with what that means for top-1."""
    covered = metrics.get("coverage") or {}
    unreadable = covered.get("left_out", {}).get("unreadable", 0)
    tried = covered.get("clips", 0) - sum(covered.get("left_out", {}).get(k, 0) for k in ("no_view", "limit"))
    if not unreadable or unreadable <= covered["max_corrupt"] * tried:
        return ""
    return (f"{unreadable} of {tried} clips are unreadable ({100 * unreadable / tried:.0f} %, more than data.max_corrupt ="
            f" {100 * covered['max_corrupt']:.0f} %): these are figures of the other clips, not of the split - repair them, see"
            f" `modalift check`, and evaluate again.{_bounds(metrics, covered['unreadable_labeled'])}")


def _bounds(metrics: Metrics, unreadable: int) -> str:
    top1, n = metrics.get("top1"), metrics["n"]
    if top1 is None or not unreadable:
        return ""
    hits = round(top1 * n)
    return (f" With the unreadable clips, top-1 may be {percent(hits / (n + unreadable))} (all of them wrong) to"
            f" {percent((hits + unreadable) / (n + unreadable))} (all of them right).")


# ---- people and conditions ------------------------------------------------------------------------------------------


def subjects_of(metrics: Metrics) -> int | None:
    """The number of known subjects; None for metrics that do not tell it."""
    if (known := (metrics.get("over_subjects") or metrics).get("subjects")) is not None:
        return int(known)
    rows = metrics.get("by_subject")
    return None if rows is None else sum(is_known(str(row["subject"])) for row in rows)


def why_no_interval(subjects: int) -> str:
    """Why there is no interval over subjects; empty if there is one.

    Example:
        >>> why_no_interval(2)
        'there is no interval over subjects: two are too few'
    """
    if subjects >= MIN_SUBJECTS:
        return ""
    known = ("no subject is known", "all clips are of one subject", "two are too few")[subjects]
    return f"there is no interval over subjects: {known}"


def people(metrics: Metrics, subjects: int | None = None) -> str:
    """Whether the figures hold for new people, and for new clips at all, as a sentence; empty where nothing tells.

    Args:
        metrics: with ``held_out``; without it, it is not known.
        subjects: number of known subjects; by default that of the metrics.
    """
    held = metrics.get("held_out") or {}
    known = subjects_of(metrics) if subjects is None else subjects
    if not held and known is None:
        return ""
    no_interval = "" if known is None else why_no_interval(known)
    if held.get("clips") is False:
        return "These clips were used in training, or to select the checkpoint: the figures say nothing about new clips."
    if held.get("subject") is True:
        who = "The subject was not" if known == 1 else f"None of the {f'{known} ' if known else ''}subjects was"
        then = f", but {no_interval}" if no_interval else ", so intervals over subjects hold for other people" if known else ""
        return f"{who} used in training{then}."
    if held.get("subject") is False:
        shared = held["shared_subjects"]
        who = f"All {known} subjects" if shared == known else f"{shared} of the {f'{known} ' if known else ''}subjects"
        who = "The subject was" if known == 1 else f"{who} were"
        return f"{who} also used in training: the figures say nothing about new people."
    return ("It is not known whether the subjects were used in training, so the figures say nothing about new people"
            + (f"; {no_interval}." if no_interval else "."))


def unknown_subjects(clips: int, top1: float | None = None) -> str:
    """That clips of unknown subject are not in the intervals over subjects; empty if there are none."""
    if not clips:
        return ""
    others = "" if top1 is None else f" (top-1 of the others: {percent(top1)})"
    return f"{clips} clip{'s are' if clips > 1 else ' is'} of unknown subject, and not in intervals over subjects{others}."


def conditions(metrics: Metrics) -> str:
    """Which columns of metadata the split holds out from training, and which not; empty if there are none.

    Example:
        >>> conditions({"held_out": {"metadata": {"scene": True, "trial": False, "room": None}}})
        'Values that training did not have: of scene. Values that it had, too: of trial. Not known: of room.'
    """
    metadata = (metrics.get("held_out") or {}).get("metadata") or {}
    heads = {True: "Values that training did not have", False: "Values that it had, too", None: "Not known"}
    parts = [(words, [name for name, out in metadata.items() if out is value]) for value, words in heads.items()]
    return " ".join(f"{words}: of {', '.join(names)}." for words, names in parts if names)


# ---- several networks -----------------------------------------------------------------------------------------------


def compared(found: Mapping[str, Any]) -> list[tuple[str, Metrics]]:
    """The rows of a comparison or study by name; they hold out together what each of them holds out."""
    return [(row["name"], {**row, "held_out": found["held_out"]}) for row in found["rows"]]


def warnings(rows: Iterable[tuple[str, Metrics]]) -> list[str]:
    """The warnings of several networks, by name."""
    return _by_text(rows, warning, named=True)


def notes(rows: Sequence[tuple[str, Metrics]]) -> list[str]:
    """What the figures of several networks are of: clips, people and conditions; equal ones once."""
    def unknown(m: Metrics) -> str:
        over = m.get("over_subjects") or {"unknown": m.get("unknown_subject", 0)}
        return unknown_subjects(over["unknown"], over.get("top1"))

    each = (one_class, people, unknown, conditions)
    return [*clip_notes(rows), *(line for say in each for line in _by_text(rows, say))]


def clip_notes(rows: Iterable[tuple[str, Metrics]]) -> list[str]:
    """Of how many clips the figures of several networks are, where some were left out, and why."""
    return _by_text(rows, lambda m: f"{counted(m)}." if left_out(m) else "", named=True)


def one_class(metrics: Metrics) -> str:
    """That all clips are of one class, if so: then the figures do not show that classes are told apart."""
    present = [row["class"] for row in metrics.get("per_class") or () if row["support"]]
    return f"All clips are of the class '{present[0]}': the figures do not show that classes are told apart." \
        if len(present) == 1 and len(metrics["per_class"]) > 1 else ""


def _by_text(rows: Iterable[tuple[str, Metrics]], say: Callable[[Metrics], str], named: bool = False) -> list[str]:
    """Each different text once, with the names of its rows, unless it is that of all."""
    found: dict[str, list[str]] = {}
    for name, metrics in rows:
        found.setdefault(say(metrics), []).append(name)
    return [f"{', '.join(names)}: {text}" if named or len(found) > 1 else text for text, names in found.items() if text]
