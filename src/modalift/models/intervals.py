r"""Confidence intervals of accuracies and of their differences, which hold for few clips, few subjects and few seeds.

A percentile bootstrap of few observations is too narrow, and where all are equal (0 of 11 clips) it shrinks to a point.
None of these intervals does. Which of them to use where, and their coverage: ``benchmarks/results/intervals.md``.

========================================  ============================================================================
a proportion of clips (top-1, recall)     :func:`wilson`
a mean of proportions (mean class)        :func:`mean_of_proportions`
a mean of several networks' accuracies    :func:`mean_over_networks`
a proportion, over subjects               :func:`proportion_over_subjects`
a paired difference of two networks       :func:`paired_difference`, over clips, subjects and seeds
a mean over seeds, on the same clips      :func:`t_interval`
========================================  ============================================================================
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
#: With fewer subjects there is no interval over subjects: over two of them it would span most of 0 to 1.
MIN_SUBJECTS = 3
#: Student's t distribution of more degrees of freedom is taken for that of so many (its quantile is 0.6 % larger than z).
_MOST_DOF = 200

Interval = list[float]


def normal_quantile(level: float = LEVEL) -> float:
    """The z for which a standard normal variable lies within -z..z with the probability ``level``: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)


@cache
def t_quantile(dof: float, level: float = LEVEL) -> float:
    """The t for which a variable of Student's t distribution lies within -t..t with the probability ``level``.

    Args:
        dof: degrees of freedom, at least 1; fractions are rounded down.
        level: the probability.

    Example:
        >>> round(t_quantile(4), 3)
        2.776
    """
    whole = int(min(max(dof, 1), _MOST_DOF))
    low, high = 0.0, 1e6
    for _ in range(100):  # bisection: the distribution function has no closed-form inverse
        middle = (low + high) / 2
        low, high = (middle, high) if t_central_probability(middle, whole) < level else (low, middle)
    return high


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


