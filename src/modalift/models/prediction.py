"""A recognizer's prediction for one recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalift.errors import ModaliftError


@dataclass(frozen=True)
class Prediction:
    """The predicted class of a recording, and the probability of every class.

    Attributes:
        clip: the recording.
        label, index, probability: name, index and probability of the most probable class.
        top: the most probable classes with their probabilities, highest first.
        probabilities: ``(K,)`` float32, in the order of ``classes``, sum 1.
        classes: all K class names.
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
        """Builds a Prediction from probabilities ``(K,)``; of equal ones the first class is predicted.

        Raises:
            ModaliftError: probabilities that are not finite.

        Example:
            >>> Prediction.of("a.mp4", np.array([.25, .75], np.float32), ["stop", "go"]).label
            'go'
        """
        if not np.isfinite(probabilities).all():
            raise ModaliftError(f"{clip}: the network's output is not finite (NaN or Inf) - are its readings in the"
                                " sensor's unit?")
        order = np.argsort(-probabilities, kind="stable")
        predicted = int(order[0])
        ranked = tuple((classes[int(i)], float(probabilities[i])) for i in order[: max(1, top)])
        return cls(clip, classes[predicted], predicted, float(probabilities[predicted]), ranked, probabilities, tuple(classes))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"clip": self.clip, "label": self.label, "index": self.index, "probability": self.probability,
                "top": [{"label": name, "probability": p} for name, p in self.top],
                "probabilities": [float(p) for p in self.probabilities]}
