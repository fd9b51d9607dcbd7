"""Predictions for many recordings: one that cannot be read does not stop the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modalift.errors import EXIT_CODE, ModaliftError
from modalift.models.prediction import Prediction
from modalift.models.recognizer import RecognizerModel


@dataclass(frozen=True)
class Outcome:
    """The outcome for one recording: its prediction, or an error.

    Attributes:
        clip: the recording, as it was named.
        prediction: None where the recording could not be read.
        error: one line; empty where there is a prediction.
    """

    clip: str
    prediction: Prediction | None = None
    error: str = ""


def predict_many(model: RecognizerModel, clips: Sequence[str | Path], *, top: int = 5) -> list[Outcome]:
    """Predicts every recording, in order; see :meth:`RecognizerModel.predict`.

    A recording that cannot be read gives an Outcome with an ``error``.

    Args:
        model: a recognizer.
        clips: files or folders, one recording each.
        top: number of classes in :attr:`Prediction.top`.

    Raises:
        ModaliftError: no recordings, or a model that is not a recognizer.
    """
    if not isinstance(model, RecognizerModel):
        raise ModaliftError(f"{model.name}: holds a {model.kind}, not a recognizer - {model.advice}")
    if not clips:
        raise ModaliftError("no recordings - give one or more files or folders")
    outcomes = []
    for clip in clips:
        try:
            outcomes.append(Outcome(str(clip), model.predict(clip, top)))
        except ModaliftError as error:
            outcomes.append(Outcome(str(clip), error=str(error)))
    return outcomes


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """The exit code of `modalift predict`: 2 where any recording failed, else 0."""
    return EXIT_CODE if any(a.error for a in outcomes) else 0
