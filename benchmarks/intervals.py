"""Coverage of the confidence intervals, by simulation: how often an interval of 95 % holds the true value.

    python benchmarks/intervals.py [--repeats 2000]

Prints tables and writes ``benchmarks/results/intervals.md``: the intervals of :mod:`modalift.models.intervals` beside the
percentile bootstrap, with their median width and how often they shrink to a point. Seeds are fixed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modalift.engine.processor import hardware
from modalift.models.intervals import paired_difference, proportion_over_subjects, t_interval, wilson

RESULT = Path(__file__).parent / "results" / "intervals.md"
RESAMPLES = 400
Floats = NDArray[np.float64]
#: Mean accuracy of people, and its standard deviation between people.
PEOPLE = ((0.6, 0.0), (0.6, 0.2), (0.85, 0.05), (0.85, 0.1), (0.97, 0.02), (0.97, 0.05))
COUNTS = (2, 3, 4, 5, 8, 20)


def percentile(values: Floats, axis: int = -1) -> Floats:
    """The percentile interval of bootstrap replicates: ``(2, ...)``."""
    return np.asarray(np.quantile(values, [0.025, 0.975], axis=axis))


def summary(ends: Floats, truth: float) -> str:
    """Coverage and median width in percent, and how often the interval is a point: ``(2, T)`` -> one cell."""
    low, high = ends
    held = ((low <= truth + 1e-9) & (high >= truth - 1e-9)).mean()
    points = (high - low < 1e-9).mean()
    return f"{100 * held:.1f} ({100 * np.median(high - low):.0f}{f'; {100 * points:.0f} % a point' if points >= 0.005 else ''})"


def ours(make: Callable[[int], list[float] | None], repeats: int) -> Floats:
    """The intervals of ``repeats`` samples, ``(2, T)``."""
    return np.array([make(k) for k in range(repeats)]).T


def table(head: str, rows: list[str]) -> list[str]:
    return [head, "|" + "---|" * (head.count("|") - 1), *rows, ""]


def over_clips(repeats: int) -> list[str]:
    """A proportion of independent clips."""
    rng, rows = np.random.default_rng(0), []
    for n in (5, 11, 30, 100, 430):
        for p in (0.5, 0.85, 0.97):
            hits = rng.binomial(n, p, repeats)
            drawn = percentile(rng.binomial(n, np.repeat(hits[:, None] / n, RESAMPLES, 1)) / n)
            rows.append(f"| {n} | {100 * p:.0f} % | {summary(drawn, p)} |"
                        f" {summary(ours(lambda k, h=hits, n=n: wilson(int(h[k]), n), repeats), p)} |")
    return table("| clips | accuracy | bootstrap | Wilson |", rows)


def abilities(rng: np.random.Generator, mean: float, deviation: float, size: tuple[int, ...]) -> Floats:
    """The accuracies of people: a beta distribution."""
    if not deviation:
        return np.full(size, mean)
    k = mean * (1 - mean) / deviation**2 - 1
    return rng.beta(mean * k, (1 - mean) * k, size)


def over_subjects(repeats: int) -> list[str]:
    """A proportion, over subjects who differ."""
    rng, rows = np.random.default_rng(1), []
    for mean, deviation in PEOPLE:
        for clips in (6, 50):
            for S in COUNTS:
                hits = rng.binomial(clips, abilities(rng, mean, deviation, (repeats, S)))
                drawn = percentile(hits @ rng.multinomial(S, np.full(S, 1 / S), size=RESAMPLES).T / (S * clips))
                each = [t_interval(h / clips)[0] or [h.mean() / clips] * 2 for h in hits]
                effective = summary(ours(lambda k, h=hits, n=np.full(S, clips): proportion_over_subjects(h[k], n),
                                         repeats), mean) if S > 2 else "none"
                rows.append(f"| {100 * mean:.0f} % ± {100 * deviation:.0f} | {clips} | {S} | {summary(drawn, mean)} |"
                            f" {summary(np.clip(np.array(each).T, 0, 1), mean)} | {effective} |")
    return table("| accuracy of people | clips each | subjects | bootstrap | Student's t | Wilson, effective size, t |", rows)


def two_subjects(repeats: int) -> str:
    """How wide the interval of three or more subjects would be with two."""
    rng, widths = np.random.default_rng(2), []
    for mean, deviation in PEOPLE:
        for clips in (6, 50):
            hits = rng.binomial(clips, abilities(rng, mean, deviation, (repeats, 2)))
            for h in hits[:200]:
                p, n = h.sum() / (2 * clips), 2 * clips
                variance = 2 * float(np.square(h - p * clips).sum()) / n**2
                size = min(n, p * (1 - p) / variance) if variance else n
                low, high = wilson(p * size, size, 12.7062) or [0, 1]
                widths.append((mean, deviation, clips, high - low))
    cells = {key: np.median([w[3] for w in widths if w[:3] == key]) for key in {w[:3] for w in widths}}
    return (f"With two subjects the same interval has a median width of {100 * min(cells.values()):.0f} to"
            f" {100 * max(cells.values()):.0f} points in these settings: it says nothing, so none is given.")


def difference_over_clips(repeats: int) -> list[str]:
    """A paired difference over independent clips, from the probabilities that one network alone is correct."""
    rng, rows = np.random.default_rng(3), []
    for n in (11, 30, 100, 430):
        for a, b in ((0.0, 0.0), (0.02, 0.02), (0.0, 0.05), (0.05, 0.15), (0.3, 0.3)):
            counts = rng.multinomial(n, [a, b, 1 - a - b], size=repeats)
            drawn = rng.multinomial(n, counts / n, size=(RESAMPLES, repeats))
            gains = [np.repeat([[-1, 1, 0]], c, axis=1) for c in counts]
            bootstrap = percentile((drawn[..., 1] - drawn[..., 0]) / n, 0)
            rows.append(f"| {n} | {100 * a:.0f} %, {100 * b:.0f} % | {summary(bootstrap, b - a)} |"
                        f" {summary(ours(lambda k, g=gains: paired_difference(g[k]), repeats), b - a)} |")
    return table("| clips | only A, only B | bootstrap | Bonett and Price |", rows)


def difference_over_subjects(repeats: int) -> list[str]:
    """A paired difference over subjects: each person's gain differs, and clips that are hard for A are often hard for B."""
    rng, rows = np.random.default_rng(4), []
    for mean, deviation, gain, spread in ((0.7, 0.1, 0.0, 0.05), (0.7, 0.1, 0.05, 0.1), (0.95, 0.03, 0.0, 0.02)):
        many = abilities(rng, mean, deviation, (400_000,))
        truth = float((np.clip(many + gain + rng.normal(0, spread, len(many)), 0, 1) - many).mean())
        for clips in (6, 50):
            for S in COUNTS[1:]:
                a = abilities(rng, mean, deviation, (repeats, S))
                b = np.clip(a + gain + rng.normal(0, spread, a.shape), 0, 1)
                hard = rng.random((repeats, S, clips))
                other = np.where(rng.random(hard.shape) < 0.6, hard, rng.random(hard.shape))
                gains = (other < b[..., None]).astype(np.int64) - (hard < a[..., None])
                drawn = percentile(gains.sum(2) @ rng.multinomial(S, np.full(S, 1 / S), size=RESAMPLES).T / (S * clips))
                who = np.repeat(np.arange(S), clips)
                made = ours(lambda k, g=gains, w=who: paired_difference(g[k].reshape(1, -1), w), repeats)
                rows.append(f"| {100 * mean:.0f} %, {100 * gain:+.0f} ± {100 * spread:.0f} | {clips} | {S} |"
                            f" {summary(drawn, truth)} | {summary(made, truth)} |")
    return table("| accuracy, gain of people | clips each | subjects | bootstrap | this |", rows)


