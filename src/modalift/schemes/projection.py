"""Projections that make the maps of two networks comparable, and the choice of the stages that are compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError, nearest
from modalift.networks import Recognizer
from modalift.networks.sync_batchnorm import CrossRankBatchNorm


class Projection(nn.Module):
    """A pointwise convolution and a batch normalization, ``(B, C, T, H, W)`` to ``(B, C', T, H, W)``.

    It is on the learner's side: a trained projection of the target could make both maps zero. It is trained with the student,
    and training only. A batch of no clips is allowed.
    """

    def __init__(self, channels: int, out: int, relu: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 1, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.transpose(1, 2).flatten(0, 1))  # of frames: twice as fast as in 3D
        # A single value per channel has no variance, and no clips have no statistics.
        if isinstance(self.bn, CrossRankBatchNorm) or y.numel() > y.shape[1]:
            y = self.bn(y)
        else:
            y = y * self.bn.weight.reshape(1, -1, 1, 1) + self.bn.bias.reshape(1, -1, 1, 1)
        y = torch.relu(y) if self.relu else y
        return y.unflatten(0, (len(x), x.shape[2])).transpose(1, 2)


def to_channels(channels: int, out: int, always: bool = False) -> nn.Module:
    """A :class:`Projection`, or the identity if the channels are equal (unless ``always``)."""
    return nn.Identity() if channels == out and not always else Projection(channels, out)


def check_stage(net: Recognizer, name: str, setting: str) -> str:
    """The name of a stage, checked.

    Args:
        net: the network.
        name: the stage.
        setting: the setting that names it, for the message.

    Raises:
        ModaliftError: the network has no such stage.
    """
    if name not in net.stages:
        raise ModaliftError(f"scheme.{setting}: the {net.view} network has no stage '{name}' - {nearest(name, net.stages)}")
    return name


def chosen_stages(net: Recognizer, given: Sequence[str], count: int, role: str) -> list[str]:
    """The stages that a recipe names, or the ``count`` deepest of a network.

    Raises:
        ModaliftError: a named stage that the network does not have, or fewer than ``count`` stages.
    """
    known = list(net.stages)
    if not given and len(known) < count:
        raise ModaliftError(f"networks.{role} has {len(known)} stages, {count} are compared - name scheme.{role}_stages")
    return [check_stage(net, name, f"{role}_stages") for name in given] or known[-count:]


def paired_stages(student: Recognizer, teacher: Recognizer, student_stages: Sequence[str], teacher_stages: Sequence[str],
                  most: int | None = None) -> tuple[list[str], list[str]]:
    """Equal numbers of stages of both networks, paired from the deepest.

    Without names these are the ``most`` deepest, or by default all but the stem of the network of fewer stages.

    Raises:
        ModaliftError: unequal numbers of named stages.
    """
    count = most or max(1, min(len(student.stages), len(teacher.stages)) - 1)
    count = len(student_stages) or len(teacher_stages) or count
    own = chosen_stages(student, student_stages, count, "student")
    shown = chosen_stages(teacher, teacher_stages, count, "teacher")
    if len(own) != len(shown):
        raise ModaliftError(f"scheme.student_stages names {len(own)} stages, scheme.teacher_stages {len(shown)} - name as"
                            " many of each")
    return own, shown
