"""From the learner's channels to the other's: what lets maps of two networks be compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError, nearest
from modalift.networks import Recognizer
from modalift.networks.joint_norm import JointBatchNorm


class Projection(nn.Module):
    """A pointwise convolution and a batch normalization, ``(B, C, T, H, W)`` to ``(B, C', T, H, W)``.

    It stands on the side that learns: a transform that learns on the other side could make both maps zero. It is trained
    with the student and stays at home. No clip at all passes through as no clip.
    """

    def __init__(self, channels: int, out: int, relu: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 1, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.transpose(1, 2).flatten(0, 1))  # frames: twice as quick as the same convolution of clips
        # A single number a channel has no deviation; without a clip there is nothing to normalize at all.
        if isinstance(self.bn, JointBatchNorm) or y.numel() > y.shape[1]:
            y = self.bn(y)
        else:
            y = y * self.bn.weight.reshape(1, -1, 1, 1) + self.bn.bias.reshape(1, -1, 1, 1)
        y = torch.relu(y) if self.relu else y
        return y.unflatten(0, (len(x), x.shape[2])).transpose(1, 2)


def to_channels(channels: int, out: int, always: bool = False) -> nn.Module:
    """A :class:`Projection`, or nothing where the channels agree (unless ``always``)."""
    return nn.Identity() if channels == out and not always else Projection(channels, out)


def check_stage(net: Recognizer, name: str, setting: str) -> str:
    """The name of a stage that a setting gives.

    Raises:
        ModaliftError: the network has no such stage.
    """
    if name not in net.stages:
        raise ModaliftError(f"scheme.{setting}: the {net.view} network has no stage '{name}' - {nearest(name, net.stages)}")
    return name


def chosen_stages(net: Recognizer, given: Sequence[str], count: int, role: str) -> list[str]:
    """The stages that a recipe names, or the ``count`` deepest of a network.

    Raises:
        ModaliftError: a stage that the network does not have, or fewer stages than asked for.
    """
    known = list(net.stages)
    if not given and len(known) < count:
        raise ModaliftError(f"networks.{role} has {len(known)} stages, {count} are compared - name scheme.{role}_stages")
    return [check_stage(net, name, f"{role}_stages") for name in given] or known[-count:]


def paired_stages(student: Recognizer, teacher: Recognizer, student_stages: Sequence[str], teacher_stages: Sequence[str],
                  most: int | None = None) -> tuple[list[str], list[str]]:
    """As many stages of both networks, the deepest together; without names all but the stem, or the ``most`` deepest.

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
