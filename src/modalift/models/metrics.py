"""Classification metrics: accuracies with confidence intervals, calibration, and confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modalift.errors import ModaliftError
from modalift.modalities import is_known
from modalift.models.intervals import (
    LEVEL,
    Interval,
    mean_class_over_subjects,
    mean_of_proportions,
    proportion_over_subjects,
    wilson,
)

BINS = 15
#: A metadata column with at most this many distinct values is grouped by value, a numeric one with more by quantiles.
GROUPS = 6

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def score(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str], *,
          subjects: Sequence[str] | NDArray[Any] | None = None,
          metadata: Mapping[str, ArrayLike] | None = None) -> dict[str, Any]:
    """All metrics of one network on one split, as plain JSON values.

    Args:
        probabilities: ``(N, K)``, rows that sum to 1.
        labels: ``(N,)`` class indices; unlabeled clips (-1) are counted and otherwise left out.
        classes: the K class names.
        subjects: ``(N,)`` subject of each clip, see :func:`~modalift.modalities.is_known`; without it there is no interval
            over subjects.
        metadata: name -> ``(N,)`` further columns (``lux``), for accuracy by metadata; NaN and text such as the empty one or
            ``unknown`` mean that it is not known.

    Returns:
        A dictionary with ``n``, ``unlabeled``, ``top1``, ``top5`` (top-k accuracy with k = ``top5_of`` = min(5, K)),
        ``mean_class`` (mean recall over the classes that occur), ``nll``, ``ece``, ``calibration`` (the bins),
        ``intervals`` (metric -> ``clips`` and ``subjects`` -> [low, high], see :func:`intervals`), ``over_subjects`` (what
        the intervals over subjects are computed of, see :func:`over_subjects`), ``per_class`` and ``by_subject`` and
        ``by_metadata`` (with intervals over clips), ``confusion`` (row: true class, column: predicted class). What is
        undefined (an accuracy of no clips, an interval over two subjects, the recall of a class that does not occur) is
        None, never NaN.

    Raises:
        ModaliftError: shapes that do not match, labels outside the classes, or rows that are not probabilities.

    Example:
        >>> found = score([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], [0, 1, -1], ["wave", "stop"])
        >>> found["n"], found["unlabeled"], found["top1"], found["per_class"][1]["recall"]
        (2, 1, 0.5, 0.0)
    """
    p, y = _checked(probabilities, labels, classes)
    labeled = y >= 0
    who = None if subjects is None else _column("subjects", subjects, len(y))[labeled].astype(str)
    columns = {k: _column(f"metadata '{k}'", v, len(y))[labeled] for k, v in (metadata or {}).items()}
    p, y = p[labeled], y[labeled]
    predicted = p.argmax(1) if len(p) else np.zeros(0, np.int64)
    correct, among = predicted == y, top_k(p, y, 5)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (y, predicted), 1)
    bins, ece = calibration(p.max(1) if len(p) else np.zeros(0), correct)
    return {
        "n": len(y),
        "unlabeled": int((~labeled).sum()),
        "classes": [str(c) for c in classes],
        "top1": _mean(correct),
        "top5": _mean(among),
        "top5_of": min(5, len(classes)),
        "mean_class": _nullable(mean_class(confusion)),
        "nll": negative_log_likelihood(p, y),
        "ece": ece,
        "calibration": bins,
        "intervals": intervals(correct, among, y, len(classes), who),
        "over_subjects": None if who is None else over_subjects(correct, who),
        "per_class": per_class(confusion, classes),
        "confusion": confusion.tolist(),
        "by_subject": [] if who is None else _by_subject(correct, who),
        "by_metadata": {k: groups for k, v in columns.items() if (groups := by_metadata(correct, v))},
    }


def top_k(probabilities: Floats, labels: Ints, k: int) -> NDArray[np.bool_]:
    """Whether the label is among the k most probable classes, ``(N,)``; ties go to the lower class index, as in argmax."""
    if not len(labels):
        return np.zeros(0, bool)
    own = np.take_along_axis(probabilities, labels[:, None], 1)
    lower = np.arange(probabilities.shape[1])[None] < labels[:, None]
    rank = ((probabilities > own) | ((probabilities == own) & lower)).sum(1)
    return rank < min(k, probabilities.shape[1])


def negative_log_likelihood(probabilities: Floats, labels: Ints) -> float | None:
    r"""Mean of :math:`-\ln p_{y}`, in nats; a probability below 1e-12 counts as 1e-12. None for no clips."""
    if not len(labels):
        return None
    own = np.take_along_axis(probabilities, labels[:, None], 1)
    return float(-np.log(np.maximum(own, 1e-12)).mean())


def calibration(confidence: Floats, correct: NDArray[np.bool_],
                bins: int = BINS) -> tuple[list[dict[str, Any]], float | None]:
    r"""Expected calibration error (ECE), with its bins.

    .. math:: \mathrm{ECE} = \sum_{b=1}^{B} \frac{n_b}{N} \, |\mathrm{acc}_b - \mathrm{conf}_b|

    where bin :math:`b` holds the clips whose highest probability lies in :math:`((b-1)/B, b/B]`,
    :math:`\mathrm{acc}_b` is their accuracy and :math:`\mathrm{conf}_b` the mean of that probability
    (Guo et al., *On Calibration of Modern Neural Networks*, 2017, equation 3).

    Returns:
        The B bins (``low``, ``high``, ``n``, ``confidence``, ``accuracy``; the last two None in an empty bin) and the
        error in 0..1, None for no clips.
    """
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    hit = np.bincount(which, weights=correct.astype(float), minlength=bins)
    confident = np.bincount(which, weights=confidence, minlength=bins)
    rows = [{"low": b / bins, "high": (b + 1) / bins, "n": int(n),
             "confidence": float(confident[b] / n) if n else None, "accuracy": float(hit[b] / n) if n else None}
            for b, n in enumerate(count)]
    return rows, float(np.abs(hit - confident).sum() / len(correct)) if len(correct) else None


def mean_class(confusion: NDArray[Any]) -> float:
    """Mean recall over the classes that occur (NaN if none does), from a confusion matrix ``(K, K)``."""
    support = confusion.sum(1)
    occurs = support > 0
    return float((confusion.diagonal()[occurs] / support[occurs]).mean()) if occurs.any() else float("nan")


def per_class(confusion: NDArray[Any], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row per class: support, recall with its interval over clips, precision, F1, and the class it is mistaken for."""
    rows = []
    for k, name in enumerate(classes):
        hit, support, predicted = int(confusion[k, k]), int(confusion[k].sum()), int(confusion[:, k].sum())
        wrong = confusion[k].copy()
        wrong[k] = 0
        rows.append({
            "class": str(name), "support": support, "predicted": predicted,
            "recall": hit / support if support else None, "interval": wilson(hit, support),
            "precision": hit / predicted if predicted else None,
            "f1": 2 * hit / (support + predicted) if support + predicted else None,
            "mistaken_for": str(classes[int(wrong.argmax())]) if wrong.any() else None,
        })
    return rows


