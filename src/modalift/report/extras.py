"""What a kind of model shows in addition to its result columns: charts of an evaluation, and notes about the metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modalift.report import charts
from modalift.report.results import Metrics, kind_of


@dataclass(frozen=True)
class Extras:
    """What a kind of model shows in addition to its result columns.

    Attributes:
        charts: makes the charts of one network on one split, as HTML.
        note: makes an explanation of the columns, as plain text, from the metrics of all rows.
    """

    charts: Callable[[Metrics], str] = lambda metrics: ""
    note: Callable[[Sequence[Metrics]], str] = lambda rows: ""


def _note_on_classes(rows: Sequence[Metrics]) -> str:
    few = any(len(m.get("classes", ())) in range(1, 6) for m in rows)
    earlier = any("resamples" in m.get("intervals", {}) for m in rows)
    return ("Intervals are of 95 %, of top-1: over clips, which are taken as independent (Wilson's score interval), and over"
            " subjects, whose clips are alike (with an effective number of clips, and Student's t). ECE: expected calibration"
            " error. NLL: mean negative log-likelihood of the label."
            + (" With five classes or fewer, top-5 is always 100 %." if few else "")
            + (" Results of an earlier version have percentile bootstrap intervals, which are too narrow for few clips or"
               " subjects: evaluate again." if earlier else ""))


def _note_on_images(rows: Sequence[Metrics]) -> str:
    return ("Means over clips, of the network's output compared with the target sensor's recording. PSNR: peak signal-to-noise"
            " ratio. SSIM: structural similarity, 1 for equal images. Edge correlation: of Sobel magnitudes, insensitive to"
            " brightness and contrast. Flicker: mean change from frame to frame, relative to the target sensor's recording.")


_OF_CLASSES = Extras(charts.classification, _note_on_classes)
#: Kind of model -> its additions; other kinds show their columns only.
EXTRAS: dict[str, Extras] = {
    "recognizer": _OF_CLASSES,
    "fusion": _OF_CLASSES,
    "translator": Extras(charts.worst_clips, _note_on_images),
}


def extras_of(metrics: Metrics) -> Extras:
    """The additions of the kind of model that these metrics belong to."""
    return EXTRAS.get(kind_of(metrics).kind, Extras())
