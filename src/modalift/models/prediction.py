"""A recognizer's answer about one recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalift.errors import ModaliftError


@dataclass(frozen=True)
class Prediction:
    """Which class a recording shows, and how probable each is.

    Attributes:
        clip: the recording.
        label: name of the most probable class; ``index`` its number, ``probability`` its probability.
        top: the most probable classes with their probabilities, best first.
        classes: all class names; ``probabilities`` ``(K,)`` float32 belong to them and sum to 1.
    """

    clip: str
    label: str
    index: int
    probability: float
    top: tuple[tuple[str, float], ...]
    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, clip: str, probabilities: NDArray[np.float32], classes: Sequence[str], top: int = 5) -> Prediction:
        """A Prediction from probabilities ``(K,)``; among equals the first class wins.

        Raises:
            ModaliftError: probabilities that are not finite.

        Example:
            >>> Prediction.of("a.mp4", np.array([.25, .75], np.float32), ["stop", "go"]).label
            'go'
        """
        if not np.isfinite(probabilities).all():
            raise ModaliftError(f"{clip}: the network's output is not finite - are its readings in the sensor's unit?")
        order = np.argsort(-probabilities, kind="stable")
        best = int(order[0])
        ranked = tuple((classes[int(i)], float(probabilities[i])) for i in order[: max(1, top)])
        return cls(clip, classes[best], best, float(probabilities[best]), ranked, probabilities, tuple(classes))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"clip": self.clip, "label": self.label, "index": self.index, "probability": self.probability,
                "top": [{"label": name, "probability": p} for name, p in self.top],
                "probabilities": [float(p) for p in self.probabilities]}
