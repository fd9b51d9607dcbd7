"""Statistical comparison of runs: paired tests and intervals over clips, subjects and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalift.errors import ModaliftError
from modalift.models.intervals import (
    LEVEL,
    effective_clips,
    mean_over_networks,
    paired_difference,
    proportion_over_subjects,
    t_interval,
)
from modalift.models.metrics import by_known_subject
from modalift.models.predictions import Predictions


def aligned(a: Predictions, b: Predictions) -> tuple[Predictions, Predictions]:
    """The predictions of two networks on their labeled clips, in one order.

    Raises:
        ModaliftError: a clip that only one of them has, different labels, or no labeled clip.
    """
    for one, other in ((a, b), (b, a)):
        missing = np.setdiff1d(one.ids, other.ids)
        if len(missing):
            first = one.ids[np.isin(one.ids, missing)][0]
            raise ModaliftError(f"clip '{first}' of {one.name} is missing in {other.name} ({len(missing)} in all) -"
                                " compare runs on the same split")
    place = {x: i for i, x in enumerate(b.ids)}
    b = b.take(np.array([place[x] for x in a.ids], dtype=np.int64))
    if (differ := a.labels != b.labels).any():
        k = int(differ.argmax())
        raise ModaliftError(f"clip '{a.ids[k]}' has label {a.labels[k]} in {a.name} and {b.labels[k]} in {b.name} -"
                            " compare runs on the same table")
    known = a.labels >= 0
    if not known.any():
        raise ModaliftError(f"{a.name} and {b.name} have no labeled clip in common - nothing can be compared")
    return a.take(known), b.take(known)


def paired(a: Predictions, b: Predictions) -> dict[str, Any]:
    r"""Compares two networks on the same clips: the gain of B over A, and its significance.

    The exact McNemar test uses the :math:`d` clips that only one of the two predicts correctly. If both were equally good,
    the number that B predicts correctly would be binomial,

    .. math:: p = \min\Big(1,\; 2 \sum_{i=0}^{\min(n_A, n_B)} \binom{d}{i} 2^{-d}\Big), \qquad d = n_A + n_B

    where A (B) alone is correct on :math:`n_A` (:math:`n_B`) clips. It treats clips as independent; the interval over
    subjects does not.

    Returns:
        ``n``, ``subjects`` (how many are known) and ``unknown_subject`` (clips without a known one), ``a`` and ``b`` (top-1),
        ``difference`` = b - a, ``only_a``, ``only_b``, ``mcnemar_p``, ``intervals`` of the difference: over ``clips``, and
        over ``subjects`` on the clips of known subject (None for fewer than three subjects); see
        :func:`~modalift.models.intervals.paired_difference`.

    Raises:
        ModaliftError: the clips or the labels are not the same.
    """
    a, b = aligned(a, b)
    gain = b.correct.astype(np.int64) - a.correct
    only_a, only_b = int((gain < 0).sum()), int((gain > 0).sum())
    return {"n": len(gain), "a": float(a.correct.mean()), "b": float(b.correct.mean()),
            "difference": float(gain.mean()), "only_a": only_a, "only_b": only_b,
            "mcnemar_p": mcnemar(only_a, only_b), "level": LEVEL, **_intervals_of_gain(gain[None], a.subjects)}


def paired_seeds(a: Sequence[Predictions], b: Sequence[Predictions]) -> dict[str, Any]:
    """Compares two recipes with the same seeds on the same clips: the mean gain of B over A.

    The intervals of the mean difference generalize differently: the t interval over seeds is for other seeds and these very
    clips; those over clips and seeds, or over subjects and seeds, are for other seeds and other clips or subjects.

    Args:
        a, b: predictions, one per seed; ``a[i]`` and ``b[i]`` are a pair.

    Returns:
        ``seeds``, ``n``, ``subjects`` and ``unknown_subject`` as :func:`paired`, ``a`` and ``b`` (mean top-1) with ``a_std``
        and ``b_std`` over seeds, ``difference`` (mean of b - a), ``differences`` (one per seed), ``over_seeds`` (t interval)
        and ``t_p`` (two-sided; both None if the differences are all equal), and ``intervals``: over ``clips`` and seeds, and
        over ``subjects`` and seeds (None for fewer than three subjects).

    Raises:
        ModaliftError: fewer than two pairs, unequal numbers of them, or clips that are not the same.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ModaliftError(f"paired seeds: {len(a)} runs and {len(b)} runs - give at least two of each, in pairs")
    first, _ = aligned(a[0], a[0])
    pairs = [(aligned(a[0], x)[1], aligned(a[0], y)[1]) for x, y in zip(a, b, strict=True)]
    scores = np.array([[x.correct.mean(), y.correct.mean()] for x, y in pairs])
    gain = np.array([y.correct.astype(np.int64) - x.correct for x, y in pairs])
    each = gain.mean(1)
    interval, p = t_interval(each)
    if interval:
        interval = [max(-1.0, interval[0]), min(1.0, interval[1])]  # there are no larger differences
    return {"seeds": len(pairs), "n": len(first), "a": float(scores[:, 0].mean()), "b": float(scores[:, 1].mean()),
            "a_std": float(scores[:, 0].std(ddof=1)), "b_std": float(scores[:, 1].std(ddof=1)),
            "difference": float(each.mean()), "differences": each.tolist(), "over_seeds": interval, "t_p": p,
            "level": LEVEL, **_intervals_of_gain(gain, first.subjects)}


