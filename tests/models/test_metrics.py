"""Scores on predictions whose metrics can be counted by hand, and on edge cases."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from modalift.errors import ModaliftError
from modalift.models.metrics import by_metadata, calibration, intervals, mean_class, percentile, score, top_k

CLASSES = ["wave", "stop", "turn", "call", "push", "quiet"]


def random_predictions(n: int, k: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(k), n), rng.integers(0, k, n)


def test_figures_counted_by_hand() -> None:
    p = np.array([[0.8, 0.1, 0.1], [0.4, 0.5, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]])
    found = score(p, [0, 0, 1, 2, -1], ["a", "b", "c"], subjects=["x", "x", "y", "y", "y"])
    assert found["n"] == 4
    assert found["unlabeled"] == 1
    assert found["top1"] == 0.75
    assert found["top5"] == 1.0
    assert found["top5_of"] == 3
    assert found["mean_class"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert found["nll"] == pytest.approx(-np.log([0.8, 0.4, 0.6, 0.6]).mean())
    assert found["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    rows = found["per_class"]
    assert [r["support"] for r in rows] == [2, 1, 1]
    assert [r["precision"] for r in rows] == [1.0, 0.5, 1.0]
    assert rows[0]["f1"] == pytest.approx(2 / 3)
    assert rows[0]["mistaken_for"] == "b"
    assert rows[2]["mistaken_for"] is None
    assert found["by_subject"] == [{"subject": "x", "n": 2, "top1": 0.5}, {"subject": "y", "n": 2, "top1": 1.0}]


def test_is_json_without_nan() -> None:
    p, y = random_predictions(40)
    found = score(p, y, CLASSES, subjects=[f"s{i % 3}" for i in range(40)], metadata={"lux": np.linspace(1, 8, 40)})
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_calibration_error_is_the_documented_formula() -> None:
    rng = np.random.default_rng(3)
    confidence = np.concatenate([rng.random(500), [0.0, 1 / 15, 1.0]])
    correct = rng.random(503) < confidence
    expected = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15) | ((b == 0) & (confidence == 0))
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    bins, error = calibration(confidence, correct)
    assert error == pytest.approx(expected)
    assert sum(b["n"] for b in bins) == 503


def test_confident_and_correct_is_calibrated_and_confident_and_wrong_is_not() -> None:
    p = np.eye(3)[[0, 1, 2]]
    assert score(p, [0, 1, 2], ["a", "b", "c"])["ece"] == 0.0
    assert score(p, [1, 2, 0], ["a", "b", "c"])["ece"] == 1.0


def test_top_k_breaks_ties_like_argmax() -> None:
    even = np.full((6, 6), 1 / 6)
    y = np.arange(6)
    assert top_k(even, y, 1).tolist() == (even.argmax(1) == y).tolist()
    assert top_k(even, y, 5).tolist() == [True] * 5 + [False]


@pytest.mark.parametrize("labels", [[0], [-1], []])
def test_one_clip_and_no_clip(labels: list[int]) -> None:
    found = score(np.full((len(labels), 2), 0.5), np.array(labels, dtype=int), ["a", "b"], subjects=["s"] * len(labels),
                  metadata={"lux": [1.0] * len(labels)})
    json.dumps(found, allow_nan=False)
    assert found["intervals"]["top1"] == {"clips": None, "subjects": None}
    assert found["top1"] == (1.0 if labels == [0] else None)
    assert found["by_metadata"] == {}


def test_one_class_and_absent_class() -> None:
    assert score(np.ones((3, 1)), [0, 0, 0], ["only"])["mean_class"] == 1.0
    found = score([[1.0, 0, 0], [0, 1.0, 0]], [0, 0], ["a", "b", "never"])
    assert found["mean_class"] == 0.5
    assert found["per_class"][2] == {"class": "never", "support": 0, "predicted": 0, "recall": None, "precision": None,
                                     "f1": None, "mistaken_for": None}


def test_intervals_equal_the_literal_bootstrap() -> None:
    rng = np.random.default_rng(5)
    y = rng.integers(0, 4, 300)
    correct = rng.random(300) < 0.3 + 0.15 * y
    who = np.array([f"s{i % 6}" for i in range(300)])
    found = intervals(correct, y, 4, who, resamples=20000)

    def both(rows: np.ndarray) -> tuple[float, float]:
        confusion = np.zeros((4, 5))
        np.add.at(confusion, (y[rows], np.where(correct[rows], y[rows], 4)), 1)
        recall = [confusion[k, k] / confusion[k].sum() for k in range(4) if confusion[k].sum()]
        return correct[rows].mean(), float(np.mean(recall))

    clips = np.array([both(rng.integers(0, 300, 300)) for _ in range(2000)])
    groups = [np.flatnonzero(who == s) for s in np.unique(who)]
    people = np.array([both(np.concatenate([groups[k] for k in rng.integers(0, 6, 6)])) for _ in range(2000)])
    for column, metric in enumerate(("top1", "mean_class")):
        assert found[metric]["clips"] == pytest.approx(percentile(clips[:, column]), abs=0.006)
        assert found[metric]["subjects"] == pytest.approx(percentile(people[:, column]), abs=0.006)


def test_subjects_who_differ_widen_the_interval() -> None:
    correct = np.repeat([True, False], 200)
    y = np.zeros(400, dtype=int)
    found = intervals(correct, y, 1, np.repeat(["a", "b"], 200))["top1"]
    assert found["subjects"] == [0.0, 1.0]
    assert found["clips"][1] - found["clips"][0] < 0.12


def test_is_seeded_and_fast() -> None:
    p, y = random_predictions(20000)
    who = np.array([f"s{i % 21}" for i in range(20000)])
    start = time.perf_counter()
    one = score(p, y, CLASSES, subjects=who, metadata={"lux": np.linspace(1, 8, 20000)})
    assert time.perf_counter() - start < 5
    assert one == score(p, y, CLASSES, subjects=who, metadata={"lux": np.linspace(1, 8, 20000)})
    assert one["intervals"] != score(p, y, CLASSES, subjects=who, seed=1)["intervals"]


def test_accuracy_by_metadata() -> None:
    lux = np.concatenate([np.linspace(1, 10, 99), [np.nan]])
    correct = np.nan_to_num(lux) > 5.5
    rows = by_metadata(correct, lux)
    assert sum(r["n"] for r in rows) == 99
    assert rows[0]["top1"] == 0.0
    assert rows[-1]["top1"] == 1.0
    assert [r["low"] for r in rows] == sorted(r["low"] for r in rows)
    named = by_metadata(np.array([True, False, True, True]), np.array(["night", "day", "night", ""]))
    assert [(r["value"], r["n"], r["top1"]) for r in named] == [("day", 1, 0.0), ("night", 2, 1.0)]
    assert by_metadata(correct, np.full(100, 3.0)) == []
    assert by_metadata(correct, np.array([f"file{i}" for i in range(100)])) == []


def test_a_fact_with_most_values_equal_still_bins() -> None:
    rows = by_metadata(np.ones(50, bool), np.array([1.0] * 40 + list(range(2, 12))))
    assert sum(r["n"] for r in rows) == 50


@pytest.mark.parametrize(("p", "y", "message"), [
    (np.full((2, 3), 1 / 3), [0, 3], "label 3 is outside"),
    (np.full((2, 3), 1 / 3), [0, -2], "label -2 is outside"),
    (np.full((2, 3), 1 / 3), [0.0, 1.0], "labels are float64"),
    (np.full((2, 2), 0.5), [0, 1], r"probabilities \(2, 2\)"),
    ([[np.nan, 0.5, 0.5]], [0], "row 0 .* not finite"),
    ([[1 / 3] * 3, [5.0, -1.0, 2.0]], [0, 0], "row 1 .* not logits"),
])
def test_wrong_input_is_named(p: object, y: list[float], message: str) -> None:
    with pytest.raises(ModaliftError, match=message):
        score(p, y, ["a", "b", "c"])  # type: ignore[arg-type]


def test_columns_of_another_length_are_named() -> None:
    with pytest.raises(ModaliftError, match="subjects has shape"):
        score([[1.0, 0.0]], [0], ["a", "b"], subjects=["x", "y"])
    with pytest.raises(ModaliftError, match="metadata 'lux'"):
        score([[1.0, 0.0]], [0], ["a", "b"], metadata={"lux": [1.0, 2.0]})


def test_mean_class_of_nothing() -> None:
    assert np.isnan(mean_class(np.zeros((2, 2))))