def difference_over_seeds(repeats: int) -> list[str]:
    """A mean paired difference over seeds and subjects or clips: logistic, with effects of people, clips, seeds and both."""
    rng, rows = np.random.default_rng(5), []

    def drawn_shares(T: int, clips: int, S: int, R: int, level: float, seeds: float) -> tuple[Floats, Floats]:
        people, hard = rng.normal(level, 0.6, (T, 1, S, 1)), rng.normal(0, 1.0, (T, 1, S, clips))
        made = []
        for shift in (0.0, 0.3):
            effects = (rng.normal(0, seeds, (T, R, 1, 1)) + rng.normal(0, 0.2, (T, R, S, 1)) + rng.normal(0, 0.3, (T, 1, S, 1)))
            made.append(1 / (1 + np.exp(-(people + hard + shift + effects))))
        return made[0], made[1]

    for level, seeds in ((1.0, 0.1), (1.0, 0.3), (3.0, 0.3)):
        many = [drawn_shares(2000, 6, 20, 5, level, seeds) for _ in range(4)]
        truth = float(np.mean([b.mean() - a.mean() for a, b in many]))
        for clips, S, R in ((6, 4, 2), (50, 4, 2), (6, 4, 3), (50, 4, 5), (50, 8, 3), (6, 20, 5)):
            a, b = drawn_shares(repeats // 2, clips, S, R, level, seeds)
            gains = (rng.random(b.shape) < b).astype(np.int64) - (rng.random(a.shape) < a)
            people = rng.multinomial(S, np.full(S, 1 / S), size=RESAMPLES)
            times = rng.multinomial(R, np.full(R, 1 / R), size=RESAMPLES)
            drawn = np.einsum("br,trs,bs->tb", times, gains.sum(3), people, optimize=True) / (R * S * clips)
            who = np.repeat(np.arange(S), clips)
            both = [ours(lambda k, w=w, g=gains, R=R: paired_difference(g[k].reshape(R, -1), w), repeats // 2)
                    for w in (who, None)]
            rows.append(f"| {level:.0f}, {seeds} | {clips} | {S} | {R} | {summary(percentile(drawn), truth)} |"
                        f" {summary(both[0], truth)} | {summary(both[1], truth)} |")
    return table("| level, deviation of seeds | clips each | subjects | seeds | bootstrap, subjects x seeds | over subjects and"
                 " seeds | over clips and seeds |", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000, help="samples per row")
    T = parser.parse_args().repeats
    text = ["# Coverage of confidence intervals", "",
            f"Made by `python benchmarks/intervals.py`: {T} simulated evaluations per row ({T // 2} with seeds). A cell is the"
            " share of intervals of 95 % that hold the true value, in percent; in brackets the median width in points, and how"
            " often the interval shrinks to a point. The bootstrap is the percentile bootstrap (of clips, of subjects, or of"
            " subjects and seeds).", "", hardware(), "",
            "## A proportion, over clips", "", *over_clips(T),
            "## A proportion, over subjects", "",
            "The true value is the mean accuracy of all people. *Student's t* is that of the subjects' accuracies, cut to 0..1;"
            " the last column is `proportion_over_subjects`, which the reports show.", "", *over_subjects(T), two_subjects(T),
            "",
            "## A paired difference, over clips", "", *difference_over_clips(T),
            "## A paired difference, over subjects", "",
            "Gains of people: mean ± standard deviation, in points.", "", *difference_over_subjects(T),
            "## A mean paired difference, over seeds", "",
            "Accuracies are logistic in effects of people (deviation 0.6), clips (1), seeds, people within a seed (0.2) and"
            " people within a network (0.3); B is 0.3 better. The true value is that of all people, clips and seeds: an"
            " interval over clips and seeds leaves the people out, and covers less where they differ.", "",
            *difference_over_seeds(T)]
    RESULT.write_text("\n".join(text).rstrip() + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
