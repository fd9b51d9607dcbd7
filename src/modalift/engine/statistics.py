"""Statistical comparison of runs: paired tests and intervals over clips, subjects and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalift.errors import ModaliftError
from modalift.models.metrics import LEVEL, RESAMPLES, percentile
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


def paired(a: Predictions, b: Predictions, *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    r"""Compares two networks on the same clips: the gain of B over A, and its significance.

    The exact McNemar test uses the :math:`d` clips that only one of the two predicts correctly. If both were equally good,
    the number that B predicts correctly would be binomial,

    .. math:: p = \min\Big(1,\; 2 \sum_{i=0}^{\min(n_A, n_B)} \binom{d}{i} 2^{-d}\Big), \qquad d = n_A + n_B

    where A (B) alone is correct on :math:`n_A` (:math:`n_B`) clips. It treats clips as independent; the bootstrap over
    subjects does not, and generalizes to other people.

    Returns:
        ``n``, ``subjects`` (how many), ``a`` and ``b`` (top-1), ``difference`` = b - a, ``only_a``, ``only_b``,
        ``mcnemar_p``, ``intervals`` (of the difference: ``clips`` and ``subjects``; None over one subject or clip).

    Raises:
        ModaliftError: the clips or the labels are not the same.
    """
    a, b = aligned(a, b)
    gain = b.correct.astype(np.int64) - a.correct
    only_a, only_b, n = int((gain < 0).sum()), int((gain > 0).sum()), len(gain)
    rng = np.random.default_rng(seed)
    over_clips = over_subjects = None
    if n > 1:
        cells = rng.multinomial(n, [only_a / n, only_b / n, (n - only_a - only_b) / n], size=resamples)
        over_clips = percentile((cells[:, 1] - cells[:, 0]) / n)
    sums, counts = _per_subject(gain[None], a.subjects)
    if len(counts) > 1:
        drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=resamples)
        over_subjects = percentile((drawn @ sums[0]) / (drawn @ counts))
    return {"n": n, "subjects": len(counts), "a": float(a.correct.mean()), "b": float(b.correct.mean()),
            "difference": float(gain.mean()), "only_a": only_a, "only_b": only_b,
            "mcnemar_p": mcnemar(only_a, only_b), "level": LEVEL,
            "intervals": {"clips": over_clips, "subjects": over_subjects}}


def paired_seeds(a: Sequence[Predictions], b: Sequence[Predictions], *, seed: int = 0,
                 resamples: int = RESAMPLES) -> dict[str, Any]:
    """Compares two recipes with the same seeds on the same clips: the mean gain of B over A.

    Two intervals of the mean difference generalize differently. The t interval over seeds is for other seeds and the same
    clips; the bootstrap over subjects x seeds (both resampled) is for other seeds and other people.

    Args:
        a, b: predictions, one per seed; ``a[i]`` and ``b[i]`` are a pair.

    Returns:
        ``seeds``, ``n``, ``subjects``, ``a`` and ``b`` (mean top-1) with ``a_std`` and ``b_std`` over seeds,
        ``difference`` (mean of b - a), ``differences`` (one per seed), ``over_seeds`` (t interval), ``t_p`` (two-sided), and
        ``over_subjects_seeds`` (None over one subject).

    Raises:
        ModaliftError: fewer than two pairs, unequal numbers of them, or clips that are not the same.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ModaliftError(f"paired seeds: {len(a)} runs and {len(b)} runs - give at least two of each, in pairs")
    first, _ = aligned(a[0], a[0])
    pairs = [(aligned(first, x)[1], aligned(first, y)[1]) for x, y in zip(a, b, strict=True)]
    scores = np.array([[x.correct.mean(), y.correct.mean()] for x, y in pairs])
    gain = np.array([y.correct.astype(np.int64) - x.correct for x, y in pairs])
    each = gain.mean(1)
    over = None
    sums, counts = _per_subject(gain, first.subjects)
    if len(counts) > 1:
        rng = np.random.default_rng(seed)
        people = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=resamples)
        seeds = rng.multinomial(len(pairs), np.full(len(pairs), 1 / len(pairs)), size=resamples)
        over = percentile(np.einsum("br,rs,bs->b", seeds, sums, people) / (len(pairs) * (people @ counts)))
    interval, p = t_interval(each)
    return {"seeds": len(pairs), "n": len(first), "subjects": len(counts),
            "a": float(scores[:, 0].mean()), "b": float(scores[:, 1].mean()),
            "a_std": float(scores[:, 0].std(ddof=1)), "b_std": float(scores[:, 1].std(ddof=1)),
            "difference": float(each.mean()), "differences": each.tolist(), "over_seeds": interval, "t_p": p,
            "over_subjects_seeds": over, "level": LEVEL}


