"""What schemes with a judge of pictures share: its memory, its verdict, and what it makes a generator believe."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from modalift.losses import adversarial
from modalift.schemes.scheme import average


class Pool(nn.Module):
    """A judge's memory of pictures made before: once it is full, every other picture changes places with an old one.

    Saved with the training, so that it resumes where it was.
    """

    pictures: Tensor
    held: Tensor

    def __init__(self, size: int, channels: int, pixels: int) -> None:
        super().__init__()
        self.register_buffer("pictures", torch.zeros(size, channels, pixels, pixels))
        self.register_buffer("held", torch.zeros((), dtype=torch.long))

    def forward(self, made: Tensor) -> Tensor:
        size = len(self.pictures)
        if not size or not self.training:
            return made
        shown = made.clone()
        for k in range(len(made)):
            if int(self.held) < size:
                self.pictures[int(self.held)] = made[k]
                self.held += 1
            elif torch.rand(()) < 0.5:
                place = int(torch.randint(size, ()))
                shown[k] = self.pictures[place]
                self.pictures[place] = made[k]
        return shown


def frames(clip: Tensor) -> Tensor:
    """``(B, C, T, H, W)`` as pictures ``(B T, C, H, W)``; pictures stay as they are."""
    return clip.transpose(1, 2).flatten(0, 1) if clip.dim() == 5 else clip


def nothing(*nets: nn.Module) -> Tensor:
    """Zero, with a gradient of zero for every parameter: what no clip teaches."""
    return torch.stack([p.sum() * 0.0 for net in nets for p in net.parameters()]).sum()


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean of each clip's values, ``(B,)``; zero where all weights are."""
    return (weight * values).flatten(1).sum(1) / weight.expand_as(values).flatten(1).sum(1).clamp_min(1e-6)


def told(each: Tensor | None, *nets: nn.Module) -> Tensor:
    """The mean over the clips of all processes; None where this one has no clip for these networks."""
    return average(torch.zeros(0, device=next(nets[0].parameters()).device)) + nothing(*nets) if each is None else average(each)


def verdict(judge: nn.Module | None, real: Tensor, made: Tensor | None) -> Tensor:
    """What a judge learns from: pictures that are real, and pictures that were made."""
    assert judge is not None
    sides = ((real if len(real) else None, True), (made, False))
    found = [told(None if x is None else adversarial(judge(frames(x)), known, per_sample=True), judge) for x, known in sides]
    return 0.5 * (found[0] + found[1])


def belief(judge: nn.Module | None, made: Tensor | None, net: nn.Module) -> Tensor:
    """How far made clips are from being taken for real ones; the judge does not move."""
    assert judge is not None
    if made is None:
        return told(None, net)
    still = {k: v.detach() for k, v in judge.named_parameters()}
    return told(adversarial(functional_call(judge, still, (frames(made),)), True, per_sample=True), net)
