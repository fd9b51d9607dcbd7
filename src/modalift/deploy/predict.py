"""Many recordings at once: what one cannot be read does not cost the others their answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from modalift.deploy.bundle import Bundle, Prediction
from modalift.errors import EXIT_CODE, ModaliftError


@dataclass(frozen=True)
class Answer:
    """What became of one recording: a prediction, or one line that says why there is none."""

    clip: str
    prediction: Prediction | None = None
    error: str = ""


def predict_many(bundle: Bundle, clips: Sequence[str | Path], *, top: int = 5) -> list[Answer]:
    """An answer for each recording, in their order; see :meth:`Bundle.predict`.

    Raises:
        ModaliftError: no recording was named. A recording that cannot be read is an Answer with an ``error``.
    """
    if not clips:
        raise ModaliftError("no recording was named - give one or more files or folders")
    answers = []
    for clip in clips:
        try:
            answers.append(Answer(str(clip), bundle.predict(clip, top)))
        except ModaliftError as error:
            answers.append(Answer(str(clip), error=str(error)))
    return answers


def exit_code(answers: Sequence[Answer]) -> int:
    """0, or 2 where any recording failed."""
    return EXIT_CODE if any(a.error for a in answers) else 0


def as_json(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Plain values: each a Prediction's, or ``{"clip": ..., "error": ...}``."""
    return [{"clip": a.clip, "error": a.error} if a.prediction is None else a.prediction.to_dict() for a in answers]


def render(answers: Sequence[Answer]) -> Group:
    """A table of the answers, and a line for each recording that has none."""
    parts: list[Table | Text] = []
    good = [a for a in answers if a.prediction is not None]
    if good:
        table = Table(title_justify="left")
        # A long path folds: its end tells clips of one folder apart.
        table.add_column("clip", overflow="fold", ratio=1)
        table.add_column("label", style="bold")
        table.add_column("probability", justify="right")
        table.add_column("then")
        table.expand = True
        for answer in good:
            found = answer.prediction
            assert found is not None
            others = ", ".join(f"{name} {100 * p:.0f} %" for name, p in found.top[1:])
            # Text, not str: names of files and classes may hold brackets, which are markup to Rich.
            table.add_row(Text(answer.clip), Text(found.label), f"{100 * found.probability:.1f} %", Text(others))
        parts.append(table)
    parts += [Text.assemble(("error ", "bold red"), a.error) for a in answers if a.error]
    return Group(*parts)