def mean_accuracy(runs: Sequence[Predictions], *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Top-1 accuracy of one recipe, averaged over its seeds, with bootstrap intervals for fixed networks.

    Returns:
        ``top1``, ``sd`` over seeds (None for one), ``n``, ``seeds`` and ``intervals`` of the mean: over ``clips`` and
        over ``subjects`` (None over one clip or subject).

    Raises:
        ModaliftError: no predictions, or predictions on different clips.
    """
    if not runs:
        raise ModaliftError("mean accuracy: there are no predictions - give at least one")
    first, _ = aligned(runs[0], runs[0])
    correct = np.array([aligned(first, r)[1].correct for r in runs])
    times, R, n = correct.sum(0), len(runs), correct.shape[1]
    rng = np.random.default_rng(seed)
    over_clips = over_subjects = None
    if n > 1:  # a clip is correct for 0..R of the seeds: resampling clips draws counts of these cells
        cells = rng.multinomial(n, np.bincount(times, minlength=R + 1) / n, size=resamples)
        over_clips = percentile(cells @ np.arange(R + 1) / (n * R))
    sums, counts = _per_subject(times[None], first.subjects)
    if len(counts) > 1:
        drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=resamples)
        over_subjects = percentile((drawn @ sums[0]) / (R * (drawn @ counts)))
    return {"top1": float(correct.mean()), "sd": float(correct.mean(1).std(ddof=1)) if R > 1 else None, "n": n, "seeds": R,
            "intervals": {"clips": over_clips, "subjects": over_subjects}}


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


def t_interval(values: NDArray[Any], level: float = LEVEL) -> tuple[list[float], float]:
    """Student's t interval of the mean of two or more values, and the two-sided p-value of a zero mean."""
    n, mean = len(values), float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    if error == 0.0:
        return [mean, mean], 1.0 if mean == 0 else 0.0
    low, high = 0.0, 1e6
    for _ in range(200):  # bisection: the distribution function has no closed-form inverse
        middle = (low + high) / 2
        low, high = (middle, high) if t_central_probability(middle, n - 1) < level else (low, middle)
    return [mean - high * error, mean + high * error], 1 - t_central_probability(abs(mean) / error, n - 1)


def t_central_probability(t: float, dof: int) -> float:
    """Probability that a variable with Student's t distribution lies within -t..t (Abramowitz and Stegun 26.7.3 and 26.7.4).

    Example:
        >>> round(t_central_probability(2.776, 4), 3)
        0.95
    """
    angle = math.atan(t / math.sqrt(dof))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = dof % 2
    term = total = cosine if odd else 1.0
    if dof == 1:
        return 2 * angle / math.pi
    for k in range(3 if odd else 2, dof - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _per_subject(gain: NDArray[np.int64], subjects: NDArray[np.str_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sums of values ``(R, N)`` over the clips of each subject ``(R, S)``, and numbers of clips ``(S,)``."""
    names, which = np.unique(subjects, return_inverse=True)
    member = (which[:, None] == np.arange(len(names))[None]).astype(np.float64)
    return gain @ member, member.sum(0)
