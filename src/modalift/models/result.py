"""The result of an evaluation: metrics as plain JSON, and the table columns that show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modalift.models.predictions import Predictions

#: How a figure is printed: a share in percent, a number with one or three decimals, a whole number, text, an interval.
Format = Literal["percent", "number1", "number3", "count", "text", "interval"]


@dataclass(frozen=True)
class Column:
    """One column of the tables of results.

    Attributes:
        key: the metric's key; dots separate nested keys (``intervals.top1.clips``).
        title: heading of the column.
        format: how the figure is printed.
        better: which direction is better; used for the headline metric.

    Example:
        >>> Column("intervals.top1.clips", "over clips", "interval").of({"intervals": {"top1": {"clips": [0.5, 0.75]}}})
        [0.5, 0.75]
    """

    key: str
    title: str
    format: Format = "number3"
    better: Literal["higher", "lower"] = "higher"

    def of(self, metrics: Mapping[str, Any]) -> Any:
        """This column's figure among metrics; None where it is missing."""
        found: Any = metrics
        for name in self.key.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating a model on clips.

    Attributes:
        metrics: plain JSON; ``kind`` names the kind of model and ``n`` counts the clips.
        predictions: the probabilities of every clip; None for a model without classes.
    """

    metrics: dict[str, Any]
    predictions: Predictions | None = None