def intervals(correct: NDArray[np.bool_], among: NDArray[np.bool_], labels: Ints, classes: int,
              subjects: NDArray[np.str_] | None = None) -> dict[str, Any]:
    """Intervals of 95 % of top-1, top-5 and mean class accuracy, over clips and over subjects.

    The first takes clips as independent, and holds for other clips of the same kind. The second is wider if people differ; it
    holds for other people where the network has seen none of these people.

    Args:
        correct, among: ``(N,)`` whether each clip's label is predicted, and whether it is among the five most probable.
        labels: ``(N,)`` class indices.
        classes: number of classes.
        subjects: ``(N,)``; clips of unknown subject are left out of the interval over subjects.

    Returns:
        ``{"top1": {"clips": [low, high], "subjects": [low, high]}, "top5": {...}, "mean_class": {...}, "level"}``; None for
        no clips, and for fewer than three subjects.
    """
    each: dict[str, dict[str, Interval | None]] = {
        "top1": {"clips": wilson(int(correct.sum()), len(labels))},
        "top5": {"clips": wilson(int(among.sum()), len(labels))},
        "mean_class": {"clips": mean_of_proportions(np.bincount(labels[correct], minlength=classes),
                                                    np.bincount(labels, minlength=classes))}}
    known, who, count = by_known_subject(np.full(len(labels), "") if subjects is None else subjects)
    clips, top1, top5 = (np.zeros((count, classes)) for _ in range(3))
    for cells, weights in ((clips, known), (top1, correct), (top5, among)):
        np.add.at(cells, (who, labels[known]), weights[known])
    each["top1"]["subjects"] = proportion_over_subjects(top1.sum(1), clips.sum(1))
    each["top5"]["subjects"] = proportion_over_subjects(top5.sum(1), clips.sum(1))
    each["mean_class"]["subjects"] = mean_class_over_subjects(top1, clips)
    return {**each, "level": LEVEL}


def by_known_subject(subjects: NDArray[np.str_]) -> tuple[NDArray[np.bool_], Ints, int]:
    """Which clips have a known subject ``(N,)``, the indices of these clips' subjects, and the number of known subjects."""
    names, which = np.unique(subjects, return_inverse=True)
    known = np.array([is_known(str(name)) for name in names], bool)
    place = np.cumsum(known) - 1
    return known[which], place[which][known[which]], int(known.sum())


