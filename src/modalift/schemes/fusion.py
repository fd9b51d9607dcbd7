"""Fusion: one joint prediction from several sensors, an upper bound for the deployed network of one sensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.networks import Observation, Recognizer
from modalift.networks.fusion import Fusion, FusionHead, Mode
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, label_loss, masked_mean, observe
from modalift.signatures import Count, NonNegative, Share


@scheme("fusion")
class FusionScheme(Scheme):
    r"""Several sensors in, one joint prediction.

    .. math:: L = \mathrm{CE}(z_{joint}, y) + w \sum_m \mathrm{CE}(z_m, y)

    where :math:`z_{joint}` is the mean of the networks' logits (``late``) or the output of a small network on their
    concatenated features (``mid``), see :class:`~modalift.networks.fusion.FusionHead`. ``modalift eval`` reports the joint
    prediction as ``fusion``, on the clips that all sensors recorded. It needs every sensor, so it is never deployed: it is the
    upper bound for a student of one sensor. A branch can be deployed, which its own cross-entropy trains to predict alone.

    Args:
        learners: one network per sensor (or several of one sensor); each may be deployed, alone.
        mode: ``late`` or ``mid``.
        modality_dropout: the probability that a sensor is left out of a clip's joint prediction in training. A clip that would
            lose all of its sensors keeps all.
        own_ce_weight: w; at 0 only the joint prediction is trained, and a branch alone may predict badly.
        width, bins, dropout: of the head of mid fusion.

    Source: modality dropout is that of Neverova et al., *ModDrop*, TPAMI 2016, here on features and logits instead of on
    inputs. Step 4 of modality hallucination (see `hallucination`) is ``mode: late`` with ``own_ce_weight: 0`` over two networks
    of one sensor. A moving average of weights (``optim.ema``) covers the branches, which may be deployed; the joint prediction
    is made with the weights themselves.
    """

    uses_unlabeled = False

    def __init__(self, learners: Mapping[str, Recognizer], *, mode: Mode = "late", modality_dropout: Share = 0.0,
                 own_ce_weight: NonNegative = 1.0, width: Count = 256, bins: Count = 4, dropout: Share = 0.0) -> None:
        super().__init__()
        if len(learners) < 2:
            raise ModaliftError(f"scheme 'fusion' joins two networks or more, and there is {len(learners)} - add another one"
                                " to networks")
        if "fusion" in learners:
            raise ModaliftError("networks.fusion: scheme 'fusion' gives its joint prediction this name - give the network"
                                " another role")
        self.learners = nn.ModuleDict(learners)
        self.modality_dropout, self.own_ce_weight = modality_dropout, own_ce_weight
        classes = next(iter(learners.values())).classes
        self.head = FusionHead({k: n.stages[n.last_stage].channels for k, n in learners.items()}, classes, mode, width=width,
                               bins=bins, dropout=dropout)

    @property
    def unused_settings(self) -> dict[str, str]:
        return {} if self.head.mode == "mid" else dict.fromkeys(("width", "bins", "dropout"), "with mode=late")

    def models(self) -> dict[str, Any]:
        return {**self.students, "fusion": Fusion(self.roles, self.head)}

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = {k: observe(net, batch, [net.last_stage]) for k, net in self.roles.items()}
        present = torch.stack([batch.present[net.view] for net in self.roles.values()])  # (M, B)
        logits = torch.stack([self.per_clip(o.logits, o, batch) for o in seen.values()])
        features = [self.per_clip(self.head.pooled(o.maps[self.roles[k].last_stage]), o, batch) for k, o in seen.items()]
        joint = self.head(logits, features, self.kept(present))
        each = F.cross_entropy(joint.float(), batch.labels.clamp_min(0), reduction="none")
        joint_ce = masked_mean(each, batch.labeled & present.any(0))
        return {f"joint_ce/{'+'.join(seen)}": (1.0, joint_ce)} | {
            f"ce/{k}": (self.own_ce_weight, label_loss(o, batch)) for k, o in seen.items()}

    def per_clip(self, values: Tensor, seen: Observation, batch: Batch) -> Tensor:
        """Values of the clips that a network saw, as rows of the whole batch; zeros for the other clips."""
        values = values.float()
        return values.new_zeros((len(batch), values.shape[1])).index_copy(0, seen.indices, values)

    def kept(self, present: Tensor) -> Tensor:
        """Which sensors contribute to which clips, ``(M, B)``: those that are present and, in training, not dropped."""
        if not self.training or not self.modality_dropout:
            return present
        kept = present & (torch.rand(present.shape, device=present.device) >= self.modality_dropout)
        return torch.where(kept.any(0), kept, present)
