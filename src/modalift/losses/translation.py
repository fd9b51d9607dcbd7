"""Losses of image translation: adversarial, cycle and identity terms."""

from __future__ import annotations

from torch import Tensor

from modalift.losses.full_precision import full_precision


@full_precision
def adversarial(prediction: Tensor, real: bool, *, per_sample: bool = False) -> Tensor:
    r"""Least-squares adversarial term: :math:`\overline{(D(x) - t)^2}` with t = 1 for real, 0 for generated images.

    A discriminator's loss is half the sum of both; a generator's has ``real=True`` for its images.

    Shapes: ``(B, ...)``; returns a scalar, or ``(B,)`` with ``per_sample``. Source: Mao et al., *Least squares generative
    adversarial networks*, ICCV 2017.

    Example:
        >>> import torch
        >>> adversarial(torch.ones(1, 1, 4, 4), real=True).item()
        0.0
    """
    return _mean((prediction - float(real)).square(), per_sample)


@full_precision
def cycle_consistency(image: Tensor, returned: Tensor, *, per_sample: bool = False) -> Tensor:
    r"""Cycle consistency: :math:`\overline{|G_{BA}(G_{AB}(x)) - x|}` (usual weight 10).

    Source: Zhu et al., *Unpaired image-to-image translation*, ICCV 2017, equation 2.
    """
    return _mean((returned - image).abs(), per_sample)


@full_precision
def identity_mapping(image: Tensor, translated: Tensor, *, per_sample: bool = False) -> Tensor:
    r"""Identity mapping of an image of the target sensor: :math:`\overline{|G_{AB}(y) - y|}` (usual weight 5).

    Source: Zhu et al., *Unpaired image-to-image translation*, ICCV 2017, section 5.2.
    """
    return _mean((translated - image).abs(), per_sample)


def _mean(values: Tensor, per_sample: bool) -> Tensor:
    return values.flatten(1).mean(1) if per_sample else values.mean()