def over_subjects(correct: NDArray[np.bool_], subjects: NDArray[np.str_]) -> dict[str, Any]:
    """What the intervals over subjects are computed of: the clips whose subject is known.

    Returns:
        ``subjects`` (how many), ``clips`` and their ``top1``, and ``unknown``: the clips of unknown subject, left out.
    """
    known, _, count = by_known_subject(subjects)
    return {"subjects": count, "clips": int(known.sum()), "top1": _mean(correct[known]),
            "unknown": int((~known).sum())}


def by_metadata(correct: NDArray[np.bool_], values: NDArray[Any]) -> list[dict[str, Any]]:
    """Accuracy by the value of a metadata column: groups of equal value if there are few, else five quantile bins of a number.

    Returns:
        Rows ``{"value" | ("low", "high"), "n", "top1", "interval"}`` with the interval over clips, in ascending order; empty
        where the column takes fewer than two values, or is text of many values (a file name). Clips whose value is not known
        are in no row.
    """
    numeric = values.dtype.kind in "iufb"
    known = np.isfinite(values.astype(float)) if numeric else np.array([is_known(str(v)) for v in values], bool)
    v, correct = (values[known].astype(float) if numeric else values[known].astype(str)), correct[known]
    found = np.unique(v)
    if len(found) < 2 or (len(found) > GROUPS and not numeric):
        return []
    heads: list[dict[str, Any]]
    if len(found) <= GROUPS:
        where = np.searchsorted(found, v)
        heads = [{"value": x.item()} for x in found]
    else:
        edges = np.unique(np.quantile(v, np.linspace(0, 1, 6)))
        where = np.clip(np.searchsorted(edges, v, side="right") - 1, 0, len(edges) - 2)
        heads = [{"low": float(a), "high": float(b)} for a, b in pairwise(edges)]
    rows = []
    for k, head in enumerate(heads):
        inside = correct[where == k]
        if len(inside):
            rows.append({**head, **_proportion(inside)})
    return rows


def _by_subject(correct: NDArray[np.bool_], subjects: NDArray[np.str_]) -> list[dict[str, Any]]:
    return [{"subject": str(s), **_proportion(correct[subjects == s])} for s in np.unique(subjects) if is_known(str(s))]


def _proportion(correct: NDArray[np.bool_]) -> dict[str, Any]:
    """The accuracy of one or more clips: ``n``, ``top1``, ``interval`` over clips."""
    return {"n": len(correct), "top1": float(correct.mean()), "interval": wilson(int(correct.sum()), len(correct))}


def _checked(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> tuple[Floats, Ints]:
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if not classes:
        raise ModaliftError("score: there are no classes - give at least one name")
    if y.ndim != 1 or (y.size and y.dtype.kind not in "iu"):
        raise ModaliftError(f"score: labels are {y.dtype} {y.shape} - give class indices (N,), -1 for unlabeled clips")
    if p.size == 0 and y.size == 0:
        p = p.reshape(0, len(classes))
    if p.shape != (len(y), len(classes)):
        raise ModaliftError(f"score: probabilities {p.shape} for {len(y)} labels and {len(classes)} classes -"
                            f" they must be {(len(y), len(classes))}")
    if y.size and (y.min() < -1 or y.max() >= len(classes)):
        wrong = int(y.max() if y.max() >= len(classes) else y.min())
        raise ModaliftError(f"score: label {wrong} is outside the {len(classes)} classes - labels count from 0,"
                            " -1 is unlabeled")
    _require_all(np.asarray(np.isfinite(p).all(1)), "is not finite - look for a NaN in the network's outputs")
    _require_all(np.asarray((p.min(1, initial=0.0) >= -1e-6) & (np.abs(p.sum(1) - 1) < 1e-2)),
                 "does not sum to 1 - give probabilities, not logits")
    return np.clip(p, 0, 1), y.astype(np.int64)


def _require_all(good: NDArray[np.bool_], problem: str) -> None:
    if not good.all():
        raise ModaliftError(f"score: row {int((~good).argmax())} of the probabilities {problem}")


def _column(name: str, values: ArrayLike, n: int) -> NDArray[Any]:
    column = np.asarray(values)
    if column.shape != (n,):
        raise ModaliftError(f"score: {name} has shape {column.shape} for {n} clips - give one value per clip")
    return column


def _mean(correct: NDArray[np.bool_]) -> float | None:
    return float(correct.mean()) if len(correct) else None


def _nullable(value: float) -> float | None:
    return value if np.isfinite(value) else None
