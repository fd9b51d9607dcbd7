"""Paired tests against literal transcriptions, and damaged or foreign files of predictions."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from modalift.engine.statistics import main_interval, mcnemar, mean_accuracy, paired, paired_seeds
from modalift.errors import ModaliftError
from modalift.models import Predictions
from modalift.models.intervals import paired_difference, proportion_over_subjects, wilson


def predictions(correct: np.ndarray, subjects: int = 4, name: str = "run") -> Predictions:
    n = len(correct)
    labels = np.arange(n) % 3
    p = np.full((n, 3), 0.2, np.float32)
    p[np.arange(n), np.where(correct, labels, (labels + 1) % 3)] = 0.6
    return Predictions(np.array([f"clip{i:03}" for i in range(n)]), labels,
                       np.array([f"s{i % subjects}" for i in range(n)]), p, {"lux": np.linspace(1, 8, n)}, name)


def test_counts_and_sign() -> None:
    a, b = np.array([1, 1, 0, 0, 0, 1], bool), np.array([1, 0, 1, 1, 1, 1], bool)
    found = paired(predictions(a), predictions(b))
    assert (found["n"], found["only_a"], found["only_b"]) == (6, 1, 3)
    assert (found["a"], found["b"]) == (0.5, pytest.approx(5 / 6))
    assert found["difference"] == pytest.approx(1 / 3)
    turned = paired(predictions(b), predictions(a))
    assert turned["difference"] == -found["difference"]
    assert turned["mcnemar_p"] == found["mcnemar_p"]


@pytest.mark.parametrize(("x", "y"), [(0, 0), (0, 1), (3, 3), (1, 9), (40, 60), (700, 900)])
def test_mcnemar_is_the_binomial_sum(x: int, y: int) -> None:
    tail = sum(math.comb(x + y, i) for i in range(min(x, y) + 1)) * 2 / 2 ** (x + y)
    assert mcnemar(x, y) == pytest.approx(min(1.0, tail))


def test_order_of_clips_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    a, b = predictions(rng.random(60) < 0.5), predictions(rng.random(60) < 0.7)
    assert paired(a, b.take(rng.permutation(60))) == paired(a, b)


def test_intervals_are_those_of_the_gains() -> None:
    rng = np.random.default_rng(1)
    a, b = predictions(rng.random(200) < 0.5, 5), predictions(rng.random(200) < 0.65, 5)
    gain = (b.correct.astype(int) - a.correct)[None]
    found = paired(a, b)
    assert found["intervals"] == {"clips": paired_difference(gain), "subjects": paired_difference(gain, np.arange(200) % 5)}
    assert (found["subjects"], found["unknown_subject"]) == (5, 0)


def test_two_equal_networks_are_not_shown_to_be_equal() -> None:
    one = predictions(np.ones(11, bool))
    found = paired(one, one)
    assert (found["difference"], found["mcnemar_p"]) == (0.0, 1.0)
    low, high = found["intervals"]["clips"]
    assert (low, high) == (pytest.approx(-0.213, abs=0.001), pytest.approx(0.213, abs=0.001))
    assert found["intervals"]["subjects"][1] > high


@pytest.mark.parametrize("subjects", [1, 2])
def test_few_subjects_have_no_interval_over_subjects(subjects: int) -> None:
    found = paired(predictions(np.array([1, 0, 1, 1], bool), subjects), predictions(np.array([1, 1, 0, 1], bool), subjects))
    assert found["intervals"]["subjects"] is None
    assert main_interval(found) == (found["intervals"]["clips"], "over clips")
    alone = predictions(np.ones(1, bool))
    assert paired(alone, alone)["intervals"]["clips"] == pytest.approx([-0.924, 0.924], abs=0.001)


def test_clips_of_unknown_subject_are_no_subject() -> None:
    rng = np.random.default_rng(3)
    a, b = predictions(rng.random(80) < 0.5), predictions(rng.random(80) < 0.8)
    names = np.where(np.arange(80) % 8 < 5, a.subjects, np.array(["", "unknown", "N/A", "nan", "?"])[np.arange(80) % 5])
    a, b = (Predictions(p.ids, p.labels, names, p.probabilities) for p in (a, b))
    known = np.arange(80) % 8 < 5
    found = paired(a, b)
    assert (found["subjects"], found["unknown_subject"], found["n"]) == (4, 30, 80)
    assert found["intervals"]["subjects"] == paired(a.take(known), b.take(known))["intervals"]["subjects"]
    mean = mean_accuracy([a])
    assert (mean["subjects"], mean["unknown_subject"]) == (4, 30)
    assert mean["intervals"]["subjects"] == mean_accuracy([a.take(known)])["intervals"]["subjects"]


def test_unlabeled_clips_are_left_out() -> None:
    a, b = predictions(np.ones(6, bool)), predictions(np.zeros(6, bool))
    hidden = np.array([0, 1, 2, -1, -1, -1])
    found = paired(Predictions(a.ids, hidden, a.subjects, a.probabilities),
                   Predictions(b.ids, hidden, b.subjects, b.probabilities))
    assert (found["n"], found["difference"]) == (3, -1.0)
    assert mean_accuracy([Predictions(p.ids, hidden, p.subjects, p.probabilities) for p in (a, b)])["n"] == 3
    both = [Predictions(p.ids, hidden, p.subjects, p.probabilities) for p in (a, b)]
    assert paired_seeds(both, both[::-1])["n"] == 3
    nobody = Predictions(a.ids, np.full(6, -1), a.subjects, a.probabilities)
    with pytest.raises(ModaliftError, match="no labeled clip"):
        paired(nobody, nobody)


def test_other_clips_are_named() -> None:
    a, b = predictions(np.ones(6, bool), name="A"), predictions(np.ones(6, bool), name="B")
    with pytest.raises(ModaliftError, match=r"clip 'clip002' of A is missing in B \(1 in all\)"):
        paired(a, b.take(np.array([5, 4, 3, 1, 0])))
    with pytest.raises(ModaliftError, match=r"clip 'clip002' of B is missing in A"):
        paired(a.take(np.array([0, 1, 3, 4, 5])), b)
    with pytest.raises(ModaliftError, match="clip 'clip000' has label 0 in A and 2 in B"):
        paired(a, Predictions(b.ids, (b.labels + 2) % 3, b.subjects, b.probabilities, name="B"))


def test_seeds() -> None:
    rng = np.random.default_rng(2)
    a = [predictions(rng.random(150) < 0.5) for _ in range(3)]
    b = [predictions(rng.random(150) < 0.7) for _ in range(3)]
    found = paired_seeds(a, b)
    each = [y.correct.mean() - x.correct.mean() for x, y in zip(a, b, strict=True)]
    assert found["differences"] == pytest.approx(each)
    half = 4.302653 * np.std(each, ddof=1) / math.sqrt(3)  # t of 2 degrees of freedom, 97.5 %
    assert found["over_seeds"] == pytest.approx([np.mean(each) - half, np.mean(each) + half], abs=1e-5)
    assert paired_seeds(a[:1] + b[:1], b[:1] + b[:1])["over_seeds"][1] == 1.0, "no difference is larger than 100 points"
    gain = np.array([y.correct.astype(int) - x.correct for x, y in zip(a, b, strict=True)])
    assert found["intervals"] == {"clips": paired_difference(gain), "subjects": paired_difference(gain, np.arange(150) % 4)}
    assert main_interval(found) == (found["intervals"]["subjects"], "over subjects and seeds")


def test_seeds_must_be_pairs() -> None:
    one = predictions(np.ones(3, bool))
    with pytest.raises(ModaliftError, match="at least two of each"):
        paired_seeds([one], [one])
    with pytest.raises(ModaliftError, match="at least two of each"):
        paired_seeds([one, one], [one])


def test_equal_seeds_say_nothing_about_other_seeds() -> None:
    """Two seeds that both gain the same two of eleven clips: neither certain, nor an interval of width 0."""
    a, b = predictions(np.arange(11) < 5, 1), predictions(np.arange(11) < 7, 1)
    found = paired_seeds([a, a], [b, b])
    assert (found["over_seeds"], found["t_p"]) == (None, None)
    assert found["intervals"]["clips"] == paired(a, b)["intervals"]["clips"]
    assert found["intervals"]["clips"][0] < 0 < found["intervals"]["clips"][1]
    assert main_interval(found) == (found["intervals"]["clips"], "over clips and seeds")


def test_save_and_load(tmp_path: Path) -> None:
    a = predictions(np.array([1, 0, 1], bool))
    path = a.save(tmp_path / "predictions" / "student-test.npz")
    b = Predictions.load(path)
    for key in ("ids", "labels", "subjects", "probabilities"):
        assert np.array_equal(getattr(a, key), getattr(b, key))
    assert np.array_equal(a.metadata["lux"], b.metadata["lux"])
    assert [p.name for p in path.parent.iterdir()] == ["student-test.npz"]
    assert paired(a, b)["difference"] == 0


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = predictions(np.ones(3, bool)).save(tmp_path / "p.npz")
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(ModaliftError, match="the disk is full"):
        predictions(np.zeros(3, bool)).save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_join_folds() -> None:
    a = predictions(np.array([1, 0, 1, 1], bool))
    joined = Predictions.join([a.take(np.array([0, 1])), a.take(np.array([2, 3]))])
    assert np.array_equal(joined.ids, a.ids)
    with pytest.raises(ModaliftError, match="'clip000' appears twice"):
        Predictions.join([a, a])
    with pytest.raises(ModaliftError, match="nothing to join"):
        Predictions.join([])


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    with pytest.raises(ModaliftError, match="no such file of predictions"):
        Predictions.load(path)
    path.write_bytes(b"")
    with pytest.raises(ModaliftError, match="not a file of predictions"):
        Predictions.load(path)
    whole = predictions(np.ones(50, bool)).save(tmp_path / "whole.npz").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModaliftError, match="not a file of predictions"):
        Predictions.load(path)
    path.write_bytes(pickle.dumps({"ids": []}))
    with pytest.raises(ModaliftError, match="not a file of predictions"):
        Predictions.load(path)
    np.savez(path, ids=np.array(["a"], dtype=object), labels=[0], subjects=["s"], probabilities=[[1.0]])
    with pytest.raises(ModaliftError, match="not a file of predictions"):
        Predictions.load(path)
    np.savez(path, ids=["a"], labels=[0], subjects=["s"])
    with pytest.raises(ModaliftError, match="'probabilities' is missing"):
        Predictions.load(path)
    np.savez(path, ids=["a"], labels=[0, 1], subjects=["s"], probabilities=[[1.0]])
    with pytest.raises(ModaliftError, match="'labels' has shape"):
        Predictions.load(path)


def test_mean_over_seeds_by_its_literal_variance() -> None:
    rng = np.random.default_rng(4)
    runs = [predictions(rng.random(120) < 0.6, 6) for _ in range(3)]
    correct = np.array([r.correct for r in runs])
    shares, p = correct.mean(0), correct.mean()
    found = mean_accuracy(runs)
    assert found["top1"] == pytest.approx(p)
    assert found["sd"] == pytest.approx(correct.mean(1).std(ddof=1))
    size = p * (1 - p) / (shares.var(ddof=1) / 120)
    assert 120 < size < 360
    assert found["intervals"]["clips"] == pytest.approx(wilson(p * size, size))
    sums = [shares[np.arange(120) % 6 == s].sum() for s in range(6)]
    assert found["intervals"]["subjects"] == pytest.approx(proportion_over_subjects(sums, [20] * 6, size))
    assert mean_accuracy(runs[:1])["sd"] is None
    assert mean_accuracy(runs[:1])["intervals"]["clips"] == pytest.approx(wilson(int(correct[0].sum()), 120))
    with pytest.raises(ModaliftError, match="no predictions"):
        mean_accuracy([])
