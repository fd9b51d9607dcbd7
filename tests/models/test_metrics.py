"""Scores on predictions whose metrics can be counted by hand, and on edge cases."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from modalift.errors import ModaliftError
from modalift.models.intervals import mean_class_over_subjects, mean_of_proportions, proportion_over_subjects, wilson
from modalift.models.metrics import by_metadata, calibration, mean_class, score, top_k

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
    assert found["by_subject"] == [{"subject": "x", "n": 2, "top1": 0.5, "interval": wilson(1, 2)},
                                   {"subject": "y", "n": 2, "top1": 1.0, "interval": wilson(2, 2)}]
    assert [r["interval"] for r in rows] == [wilson(1, 2), wilson(1, 1), wilson(1, 1)]


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
    assert found["intervals"]["top1"] == {"clips": pytest.approx([0.2065, 1.0], abs=1e-4) if labels == [0] else None,
                                          "subjects": None}
    assert found["top1"] == (1.0 if labels == [0] else None)
    assert found["by_metadata"] == {}


def test_one_class_and_absent_class() -> None:
    assert score(np.ones((3, 1)), [0, 0, 0], ["only"])["mean_class"] == 1.0
    found = score([[1.0, 0, 0], [0, 1.0, 0]], [0, 0], ["a", "b", "never"])
    assert found["mean_class"] == 0.5
    assert found["per_class"][2] == {"class": "never", "support": 0, "predicted": 0, "recall": None, "interval": None,
                                     "precision": None, "f1": None, "mistaken_for": None}


def as_probabilities(correct: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities of .8 for the label, or for the next class."""
    p = np.full((len(y), classes), 0.2 / (classes - 1))
    p[np.arange(len(y)), np.where(correct, y, (y + 1) % classes)] = 0.8
    return p


def test_intervals_are_those_of_the_counts() -> None:
    rng = np.random.default_rng(5)
    y = rng.integers(0, 4, 300)
    correct = rng.random(300) < 0.3 + 0.15 * y
    who = np.arange(300) % 6
    found = score(as_probabilities(correct, y, 4), y, list("abcd"), subjects=[f"s{s}" for s in who])["intervals"]
    cells = np.zeros((2, 6, 4))
    np.add.at(cells, (correct.astype(int), who, y), 1)
    hits, counts = cells[1], cells.sum(0)
    assert found["top1"] == {"clips": wilson(correct.sum(), 300),
                             "subjects": proportion_over_subjects(hits.sum(1), counts.sum(1))}
    assert found["mean_class"] == {"clips": mean_of_proportions(hits.sum(0), counts.sum(0)),
                                   "subjects": mean_class_over_subjects(hits, counts)}


@pytest.mark.parametrize(("right", "low", "high"), [(0, 0, 25.9), (11, 74.1, 100)])
def test_no_and_all_of_eleven_clips_have_an_interval(right: int, low: float, high: float) -> None:
    y = np.arange(11) % 2
    found = score(as_probabilities(np.arange(11) < right, y, 2), y, ["a", "b"], subjects=["s"] * 11,
                  metadata={"lux": np.arange(11) % 2})
    assert [100 * x for x in found["intervals"]["top1"]["clips"]] == pytest.approx([low, high], abs=0.05)
    assert found["intervals"]["mean_class"]["clips"] != [right / 11] * 2
    assert found["by_subject"][0]["interval"] == found["intervals"]["top1"]["clips"]
    for row, n in zip(found["by_metadata"]["lux"], (6, 5), strict=True):
        assert row["interval"] == wilson(n if right else 0, n)
    for row, n in zip(found["per_class"], (6, 5), strict=True):
        assert row["interval"] == wilson(n if right else 0, n)


def test_subjects_who_differ_widen_the_interval() -> None:
    correct = np.repeat([True, False, True], 200)
    y = np.zeros(600, dtype=int)
    found = score(as_probabilities(correct, y, 2), y, ["a", "b"], subjects=np.repeat(["a", "b", "c"], 200))["intervals"]["top1"]
    assert found["subjects"][1] - found["subjects"][0] > 0.8
    assert found["clips"][1] - found["clips"][0] < 0.12


def test_unknown_subjects_are_no_subject() -> None:
    y = np.arange(24) % 2
    p = as_probabilities(np.arange(24) % 5 > 0, y, 2)
    names = np.array(["anna", "ben", "cleo"])[np.arange(24) % 3]
    unknown = np.where(np.arange(24) < 18, names, np.array(["", "unknown", "None", "n/a", "?", "-"])[np.arange(24) % 6])
    found, known = score(p, y, ["a", "b"], subjects=unknown), score(p[:18], y[:18], ["a", "b"], subjects=names[:18])
    assert found["over_subjects"] == {"subjects": 3, "clips": 18, "top1": known["top1"], "unknown": 6}
    assert found["by_subject"] == known["by_subject"]
    assert found["intervals"]["top1"]["subjects"] == known["intervals"]["top1"]["subjects"]
    assert found["intervals"]["mean_class"]["subjects"] == known["intervals"]["mean_class"]["subjects"]
    nobody = score(p, y, ["a", "b"], subjects=["unknown"] * 12 + [""] * 12)
    assert nobody["over_subjects"] == {"subjects": 0, "clips": 0, "top1": None, "unknown": 24}
    assert nobody["by_subject"] == []
    assert nobody["intervals"]["top1"]["subjects"] is None
    json.dumps(nobody, allow_nan=False)


def test_scores_are_fast() -> None:
    p, y = random_predictions(20000)
    who = np.array([f"s{i % 21}" for i in range(20000)])
    start = time.perf_counter()
    one = score(p, y, CLASSES, subjects=who, metadata={"lux": np.linspace(1, 8, 20000)})
    assert time.perf_counter() - start < 5
    assert one == score(p, y, CLASSES, subjects=who, metadata={"lux": np.linspace(1, 8, 20000)})


def test_accuracy_by_metadata() -> None:
    lux = np.concatenate([np.linspace(1, 10, 99), [np.nan]])
    correct = np.nan_to_num(lux) > 5.5
    rows = by_metadata(correct, lux)
    assert sum(r["n"] for r in rows) == 99
    assert rows[0]["top1"] == 0.0
    assert rows[-1]["top1"] == 1.0
    assert [r["low"] for r in rows] == sorted(r["low"] for r in rows)
    named = by_metadata(np.array([True, False, True, True, True]), np.array(["night", "day", "night", "", "unknown"]))
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
