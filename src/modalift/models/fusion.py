"""The fusion of several sensors as a trained model: an upper bound for one sensor; evaluated, never shipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from modalift import networks
from modalift.errors import ModaliftError
from modalift.modalities import MODALITIES, Batch, Modality
from modalift.models.model import model_kind, plain_options
from modalift.models.recognizer import ClassifierModel
from modalift.networks.fusion import Fusion, FusionHead


@model_kind
class FusionModel(ClassifierModel):
    """A :class:`~modalift.networks.fusion.Fusion` with the framing of every view; evaluated on clips of all sensors."""

    kind = "fusion"
    advice = "`modalift eval RUN` tells what it is worth, and `modalift ship RUN --student ROLE` makes a bundle of one network"

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(self.network.views)

    @property
    def modalities(self) -> dict[str, Modality]:
        return {net.view: MODALITIES[net.modality].with_channels(net.channels) for net in self.network.networks.values()}

    def logits_of(self, batch: Batch) -> Tensor:
        logits: Tensor = self.network(batch.clips)
        return logits

    @classmethod
    def describe(cls, network: Any) -> dict[str, Any]:
        # A list: the head's weights follow the order of the networks, and files keep the keys of a mapping sorted.
        return {"members": [[role, dict(net.config)] for role, net in network.networks.items()],
                "head": dict(network.head.config)}

    @classmethod
    def rebuild(cls, description: Mapping[str, Any], classes: int) -> nn.Module:
        members, head = description.get("members"), description.get("head")
        if not isinstance(members, list) or not isinstance(head, Mapping):
            raise ModaliftError("its description has no networks or no head - train it again")
        built = {str(role): networks.build(**plain_options(config)) for role, config in members}
        channels = {role: net.stages[net.last_stage].channels for role, net in built.items()}
        return Fusion(built, FusionHead(channels, classes, **head))
