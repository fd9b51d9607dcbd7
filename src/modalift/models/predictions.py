"""Predictions: the class probabilities of one network on one split, and their file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalift.errors import ModaliftError
from modalift.files import is_file, parse_json, write_beside

_PREFIX = "metadata_"


@dataclass(frozen=True)
class Predictions:
    """The predictions of one network on one split.

    Attributes:
        ids: ``(N,)`` clip ids, each once.
        labels: ``(N,)`` class indices, -1 for unlabeled clips.
        subjects: ``(N,)`` subject of each clip.
        probabilities: ``(N, K)`` float32.
        metadata: name -> ``(N,)`` numbers that describe the clips (lux), NaN where unknown.
        evidence: on what they were computed, as plain values: weights, table, contents of files; empty if unknown.
        name: what messages call it (its path).

    Raises:
        ModaliftError: arrays of different lengths, or an id that appears twice.
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    subjects: NDArray[np.str_]
    probabilities: NDArray[np.float32]
    metadata: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    name: str = "predictions"
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", np.asarray(self.ids, dtype=np.str_))
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.int64))
        object.__setattr__(self, "subjects", np.asarray(self.subjects, dtype=np.str_))
        object.__setattr__(self, "probabilities", np.asarray(self.probabilities, dtype=np.float32))
        object.__setattr__(self, "metadata", {k: np.asarray(v) for k, v in self.metadata.items()})
        n = len(self.ids)
        columns = {"labels": self.labels, "subjects": self.subjects, **self.metadata}
        for key, column in columns.items():
            if column.shape != (n,):
                raise ModaliftError(f"{self.name}: '{key}' has shape {column.shape} for {n} clips -"
                                    " write the file again")
        if self.probabilities.ndim != 2 or len(self.probabilities) != n:
            raise ModaliftError(f"{self.name}: 'probabilities' has shape {self.probabilities.shape} for {n} clips -"
                                " they must be (clips, classes)")
        names, first = np.unique(self.ids, return_index=True)
        if len(names) < n:
            duplicate = self.ids[np.setdiff1d(np.arange(n), first)[0]]
            raise ModaliftError(f"{self.name}: clip '{duplicate}' appears twice - ids must be unique")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the most probable class is the label, ``(N,)``; False for unlabeled clips."""
        return self.probabilities.argmax(1) == self.labels if len(self) else np.zeros(0, bool)

    def take(self, rows: NDArray[Any]) -> Predictions:
        """The predictions of some clips, by index or mask."""
        return Predictions(self.ids[rows], self.labels[rows], self.subjects[rows], self.probabilities[rows],
                           {k: v[rows] for k, v in self.metadata.items()}, self.name, self.evidence)

    @staticmethod
    def join(parts: Sequence[Predictions], name: str = "joined predictions") -> Predictions:
        """Joins the predictions of disjoint splits (the folds of a cross-validation).

        Raises:
            ModaliftError: no parts, or a clip in two of them.
        """
        if not parts:
            raise ModaliftError(f"{name}: there is nothing to join - give at least one")
        shared = set.intersection(*(set(p.metadata) for p in parts))
        return Predictions(
            np.concatenate([p.ids for p in parts]), np.concatenate([p.labels for p in parts]),
            np.concatenate([p.subjects for p in parts]), np.concatenate([p.probabilities for p in parts]),
            {k: np.concatenate([p.metadata[k] for p in parts]) for k in sorted(shared)}, name)

    def save(self, path: str | Path) -> Path:
        """Writes an ``.npz`` file (``ids, labels, subjects, probabilities, metadata_*, evidence``), complete or not at all."""
        metadata: dict[str, Any] = {_PREFIX + k: v for k, v in self.metadata.items()}

        def write(beside: Path) -> None:
            with beside.open("wb") as out:
                np.savez_compressed(out, ids=self.ids, labels=self.labels, subjects=self.subjects,
                                    probabilities=self.probabilities, evidence=json.dumps(dict(self.evidence)), **metadata)

        return write_beside(Path(path), write)

    @staticmethod
    def load(path: str | Path) -> Predictions:
        """Reads what :meth:`save` wrote; nothing in the file is executed.

        Raises:
            ModaliftError: a missing file, a file of another kind, a missing array, or arrays of different lengths.
        """
        path = Path(path)
        if not is_file(path):
            raise ModaliftError(f"{path}: no such file of predictions - run `modalift eval` on the run first")
        try:
            with np.load(path, allow_pickle=False) as file:
                if not isinstance(file, np.lib.npyio.NpzFile):
                    raise ValueError("one bare array")
                arrays = {k: file[k] for k in file.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
            raise ModaliftError(f"{path}: not a file of predictions ({str(error).splitlines()[0]}) -"
                                " write it again with `modalift eval`") from None
        for key in ("ids", "labels", "subjects", "probabilities"):
            if key not in arrays:
                raise ModaliftError(f"{path}: the array '{key}' is missing - write it again with `modalift eval`")
        metadata = {k[len(_PREFIX):]: v for k, v in arrays.items() if k.startswith(_PREFIX)}
        try:
            evidence = parse_json(str(arrays["evidence"])) if "evidence" in arrays else {}
        except ValueError:
            raise ModaliftError(f"{path}: its evidence is damaged - write it again with `modalift eval`") from None
        return Predictions(arrays["ids"], arrays["labels"], arrays["subjects"], arrays["probabilities"], metadata,
                           str(path), evidence if isinstance(evidence, dict) else {})
