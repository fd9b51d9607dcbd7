"""What a picture translator is trained by: adversarial, cycle and identity terms."""

from __future__ import annotations

from torch import Tensor

from modalift.losses.precision import full_precision


@full_precision
def adversarial(prediction: Tensor, real: bool) -> Tensor:
    r"""Least-squares adversarial term: :math:`\overline{(D(x) - t)^2}` with t = 1 for real, 0 for made pictures.

    A discriminator adds the two, each by half; a generator asks for ``real=True`` of what it made.

    Shapes: any; returns a scalar. Source: Mao et al., *Least squares generative adversarial networks*, ICCV 2017.

    Example:
        >>> import torch
        >>> adversarial(torch.ones(1, 1, 4, 4), real=True).item()
        0.0
    """
    return (prediction - float(real)).square().mean()


@full_precision
def cycle_consistency(picture: Tensor, returned: Tensor) -> Tensor:
    r"""There and back again: :math:`\overline{|G_{BA}(G_{AB}(x)) - x|}` (usual weight 10).

    Source: Zhu et al., *Unpaired image-to-image translation*, ICCV 2017, equation 2.
    """
    return (returned - picture).abs().mean()


@full_precision
def identity_mapping(picture: Tensor, translated: Tensor) -> Tensor:
    r"""A picture that is of the target sensor already stays: :math:`\overline{|G_{AB}(y) - y|}` (usual weight 5).

    Source: Zhu et al., *Unpaired image-to-image translation*, ICCV 2017, section 5.2.
    """
    return (translated - picture).abs().mean()
