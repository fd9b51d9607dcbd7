"""What an evaluation leaves: figures as plain JSON, and the columns in which they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modalift.models.predictions import Predictions

#: How a figure is written: a share in percent, a number with one or three decimals, a whole number, an interval of shares.
Format = Literal["percent", "number1", "number3", "count", "text", "interval"]


@dataclass(frozen=True)
class Column:
    """One column of the tables of results.

    Attributes:
        key: where the figure stands among the metrics; dots lead into nested ones (``intervals.top1.clips``).
        title: the column's heading.
        format: how it is written.
        better: which direction is better, for a headline.

    Example:
        >>> Column("intervals.top1.clips", "over clips", "interval").of({"intervals": {"top1": {"clips": [0.5, 0.75]}}})
        [0.5, 0.75]
    """

    key: str
    title: str
    format: Format = "number3"
    better: Literal["higher", "lower"] = "higher"

    def of(self, metrics: Mapping[str, Any]) -> Any:
        """The figure; None where the metrics do not hold it."""
        found: Any = metrics
        for name in self.key.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


@dataclass(frozen=True)
class Evaluation:
    """What a model made of some clips.

    Attributes:
        metrics: figures as plain JSON; ``kind`` names the kind of model and ``n`` counts the clips.
        predictions: the probabilities of every clip, from a model that tells classes apart.
    """

    metrics: dict[str, Any]
    predictions: Predictions | None = None
