"""The encoders of the translator: who a person is, whichever sensor saw them."""

from __future__ import annotations

from modalift.losses import batch_hard_triplet
from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, average, joint, joint_count, label_loss, labels_of, watch
from modalift.signatures import NonNegative, Share


@scheme("identity_encoder")
class IdentityEncoder(Scheme):
    r"""An encoder whose features tell people apart: their identities are its classes.

    .. math:: L = \mathrm{CE}(z, y) + \lambda\, \overline{\max\big(0,\ d(a, p^*) - d(a, n^*) + \epsilon\big)}

    over the pictures of a batch, where d is the Euclidean distance of the deepest map's means, :math:`p^*` the farthest
    picture of the same person and :math:`n^*` the nearest of another (:func:`~modalift.losses.batch_hard_triplet`).

    Args:
        student: the encoder. The two of the translator, one for either sensor, are two runs, each with its own seed.
        weight: :math:`\lambda`.
        margin: :math:`\epsilon`; None takes the softplus of the difference.
        smoothing: of the labels; .1 is usual in person re-identification.

    A triplet needs several pictures of a person in a batch: ``optim.per_class`` puts as many of each together (P x K).

    Source: MTCD, equations 1 to 4. The paper gives neither weight nor margin: 1 and 0.3 are those of the strong
    baselines of person re-identification. Its sums over K and i are read as means. Pictures of all processes count;
    how many these were is logged.
    """

    uses_unlabeled = False
    relates_batch = True
    batch_relation = "compares all pictures of a batch"

    def __init__(self, student: Recognizer, *, weight: NonNegative = 1.0, margin: NonNegative | None = 0.3,
                 smoothing: Share = 0.1) -> None:
        super().__init__()
        self.student, self.weight, self.margin, self.smoothing = student, weight, margin, smoothing

    @property
    def notes(self) -> list[str]:
        return ["a triplet needs several pictures of a person in a batch - optim.per_class says how many stand together"]

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = watch(self.student, batch, [self.student.last_stage])
        labels, labeled = labels_of(seen, batch)
        feature = seen.maps[self.student.last_stage].flatten(2).mean(2)[labeled]
        features, people = joint(feature), joint(labels[labeled])
        term = average(seen.logits.sum(1) * 0.0)  # where nobody is known: zero, with a gradient of zero
        if len(people):
            term = term + batch_hard_triplet(features, people, self.margin)
        return {"ce/student": (1.0, label_loss(seen, batch, self.smoothing)),
                "triplet/student": (self.weight, term), "clips/student": (0.0, joint_count(feature))}
