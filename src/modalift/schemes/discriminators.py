"""What adversarial schemes share: the losses of a discriminator and of a generator, and the pool of earlier images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from modalift.losses import adversarial
from modalift.schemes.scheme import masked_mean


class Pool(nn.Module):
    """The last generated images, of which a discriminator sees some again, as in CycleGAN.

    Once the pool is full, every image is with probability 1/2 exchanged for a random one of the pool. The pool is saved in
    checkpoints.
    """

    images: Tensor
    held: Tensor

    def __init__(self, size: int, channels: int, pixels: int) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, channels, pixels, pixels))
        self.register_buffer("held", torch.zeros((), dtype=torch.long))

    def forward(self, generated: Tensor) -> Tensor:
        size = len(self.images)
        if not size or not self.training:
            return generated
        shown = generated.clone()
        for k in range(len(generated)):
            if int(self.held) < size:
                self.images[int(self.held)] = generated[k]
                self.held += 1
            elif torch.rand(()) < 0.5:
                place = int(torch.randint(size, ()))
                shown[k] = self.images[place]
                self.images[place] = generated[k]
        return shown


def frames(clip: Tensor) -> Tensor:
    """``(B, C, T, H, W)`` as images ``(B T, C, H, W)``; images are unchanged."""
    return clip.transpose(1, 2).flatten(0, 1) if clip.dim() == 5 else clip


def zero(*nets: nn.Module) -> Tensor:
    """Zero, with a gradient of zero for every parameter: the loss of no clips."""
    return torch.stack([p.sum() * 0.0 for net in nets for p in net.parameters()]).sum()


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean of each clip's values, ``(B,)``; zero where all weights are zero."""
    return (weight * values).flatten(1).sum(1) / weight.expand_as(values).flatten(1).sum(1).clamp_min(1e-6)


def mean_or_zero(each: Tensor | None, *nets: nn.Module) -> Tensor:
    """The mean of a loss over the clips of all processes; ``each`` is None if this process has no clip for these networks."""
    if each is None:
        return masked_mean(torch.zeros(0, device=next(nets[0].parameters()).device)) + zero(*nets)
    return masked_mean(each)


def discriminator_loss(discriminator: nn.Module | None, real: Tensor, generated: Tensor | None) -> Tensor:
    """Half the adversarial term of real images (target 1), plus half that of generated images (target 0)."""
    assert discriminator is not None
    found = []
    for clip, is_real in ((real if len(real) else None, True), (generated, False)):
        each = None if clip is None else adversarial(discriminator(frames(clip)), is_real, per_sample=True)
        found.append(mean_or_zero(each, discriminator))
    return 0.5 * (found[0] + found[1])


def generator_adversarial_loss(discriminator: nn.Module | None, generated: Tensor | None, generator: nn.Module) -> Tensor:
    """The adversarial term of generated images (target 1); the discriminator's parameters get no gradient."""
    assert discriminator is not None
    if generated is None:
        return mean_or_zero(None, generator)
    detached = {k: v.detach() for k, v in discriminator.named_parameters()}
    predicted = functional_call(discriminator, detached, (frames(generated),))
    return mean_or_zero(adversarial(predicted, True, per_sample=True), generator)
