"""What one kind of model shows besides its columns: charts of an evaluation, and what is to be said about the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modalift.models import Column
from modalift.report import charts
from modalift.report.results import Metrics, kind_of


@dataclass(frozen=True)
class Extras:
    """What a kind of model shows besides its columns.

    Attributes:
        charts: charts of one network on one split, HTML.
        note: what is to be said about the columns, plain text; given the metrics of all rows.
    """

    charts: Callable[[Metrics], str] = lambda metrics: ""
    note: Callable[[Sequence[Metrics]], str] = lambda rows: ""


_OVER_SUBJECTS = Column("intervals.top1.subjects", "over subjects", "interval")


def _note_on_classes(rows: Sequence[Metrics]) -> str:
    unlabeled = sum(m.get("unlabeled", 0) for m in rows)
    return ("Intervals are 95 % percentile bootstraps of top-1: over clips (had other clips of the same people been recorded)"
            " and over subjects (had other people been recorded). ECE: expected calibration error. NLL: mean negative"
            " log-likelihood of the label." + (f" {unlabeled} clips without a label were left out." if unlabeled else "")
            + (" Where all clips are of one subject, nothing can be said about other people."
               if any(_OVER_SUBJECTS.of(m) is None for m in rows) else ""))


def _note_on_pictures(rows: Sequence[Metrics]) -> str:
    return ("Means over clips, of the network's output against the target sensor's recording. PSNR: peak signal-to-noise"
            " ratio. SSIM: structural similarity, 1 where both are equal. Edge correlation: of Sobel magnitudes, insensitive to"
            " brightness and contrast. Flicker: mean change from frame to frame, relative to that of the target's recording.")


_OF_CLASSES = Extras(charts.classification, _note_on_classes)
#: Kind of model -> what it shows besides; a kind that is not here shows its columns only.
EXTRAS: dict[str, Extras] = {
    "recognizer": _OF_CLASSES,
    "fusion": _OF_CLASSES,
    "translator": Extras(charts.worst_clips, _note_on_pictures),
}


def extras_of(metrics: Metrics) -> Extras:
    """What the kind of these metrics shows besides its columns."""
    return EXTRAS.get(kind_of(metrics).kind, Extras())
