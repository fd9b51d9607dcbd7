"""Fusion: what the sensors can do together. An upper bound for the one that ships, and a way to train branches."""

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
from modalift.schemes.scheme import Progress, Scheme, Terms, average, label_loss, watch
from modalift.signatures import Count, NonNegative, Share


@scheme("fusion")
class Fused(Scheme):
    r"""Several sensors in, one joint answer.

    .. math:: L = \mathrm{CE}(z_{joint}, y) + w \sum_m \mathrm{CE}(z_m, y)

    where :math:`z_{joint}` is the mean of the networks' logits (``late``) or the answer of a small network on their
    features side by side (``mid``), see :class:`~modalift.networks.fusion.FusionHead`. ``modalift eval`` reports the joint
    answer as ``fusion``, on the clips that all sensors saw. It needs every sensor, so it never ships: it is the bound that
    a taught network of one sensor is held against. What ships is a branch, which its own term has taught to answer alone.

    Args:
        learners: one network a sensor (or several of one sensor); each may ship, alone.
        mode: ``late`` or ``mid``.
        drop: modality dropout: the chance that a sensor is left out of a clip's joint answer in training. A clip that
            would lose all of its sensors keeps all.
        own: w; at 0 only the joint answer learns, and branches answer alone as badly as they please.
        width, bins, dropout: of mid fusion's head.

    Source: modality dropout is that of Neverova et al., *ModDrop*, TPAMI 2016, here on features and logits instead of on
    inputs. Step 4 of modality hallucination (see `hallucination`) is ``mode: late`` with ``own: 0`` over two networks of one
    sensor. A moving average of weights (``optim.ema``) concerns the branches that ship; the joint answer is that of the
    weights themselves.
    """

    uses_unlabeled = False

    def __init__(self, learners: Mapping[str, Recognizer], *, mode: Mode = "late", drop: Share = 0.0,
                 own: NonNegative = 1.0, width: Count = 256, bins: Count = 4, dropout: Share = 0.0) -> None:
        super().__init__()
        if len(learners) < 2:
            raise ModaliftError(f"scheme 'fusion' joins two networks or more, and there is {len(learners)} - add another one"
                                " to networks")
        if "fusion" in learners:
            raise ModaliftError("networks.fusion: scheme 'fusion' calls its joint answer so - give the network another role")
        self.learners = nn.ModuleDict(learners)
        self.drop, self.own = drop, own
        classes = next(iter(learners.values())).classes
        self.head = FusionHead({k: n.stages[n.last_stage].channels for k, n in learners.items()}, classes, mode, width=width,
                               bins=bins, dropout=dropout)

    @property
    def idle(self) -> dict[str, str]:
        return {} if self.head.mode == "mid" else dict.fromkeys(("width", "bins", "dropout"), "with mode=late")

    def models(self) -> dict[str, Any]:
        return {**self.students, "fusion": Fusion(self.roles, self.head)}

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = {k: watch(net, batch, [net.last_stage]) for k, net in self.roles.items()}
        here = torch.stack([batch.present[net.view] for net in self.roles.values()])  # (M, B)
        logits = torch.stack([self.placed(o.logits, o, batch) for o in seen.values()])
        features = [self.placed(self.head.pooled(o.maps[self.roles[k].last_stage]), o, batch) for k, o in seen.items()]
        answer = self.head(logits, features, self.kept(here))
        each = F.cross_entropy(answer.float(), batch.labels.clamp_min(0), reduction="none")
        joined = average(each, batch.labeled & here.any(0))
        return {f"fuse/{'+'.join(seen)}": (1.0, joined)} | {
            f"ce/{k}": (self.own, label_loss(o, batch)) for k, o in seen.items()}

    def placed(self, values: Tensor, seen: Observation, batch: Batch) -> Tensor:
        """Values of the clips that a network saw, as rows of the whole batch; zeros for the others."""
        values = values.float()
        return values.new_zeros((len(batch), values.shape[1])).index_copy(0, seen.indices, values)

    def kept(self, here: Tensor) -> Tensor:
        """Which sensors count for which clips, ``(M, B)``: those that are there, less what is dropped in training."""
        if not self.training or not self.drop:
            return here
        kept = here & (torch.rand(here.shape, device=here.device) >= self.drop)
        return torch.where(kept.any(0), kept, here)
