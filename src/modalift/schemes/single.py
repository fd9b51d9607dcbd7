"""Labels only: what every other scheme must beat."""

from __future__ import annotations

from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, label_loss, watch
from modalift.signatures import Share


@scheme("single")
class Single(Scheme):
    r"""One network, one sensor, its labels.

    .. math:: L = \mathrm{CE}(z, y)

    Args:
        student: the network that learns and ships.
        smoothing: label smoothing in [0, 1): the cheapest control that a teacher has to beat.
    """

    uses_unlabeled = False

    def __init__(self, student: Recognizer, *, smoothing: Share = 0.0) -> None:
        super().__init__()
        self.student = student
        self.smoothing = smoothing

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = watch(self.student, batch)
        return {"ce/student": (1.0, label_loss(seen, batch, self.smoothing))}
