"""Many recordings at once: what one cannot be read does not cost the others their answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modalift.errors import EXIT_CODE, ModaliftError
from modalift.models.prediction import Prediction
from modalift.models.recognizer import RecognizerModel


@dataclass(frozen=True)
class Answer:
    """What became of one recording: a prediction, or one line that says why there is none."""

    clip: str
    prediction: Prediction | None = None
    error: str = ""


def predict_many(model: RecognizerModel, clips: Sequence[str | Path], *, top: int = 5) -> list[Answer]:
    """An answer for each recording, in their order; see :meth:`RecognizerModel.predict`.

    Raises:
        ModaliftError: no recording was named, or the model is no recognizer. A recording that cannot be read is an Answer
            with an ``error``.
    """
    if not isinstance(model, RecognizerModel):
        raise ModaliftError(f"{model.name}: holds a {model.kind}, not a recognizer - a translator is used with `modalift derive"
                            " pseudo_ir DATA OUT bundle=...`")
    if not clips:
        raise ModaliftError("no recording was named - give one or more files or folders")
    answers = []
    for clip in clips:
        try:
            answers.append(Answer(str(clip), model.predict(clip, top)))
        except ModaliftError as error:
            answers.append(Answer(str(clip), error=str(error)))
    return answers


def exit_code(answers: Sequence[Answer]) -> int:
    """0, or 2 where any recording failed."""
    return EXIT_CODE if any(a.error for a in answers) else 0