def _intervals_of_gain(gain: NDArray[np.int64], subjects: NDArray[np.str_]) -> dict[str, Any]:
    """The intervals of a mean gain ``(R, N)`` over seeds and clips, and the numbers of subjects behind them."""
    known, who, count = by_known_subject(subjects)
    return {"subjects": count, "unknown_subject": int((~known).sum()),
            "intervals": {"clips": paired_difference(gain), "subjects": paired_difference(gain[:, known], who)}}


def main_interval(pair: Mapping[str, Any]) -> tuple[Sequence[float], str]:
    """The widest interval of a paired difference, and what it was computed over: subjects if there are enough, else clips."""
    over = "clips" if pair["intervals"]["subjects"] is None else "subjects"
    return pair["intervals"][over], f"over {over}{' and seeds' if 'seeds' in pair else ''}"


def mean_accuracy(runs: Sequence[Predictions]) -> dict[str, Any]:
    """Top-1 accuracy of one recipe, averaged over its seeds, with intervals for fixed networks.

    Returns:
        ``top1``, ``sd`` over seeds (None for one), ``n``, ``seeds``, ``subjects`` and ``unknown_subject`` as :func:`paired`,
        and ``intervals`` of the mean: over ``clips``, and over ``subjects`` (None for fewer than three). For one seed they
        are those of :func:`~modalift.models.metrics.score`.

    Raises:
        ModaliftError: no predictions, or predictions on different clips.
    """
    if not runs:
        raise ModaliftError("mean accuracy: there are no predictions - give at least one")
    first, _ = aligned(runs[0], runs[0])
    correct = np.array([aligned(runs[0], r)[1].correct for r in runs])
    shares, R = correct.mean(0), len(runs)
    known, who, count = by_known_subject(first.subjects)
    over_subjects = proportion_over_subjects(np.bincount(who, weights=shares[known], minlength=count),
                                             np.bincount(who, minlength=count), effective_clips(shares[known], R))
    return {"top1": float(correct.mean()), "sd": float(correct.mean(1).std(ddof=1)) if R > 1 else None,
            "n": correct.shape[1], "seeds": R, "subjects": count, "unknown_subject": int((~known).sum()),
            "intervals": {"clips": mean_over_networks(shares, R), "subjects": over_subjects}}


def mcnemar(only_a: int, only_b: int) -> float:
    """The p-value of the two-sided exact McNemar test, for the numbers of clips that only A or only B predicts correctly.

    Example:
        >>> mcnemar(1, 9)
        0.021484375
    """
    d, few = only_a + only_b, min(only_a, only_b)
    ways, term = 0, 1
    for i in range(few + 1):
        ways += term
        term = term * (d - i) // (i + 1)
    return min(1.0, 2 * ways / 2**d)


def binomial_tail(hits: int, n: int, chance: float) -> float:
    """Probability of at least ``hits`` successes in ``n`` independent trials of success probability ``chance``.

    Example:
        >>> round(binomial_tail(9, 10, 0.5), 8)
        0.01074219
    """
    if hits <= 0 or chance >= 1:
        return 1.0
    if chance <= 0:
        return 0.0
    ways = math.lgamma(n + 1)  # logarithms: the binomial coefficients of a thousand clips overflow a float
    return min(1.0, sum(math.exp(ways - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(chance)
                                 + (n - k) * math.log1p(-chance)) for k in range(hits, n + 1)))
