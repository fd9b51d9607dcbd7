"""The encoders of the translator: they recognize a person in images of one sensor."""

from __future__ import annotations

from modalift.losses import batch_hard_triplet
from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import (
    Progress,
    Scheme,
    Terms,
    count_across_ranks,
    gather_across_ranks,
    label_loss,
    labels_of,
    masked_mean,
    observe,
)
from modalift.signatures import NonNegative, Share


@scheme("identity_encoder")
class IdentityEncoder(Scheme):
    r"""An encoder for person re-identification: its classes are identities.

    .. math:: L = \mathrm{CE}(z, y) + \lambda\, \overline{\max\big(0,\ d(a, p^*) - d(a, n^*) + \epsilon\big)}

    over the images of a batch, where d is the Euclidean distance of the deepest map's means, :math:`p^*` the farthest
    image of the same person and :math:`n^*` the nearest of another (:func:`~modalift.losses.batch_hard_triplet`).

    Args:
        student: the encoder. The two encoders of the translator, one per sensor, are two runs, each with its own seed.
        triplet_weight: :math:`\lambda`.
        margin: :math:`\epsilon`; None: the softplus of the difference instead.
        label_smoothing: of the cross-entropy; .1 is usual in person re-identification.

    A triplet needs several images of a person in a batch: ``optim.per_class`` sets how many (P x K sampling).

    Source: MTCD, equations 1 to 4. The paper gives neither weight nor margin: 1 and 0.3 are those of the strong
    baselines of person re-identification. Its sums over K and i are read as means. The images of all processes are compared;
    their number is logged.
    """

    uses_unlabeled = False
    relates_batch = True
    batch_relation = "compares all images of a batch"

    def __init__(self, student: Recognizer, *, triplet_weight: NonNegative = 1.0, margin: NonNegative | None = 0.3,
                 label_smoothing: Share = 0.1) -> None:
        super().__init__()
        self.student, self.triplet_weight, self.margin = student, triplet_weight, margin
        self.label_smoothing = label_smoothing

    @property
    def notes(self) -> list[str]:
        return ["a triplet needs several images of a person in a batch - set their number by optim.per_class"]

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = observe(self.student, batch, [self.student.last_stage])
        labels, labeled = labels_of(seen, batch)
        feature = seen.maps[self.student.last_stage].flatten(2).mean(2)[labeled]
        features, people = gather_across_ranks(feature), gather_across_ranks(labels[labeled])
        triplet = masked_mean(seen.logits.sum(1) * 0.0)  # without a labeled image: zero, with a gradient of zero
        if len(people):
            triplet = triplet + batch_hard_triplet(features, people, self.margin)
        return {"ce/student": (1.0, label_loss(seen, batch, self.label_smoothing)),
                "triplet/student": (self.triplet_weight, triplet), "batch_clips/student": (0.0, count_across_ranks(feature))}
