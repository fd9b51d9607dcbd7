"""Labels only: the baseline of every other scheme."""

from __future__ import annotations

from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, label_loss, observe
from modalift.signatures import Share


@scheme("single")
class Single(Scheme):
    r"""One network of one sensor, trained on labels.

    .. math:: L = \mathrm{CE}(z, y)

    Args:
        student: the network that is trained and deployed.
        label_smoothing: label smoothing in [0, 1): the cheapest control that a teacher has to beat.
    """

    uses_unlabeled = False

    def __init__(self, student: Recognizer, *, label_smoothing: Share = 0.0) -> None:
        super().__init__()
        self.student = student
        self.label_smoothing = label_smoothing

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = observe(self.student, batch)
        return {"ce/student": (1.0, label_loss(seen, batch, self.label_smoothing))}
