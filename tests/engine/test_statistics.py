"""Paired tests against literal transcriptions, and damaged or foreign files of predictions."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from modalift.engine.statistics import mcnemar, mean_accuracy, paired, paired_seeds, t_central_probability, t_interval
from modalift.errors import ModaliftError
from modalift.models import Predictions
from modalift.models.metrics import percentile


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


def test_intervals_equal_the_literal_bootstrap() -> None:
    rng = np.random.default_rng(1)
    a, b = predictions(rng.random(200) < 0.5, 5), predictions(rng.random(200) < 0.65, 5)
    gain = b.correct.astype(int) - a.correct
    clips = [gain[rng.integers(0, 200, 200)].mean() for _ in range(4000)]
    groups = [gain[a.subjects == s] for s in np.unique(a.subjects)]
    people = [np.concatenate([groups[k] for k in rng.integers(0, 5, 5)]).mean() for _ in range(4000)]
    found = paired(a, b, resamples=20000)["intervals"]
    assert found["clips"] == pytest.approx(percentile(np.array(clips)), abs=0.01)
    assert found["subjects"] == pytest.approx(percentile(np.array(people)), abs=0.01)


def test_one_subject_has_no_interval_over_subjects() -> None:
    found = paired(predictions(np.array([1, 0], bool), 1), predictions(np.array([1, 1], bool), 1))
    assert found["intervals"]["subjects"] is None
    assert paired(predictions(np.ones(1, bool)), predictions(np.ones(1, bool)))["intervals"]["clips"] is None


def test_unlabeled_clips_are_left_out() -> None:
    a, b = predictions(np.ones(6, bool)), predictions(np.zeros(6, bool))
    hidden = np.array([0, 1, 2, -1, -1, -1])
    found = paired(Predictions(a.ids, hidden, a.subjects, a.probabilities),
                   Predictions(b.ids, hidden, b.subjects, b.probabilities))
    assert (found["n"], found["difference"]) == (3, -1.0)
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
    gain = np.array([y.correct.astype(int) - x.correct for x, y in zip(a, b, strict=True)])
    groups = [np.flatnonzero(a[0].subjects == s) for s in np.unique(a[0].subjects)]
    literal = [gain[rng.integers(0, 3, 3)][:, np.concatenate([groups[k] for k in rng.integers(0, 4, 4)])].mean()
               for _ in range(4000)]
    over = paired_seeds(a, b, resamples=20000)["over_subjects_seeds"]
    assert over == pytest.approx(percentile(np.array(literal)), abs=0.01)


def test_seeds_must_be_pairs() -> None:
    one = predictions(np.ones(3, bool))
    with pytest.raises(ModaliftError, match="at least two of each"):
        paired_seeds([one], [one])
    with pytest.raises(ModaliftError, match="at least two of each"):
        paired_seeds([one, one], [one])


def test_equal_seeds() -> None:
    one = predictions(np.ones(4, bool))
    found = paired_seeds([one, one], [one, one])
    assert found["over_seeds"] == [0.0, 0.0]
    assert found["t_p"] == 1.0


@pytest.mark.parametrize(("dof", "t"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (7, 2.36462),
                                        (30, 2.04227)])
def test_student_quantiles_of_the_tables(dof: int, t: float) -> None:
    assert t_central_probability(t, dof) == pytest.approx(0.95, abs=1e-5)
    values = np.random.default_rng(dof).normal(size=dof + 1)
    low, high = t_interval(values)[0]
    assert (high - low) / 2 == pytest.approx(t * values.std(ddof=1) / math.sqrt(dof + 1), rel=1e-4)


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


def test_mean_over_seeds_equals_the_literal_bootstrap() -> None:
    rng = np.random.default_rng(4)
    runs = [predictions(rng.random(120) < 0.6, 6) for _ in range(3)]
    correct = np.array([r.correct for r in runs])
    found = mean_accuracy(runs, resamples=20000)
    assert found["top1"] == pytest.approx(correct.mean())
    assert found["sd"] == pytest.approx(correct.mean(1).std(ddof=1))
    clips = [correct[:, rng.integers(0, 120, 120)].mean() for _ in range(4000)]
    groups = [np.flatnonzero(runs[0].subjects == s) for s in np.unique(runs[0].subjects)]
    people = [correct[:, np.concatenate([groups[k] for k in rng.integers(0, 6, 6)])].mean() for _ in range(4000)]
    assert found["intervals"]["clips"] == pytest.approx(percentile(np.array(clips)), abs=0.008)
    assert found["intervals"]["subjects"] == pytest.approx(percentile(np.array(people)), abs=0.008)
    assert mean_accuracy(runs[:1])["sd"] is None
    with pytest.raises(ModaliftError, match="no predictions"):
        mean_accuracy([])
