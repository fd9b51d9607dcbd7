"""Classification metrics: accuracies with confidence intervals, calibration, and confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modalift.errors import ModaliftError

RESAMPLES = 2000
LEVEL = 0.95
BINS = 15
#: A metadata column with at most this many distinct values is grouped by value, a numeric one with more by quantiles.
GROUPS = 6

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def score(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str], *,
          subjects: Sequence[str] | NDArray[Any] | None = None, metadata: Mapping[str, ArrayLike] | None = None,
          seed: int = 0) -> dict[str, Any]:
    """All metrics of one network on one split, as plain JSON values.

    Args:
        probabilities: ``(N, K)``, rows that sum to 1.
        labels: ``(N,)`` class indices; unlabeled clips (-1) are counted and otherwise left out.
        classes: the K class names.
        subjects: ``(N,)`` subject of each clip; without it there is no interval over subjects.
        metadata: name -> ``(N,)`` further columns (``lux``), for accuracy by metadata; NaN and empty text mean *unknown*.
        seed: seed of the bootstrap.

    Returns:
        A dictionary with ``n``, ``unlabeled``, ``top1``, ``top5`` (top-k accuracy with k = ``top5_of`` = min(5, K)),
        ``mean_class`` (mean recall over the classes that occur), ``nll``, ``ece``, ``calibration`` (the bins),
        ``intervals`` (metric -> ``clips`` and ``subjects`` -> [low, high]), ``per_class``, ``confusion`` (row: true
        class, column: predicted class), ``by_subject``, ``by_metadata``. What is undefined (an accuracy of no clips, an
        interval over one subject, the recall of a class that does not occur) is None, never NaN.

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
    correct = predicted == y
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (y, predicted), 1)
    bins, ece = calibration(p.max(1) if len(p) else np.zeros(0), correct)
    return {
        "n": len(y),
        "unlabeled": int((~labeled).sum()),
        "classes": [str(c) for c in classes],
        "top1": _mean(correct),
        "top5": _mean(top_k(p, y, 5)),
        "top5_of": min(5, len(classes)),
        "mean_class": _nullable(mean_class(confusion)),
        "nll": negative_log_likelihood(p, y),
        "ece": ece,
        "calibration": bins,
        "intervals": intervals(correct, y, len(classes), who, seed),
        "per_class": per_class(confusion, classes),
        "confusion": confusion.tolist(),
        "by_subject": [] if who is None else _by_subject(correct, who),
        "by_metadata": {k: groups for k, v in columns.items() if (groups := by_metadata(correct, v, seed))},
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
    """One row per class: support, recall, precision, F1, and the class that it is most often mistaken for."""
    rows = []
    for k, name in enumerate(classes):
        hit, support, predicted = int(confusion[k, k]), int(confusion[k].sum()), int(confusion[:, k].sum())
        wrong = confusion[k].copy()
        wrong[k] = 0
        rows.append({
            "class": str(name), "support": support, "predicted": predicted,
            "recall": hit / support if support else None,
            "precision": hit / predicted if predicted else None,
            "f1": 2 * hit / (support + predicted) if support + predicted else None,
            "mistaken_for": str(classes[int(wrong.argmax())]) if wrong.any() else None,
        })
    return rows


def intervals(correct: NDArray[np.bool_], labels: Ints, classes: int, subjects: NDArray[np.str_] | None = None,
              seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL) -> dict[str, Any]:
    """Percentile bootstrap intervals of top-1 and mean class accuracy, over clips and over subjects.

    Resampling N clips with replacement only changes how many clips fall into each of the 2K cells (class, correct
    or wrong), so the cells' counts are drawn from their multinomial distribution: the same bootstrap, at a cost that
    does not grow with N. Over subjects (a cluster bootstrap: clips of one person are correlated) whole
    subjects are drawn. The second is the interval to quote for *people the network has never seen*.

    Returns:
        ``{"top1": {"clips": [low, high], "subjects": [low, high]}, "mean_class": {...}, "level", "resamples"}``;
        None where there are fewer than two clips or two subjects.
    """
    out: dict[str, Any] = {"top1": {"clips": None, "subjects": None}, "mean_class": {"clips": None, "subjects": None},
                           "level": level, "resamples": resamples}
    cell = labels * 2 + correct
    rng = np.random.default_rng(seed)
    draws: dict[str, NDArray[Any]] = {}
    if len(labels) > 1:
        share = np.bincount(cell, minlength=2 * classes) / len(labels)
        draws["clips"] = rng.multinomial(len(labels), share, size=resamples)
    if subjects is not None and len(names := np.unique(subjects)) > 1:
        cells = np.zeros((len(names), 2 * classes))
        np.add.at(cells, (np.searchsorted(names, subjects), cell), 1)
        draws["subjects"] = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples) @ cells
    for over, counts in draws.items():
        wrong, hit = counts[:, 0::2], counts[:, 1::2]
        with np.errstate(invalid="ignore"):
            recall = hit / (hit + wrong)
        out["top1"][over] = percentile(hit.sum(1) / counts.sum(1), level)
        out["mean_class"][over] = percentile(np.nanmean(recall, 1), level)
    return out


def percentile(values: NDArray[Any], level: float = LEVEL) -> list[float]:
    """The central interval that contains the share ``level`` of the values: [low, high]."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return [float(low), float(high)]


def by_metadata(correct: NDArray[np.bool_], values: NDArray[Any], seed: int = 0) -> list[dict[str, Any]]:
    """Accuracy by the value of a metadata column: groups of equal value if there are few, else five quantile bins of a number.

    Returns:
        Rows ``{"value" | ("low", "high"), "n", "top1", "interval"}``, in ascending order; empty where the column takes
        fewer than two values, or is text of many values (a file name).
    """
    numeric = values.dtype.kind in "iufb"
    known = np.isfinite(values.astype(float)) if numeric else values.astype(str) != ""
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
            spread = np.random.default_rng(seed).binomial(len(inside), inside.mean(), RESAMPLES) / len(inside)
            rows.append({**head, "n": len(inside), "top1": float(inside.mean()),
                         "interval": percentile(spread) if len(inside) > 1 else None})
    return rows


def _by_subject(correct: NDArray[np.bool_], subjects: NDArray[np.str_]) -> list[dict[str, Any]]:
    return [{"subject": str(s), "n": int((subjects == s).sum()), "top1": float(correct[subjects == s].mean())}
            for s in np.unique(subjects)]


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
