"""Intervals against published values and literal formulas; none of them shrinks to a point."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modalift.models.intervals import (
    mean_class_over_subjects,
    mean_of_proportions,
    mean_over_networks,
    paired_difference,
    proportion_over_subjects,
    t_central_probability,
    t_interval,
    t_quantile,
    wilson,
)


@pytest.mark.parametrize(("hits", "n", "low", "high"), [
    (0, 11, 0, 25.9), (11, 11, 74.1, 100), (5, 10, 23.7, 76.3), (1, 1, 20.7, 100), (0, 1, 0, 79.3),
    (81, 263, 25.5, 36.6),  # Newcombe 1998, table I: .2553 to .3662
    (15, 148, 6.2, 16.0),   # .0624 to .1605
    (0, 20, 0, 16.1), (1, 29, 0.6, 17.2),
])
def test_wilson_has_the_published_values(hits, n, low, high):
    assert [100 * end for end in wilson(hits, n)] == pytest.approx([low, high], abs=0.051)


def test_wilson_of_no_clips_and_at_the_ends():
    assert wilson(0, 0) is None
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0


def gains(only_a: int, only_b: int, n: int) -> np.ndarray:
    return np.repeat([[-1, 1, 0]], [only_a, only_b, n - only_a - only_b], axis=1)


@pytest.mark.parametrize(("only_a", "only_b", "n", "low", "high"), [
    (6, 16, 161, 0.0032, 0.1195),  # Fagerland, Lydersen and Laake, chapter 8: complete response before and after
    (1, 7, 21, 0.013, 0.508),      # their table V, Bentur et al. 2009
])
def test_paired_difference_has_the_published_values(only_a, only_b, n, low, high):
    assert paired_difference(gains(only_a, only_b, n)) == pytest.approx([low, high], abs=0.0005)
    turned = paired_difference(-gains(only_a, only_b, n))
    assert turned == pytest.approx([-high, -low], abs=0.0005)


def test_networks_that_agree_on_every_clip_are_not_shown_to_be_equal():
    """Without a discordant clip among 30, up to about a tenth may be discordant (the rule of three)."""
    low, high = paired_difference(gains(0, 0, 30))
    half = 1.959964 * math.sqrt(2) / 32
    assert [low, high] == pytest.approx([-half, half], abs=1e-6)
    assert 0.05 < half < 0.1
    assert paired_difference(gains(0, 0, 1))[1] - paired_difference(gains(0, 0, 1))[0] > 1.5
    assert paired_difference(np.zeros((1, 0))) is None


def test_difference_over_subjects_is_the_literal_formula():
    rng = np.random.default_rng(0)
    who = np.arange(60) % 5
    g = (rng.random((1, 60)) < 0.2 + 0.15 * who).astype(int) - (rng.random((1, 60)) < 0.3)
    sums = [float((g[0, who == s] - g.mean()).sum()) for s in range(5)]
    variance = 5 / 4 * sum(x * x for x in sums) / 60**2
    clips = ((np.square(g).sum() + 2) / 62 - (g.sum() / 62) ** 2) / 62
    half = 2.776445 * math.sqrt(max(variance, clips))
    assert paired_difference(g, who) == pytest.approx([g.sum() / 62 - half, g.sum() / 62 + half], abs=1e-4)
    assert paired_difference(g[:, who < 2], who[who < 2]) is None, "two subjects are too few"


def test_difference_over_seeds_adds_their_variance():
    rng = np.random.default_rng(1)
    g = (rng.random((3, 200)) < np.array([[0.5], [0.6], [0.7]])).astype(int) - (rng.random((3, 200)) < 0.4)
    each = g.mean(0)
    clips = ((np.square(each).sum() + 2) / 202 - (each.sum() / 202) ** 2) / 202
    seeds = g.mean(1).var(ddof=1) / 3
    dof = (clips + seeds) ** 2 / (seeds**2 / 2)
    half = t_quantile(int(dof)) * math.sqrt(clips + seeds)
    low, high = paired_difference(g)
    assert [low, high] == pytest.approx([each.sum() / 202 - half, each.sum() / 202 + half])
    one = paired_difference(g[:1])
    assert high - low > one[1] - one[0]


def test_mean_class_stays_wide_with_one_clip_per_class():
    """The method of variance estimates recovery; one clip per class, all correct: 1 - .793 / sqrt(K)."""
    low, high = mean_of_proportions(np.ones(9), np.ones(9))
    assert (low, high) == (pytest.approx(1 - 0.79345 / 3, abs=1e-4), 1.0)
    assert mean_of_proportions([1, 0, 0], [1, 1, 0]) == pytest.approx([0.5 - 0.79345 / 2, 0.5 + 0.79345 / 2], abs=1e-4)
    assert mean_of_proportions([0, 0], [0, 0]) is None
    assert mean_of_proportions([7], [11]) == pytest.approx(wilson(7, 11)), "of one class it is that of its recall"


def test_networks_that_agree_count_once_and_independent_ones_each():
    same = np.repeat([1.0, 0.0], [30, 10])
    assert mean_over_networks(same, 5) == pytest.approx(wilson(30, 40))
    assert mean_over_networks(same, 1) == pytest.approx(wilson(30, 40))
    assert mean_over_networks(np.full(40, 0.5), 2) == pytest.approx(wilson(40, 80))
    assert mean_over_networks(np.ones(11), 5) == pytest.approx([0.7412, 1.0], abs=1e-4), "five perfect networks: 11 of 11 clips"


def test_over_subjects_by_hand():
    """Three subjects, 6 of 10, 8 of 10 and 10 of 10: p = .8, v = 3/2 * 8/900, n* = .16 / v, t of 2 degrees of freedom."""
    size = 0.16 / (1.5 * 8 / 900)
    assert size == pytest.approx(12.0)
    t2 = 4.302653**2
    middle, half = 0.8 + t2 / 24, 4.302653 * math.sqrt(0.16 / 12 + t2 / 576)
    expected = [(middle - half) / (1 + t2 / 12), (middle + half) / (1 + t2 / 12)]
    assert proportion_over_subjects([6, 8, 10], [10, 10, 10]) == pytest.approx(expected, abs=1e-5)


def test_equal_subjects_do_not_narrow_the_interval_below_that_over_clips():
    alike = proportion_over_subjects([8, 8, 8, 8], [10, 10, 10, 10])
    assert alike[0] < wilson(32, 40)[0]
    assert alike[1] > wilson(32, 40)[1]
    perfect = proportion_over_subjects([10, 10, 10], [10, 10, 10])
    assert perfect == pytest.approx([1 / (1 + 4.302653**2 / 30), 1.0], abs=1e-5)


@pytest.mark.parametrize("subjects", [0, 1, 2])
def test_too_few_subjects_have_no_interval(subjects):
    assert proportion_over_subjects(np.full(subjects, 3), np.full(subjects, 5)) is None
    assert mean_class_over_subjects(np.ones((subjects, 2)), np.ones((subjects, 2))) is None


def test_mean_class_over_subjects_who_differ_is_wider_than_over_clips():
    counts = np.full((4, 3), 20)
    hits = np.array([[20, 20, 20], [18, 19, 20], [4, 6, 5], [12, 10, 11]])
    low, high = mean_class_over_subjects(hits, counts)
    parts = (hits.mean(1) - hits.mean()) / 80
    half = 3.182446 * math.sqrt(4 / 3 * np.square(parts).sum())
    assert (low, high) == (pytest.approx(hits.mean() / 20 - half, abs=1e-4), 1.0)
    assert np.all(np.abs([low, high]) >= 0)
    alike = mean_class_over_subjects(np.full((4, 3), 20), counts)
    assert alike[0] == pytest.approx(mean_of_proportions(np.full(3, 80), np.full(3, 80), t_quantile(3))[0])
    assert alike[0] < 1


@pytest.mark.parametrize(("dof", "t"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (7, 2.36462), (30, 2.04227)])
def test_student_quantiles_of_the_tables(dof, t):
    assert t_central_probability(t, dof) == pytest.approx(0.95, abs=1e-5)
    assert t_quantile(dof) == pytest.approx(t, rel=1e-5)
    assert t_quantile(dof + 0.9) == t_quantile(dof), "fractions are rounded down, which is wider"
    values = np.random.default_rng(dof).normal(size=dof + 1)
    low, high = t_interval(values)[0]
    assert (high - low) / 2 == pytest.approx(t * values.std(ddof=1) / math.sqrt(dof + 1), rel=1e-4)


@pytest.mark.parametrize("values", [[0.1, 0.1, 0.1], [0.0, 0.0], [0.3, 0.1 + 0.2], [0.5]])
def test_equal_values_have_no_t_interval(values):
    assert t_interval(values) == (None, None)