def t_interval(values: ArrayLike, level: float = LEVEL) -> tuple[Interval | None, float | None]:
    """Student's t interval of the mean of two or more values, and the two-sided p-value of a zero mean.

    Values that are all equal say nothing about their variation: then both are None.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2 or float(np.ptp(x)) < 1e-12:
        return None, None
    n, mean = len(x), float(x.mean())
    error = float(x.std(ddof=1)) / math.sqrt(n)
    half = t_quantile(n - 1, level) * error
    return [mean - half, mean + half], 1 - t_central_probability(abs(mean) / error, n - 1)


def wilson(hits: float, n: float, quantile: float | None = None) -> Interval | None:
    r"""Wilson's score interval of a proportion: of :math:`n` independent clips, :math:`x` are correct.

    .. math:: \frac{\hat p + z^2/2n \pm z \sqrt{\hat p (1 - \hat p)/n + z^2/4n^2}}{1 + z^2/n}, \qquad \hat p = x / n

    Args:
        hits: :math:`x`; may be a fraction where ``n`` is an effective size.
        n: number of clips, or their effective size.
        quantile: :math:`z`; by default 1.96, for 95 %.

    Returns:
        [low, high] within 0..1; None for no clips.

    Source: Wilson, *Probable inference, the law of succession, and statistical inference*, 1927. Brown, Cai and DasGupta,
    *Interval estimation for a binomial proportion*, 2001, recommend it for 40 clips or fewer, and find it good above. The
    interval of Clopper and Pearson never covers less than 95 %, but is wider than needed.

    Example:
        >>> [round(100 * end, 1) for end in wilson(0, 11)]
        [0.0, 25.9]
    """
    if n <= 0:
        return None
    z = normal_quantile() if quantile is None else quantile
    p = hits / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(max(0.0, p * (1 - p)) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # Where every clip is correct (or none), the end is 1 (or 0) exactly, not up to rounding.
    return [0.0 if hits <= 0 else max(0.0, (middle - half) / scale), 1.0 if hits >= n else min(1.0, (middle + half) / scale)]


def mean_of_proportions(hits: ArrayLike, counts: ArrayLike, quantile: float | None = None) -> Interval | None:
    r"""Interval of the unweighted mean of independent proportions (mean class accuracy), from the interval of each.

    .. math:: \hat m - \tfrac1K \sqrt{\textstyle\sum_k (\hat p_k - l_k)^2}
       \quad\text{to}\quad \hat m + \tfrac1K \sqrt{\textstyle\sum_k (u_k - \hat p_k)^2}

    where :math:`l_k, u_k` are the ends of :func:`wilson` for class k. It stays wide with one clip per class.

    Args:
        hits, counts: ``(K,)`` correct clips and clips of each class; classes without clips are left out.
        quantile: see :func:`wilson`.

    Source: Zou, Huang and Zhang, *A note on confidence interval estimation for a linear function of binomial proportions*,
    2009 (the method of variance estimates recovery).
    """
    x, n = np.asarray(hits, np.float64), np.asarray(counts, np.float64)
    x, n = x[n > 0], n[n > 0]
    if not len(n):
        return None
    ends = np.array([wilson(a, b, quantile) for a, b in zip(x, n, strict=True)])
    mean, k = float((x / n).mean()), len(n)
    below, above = (float(np.sqrt(np.square(x / n - ends[:, side]).sum())) / k for side in (0, 1))
    return [max(0.0, mean - below), min(1.0, mean + above)]


def mean_over_networks(shares: ArrayLike, networks: int) -> Interval | None:
    r"""Interval over clips of the accuracy of several networks (seeds), averaged over them and held fixed.

    It is :func:`wilson` with the effective number of clips :math:`\hat p (1 - \hat p) / v`, where :math:`v` is the variance
    of the mean as the clips' shares give it: R networks that agree on every clip are worth n clips, independent ones nR.
    With one network it is :func:`wilson`.

    Args:
        shares: ``(N,)`` the fraction of the networks that predict each clip correctly.
        networks: how many networks.

    Source: Korn and Graubard, *Confidence intervals for proportions with small expected number of positive counts estimated
    from survey data*, 1998; Franco et al., *Comparative study of confidence intervals for proportions in complex sample
    surveys*, 2019.
    """
    x = np.asarray(shares, np.float64)
    size = effective_clips(x, networks)
    return wilson(float(x.mean()) * size, size) if len(x) else None


def effective_clips(shares: NDArray[np.float64], networks: int) -> float:
    """The effective number of clips of :func:`mean_over_networks`: from n to n times the number of networks."""
    n, p = len(shares), float(shares.mean()) if len(shares) else 0.0
    if p in (0.0, 1.0):
        return n
    variance = float(shares.var()) / (n - 1) if n > 1 else 0.0
    return min(n * networks, max(n, p * (1 - p) / variance)) if variance else n * networks


def proportion_over_subjects(hits: ArrayLike, counts: ArrayLike, most: float | None = None) -> Interval | None:
    r"""Interval of a proportion over subjects, whose clips are correlated: for other subjects of the same kind.

    It is :func:`wilson` with the quantile of Student's t distribution of S - 1 degrees of freedom and the effective number
    of clips

    .. math:: n^* = \min\Big(n,\; \frac{\hat p (1 - \hat p)}{v}\Big), \qquad
        v = \frac{S}{S - 1} \sum_{s=1}^{S} \frac{(x_s - \hat p\, n_s)^2}{n^2}

    where subject s has :math:`n_s` clips, of which :math:`x_s` are correct. It never is narrower than the interval over
    clips, also where all subjects are equal.

    Args:
        hits, counts: ``(S,)`` correct clips and clips of each subject; hits may be means over networks.
        most: the largest effective number of clips; by default all of them.

    Returns:
        [low, high]; None for fewer than three subjects: with two, the interval spans most of 0 to 1.

    Source: Korn and Graubard 1998 and Franco et al. 2019, as :func:`mean_over_networks`, with their degrees of freedom.
    """
    x, n = np.asarray(hits, np.float64), np.asarray(counts, np.float64)
    S, total = len(n), float(n.sum())
    if S < MIN_SUBJECTS:
        return None
    p, most = float(x.sum()) / total, total if most is None else most
    variance = S / (S - 1) * float(np.square(x - p * n).sum()) / total**2
    size = min(most, p * (1 - p) / variance) if variance else most
    return wilson(p * size, size, t_quantile(S - 1))


def mean_class_over_subjects(hits: ArrayLike, counts: ArrayLike) -> Interval | None:
    r"""Interval of mean class accuracy over subjects: Student's t with the variance of the subjects' contributions.

    .. math:: \hat m \pm t \sqrt{v}, \qquad v = \frac{S}{S - 1} \sum_s \Big( \frac1K \sum_k
        \frac{x_{sk} - \hat p_k n_{sk}}{n_k} \Big)^2

    extended to :func:`mean_of_proportions` with the same quantile, so that it is never narrower than over clips.

    Args:
        hits, counts: ``(S, K)`` correct clips and clips of each subject and class.

    Returns:
        [low, high]; None for fewer than three subjects.
    """
    x, n = np.asarray(hits, np.float64), np.asarray(counts, np.float64)
    S = len(n)
    if S < MIN_SUBJECTS or (floor := mean_of_proportions(x.sum(0), n.sum(0), t_quantile(S - 1))) is None:
        return None
    x, n = x[:, n.sum(0) > 0], n[:, n.sum(0) > 0]
    p = x.sum(0) / n.sum(0)
    parts = ((x - p * n) / n.sum(0)).mean(1)
    half = t_quantile(S - 1) * math.sqrt(S / (S - 1) * float(np.square(parts).sum()))
    return [max(0.0, min(floor[0], float(p.mean()) - half)), min(1.0, max(floor[1], float(p.mean()) + half))]


def paired_difference(gains: NDArray[Any], subjects: NDArray[Any] | None = None) -> Interval | None:
    r"""Interval of the difference of two networks' accuracies on the same clips.

    .. math:: \tilde d \pm q \sqrt{v}, \qquad \tilde d = \frac{1}{n + 2} \sum_i g_i, \qquad
        v_{\text{clips}} = \frac{1}{n + 2} \Big( \frac{2 + \sum_i g_i^2}{n + 2} - \tilde d^2 \Big)

    where :math:`g_i` is 1, 0 or -1 (B minus A; a mean over seeds may lie between). This is Wald's interval with one clip
    added that only A predicts correctly and one that only B does, so that two networks that agree on every clip are not
    shown to be equal. Further sources of variation add theirs:

    - over clips: :math:`v = v_{\text{clips}}`, :math:`q = 1.96`;
    - over subjects: :math:`v = \max(v_{\text{clips}}, v_{\text{subjects}})`, where
      :math:`v_{\text{subjects}} = \frac{S}{S-1} \sum_s (\sum_{i \in s} (g_i - \bar g))^2 / n^2`, and q of Student's t with
      S - 1 degrees of freedom;
    - with R seeds: :math:`v_{\text{seeds}}`, the variance of the seeds' differences divided by R, is added to either, and
      the degrees of freedom are those of Welch and Satterthwaite.

    Args:
        gains: ``(R, N)`` per seed and clip.
        subjects: ``(N,)`` indices 0..S-1, for the interval over subjects.

    Returns:
        [low, high] within -1..1; None for no clips, or fewer than three subjects.

    Source: over clips, Bonett and Price, *Adjusted Wald confidence interval for a difference of binomial proportions based
    on paired data*, 2012, which Fagerland, Lydersen and Laake, *Recommended tests and confidence intervals for paired
    binomial proportions*, 2014, recommend. The rest is the usual variance of a ratio of cluster totals, and of crossed
    random effects; ``benchmarks/results/intervals.md`` has the coverage.

    Example:
        >>> agree = np.zeros((1, 30))  # 30 clips, no difference on any
        >>> [round(100 * end, 1) for end in paired_difference(agree)]
        [-8.7, 8.7]
    """
    R, n = gains.shape
    if not n:
        return None
    each = gains.mean(0, dtype=np.float64)
    middle = float(each.sum()) / (n + 2)
    variance, dof = ((2 + float(np.square(each).sum())) / (n + 2) - middle**2) / (n + 2), math.inf
    if subjects is not None:
        S = int(subjects.max(initial=-1)) + 1
        if S < MIN_SUBJECTS:
            return None
        sums = np.bincount(subjects, weights=each - each.mean(), minlength=S)
        variance, dof = max(variance, S / (S - 1) * float(np.square(sums).sum()) / n**2), S - 1
    if R > 1:
        seeds = float(gains.mean(1).var(ddof=1)) / R
        total = variance + seeds
        dof = total**2 / (variance**2 / dof + seeds**2 / (R - 1)) if seeds else dof
        variance = total
    half = (normal_quantile() if dof == math.inf else t_quantile(dof)) * math.sqrt(variance)
    return [max(-1.0, middle - half), min(1.0, middle + half)]
