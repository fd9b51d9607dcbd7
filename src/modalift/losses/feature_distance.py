"""MTCD's distance between the features of two networks."""

from __future__ import annotations

from torch import Tensor

from modalift.errors import ModaliftError
from modalift.losses.full_precision import full_precision
from modalift.losses.maps import same_grid


@full_precision
def feature_distance(own_map: Tensor, other_map: Tensor, *, per_sample: bool = False) -> Tensor:
    r"""Half the mean squared difference of two maps.

    .. math:: L_{kd} = \tfrac12\, \overline{\big(T_o(F_o) - T_s(F_s)\big)^2}

    where the transforms T are the identity for maps of one shape. Where grids differ, the larger is average-pooled to the
    smaller; where channels differ, the caller projects the learner's map (a trained projection of the target could make both
    zero).

    Shapes: ``(B, C, T, H, W)`` or ``(B, C, H, W)``, equal C; returns a scalar, or ``(B,)`` with ``per_sample``. The other
    map gets no gradient.

    Raises:
        ModaliftError: maps of different numbers of channels.

    Source: MTCD, equations 5 to 7. They print the norm of a pair, read as that of its difference. The mean is taken
    instead of the sum, because the weights of .9 and .3 are relative to a cross-entropy.

    Example:
        >>> import torch
        >>> x = torch.zeros(2, 4, 1, 2, 2)
        >>> feature_distance(x, x + 2).item()
        2.0
    """
    if own_map.shape[1] != other_map.shape[1]:
        raise ModaliftError(f"feature_distance: {own_map.shape[1]} channels against {other_map.shape[1]} - project the "
                            "learner's map to the other's channels first")
    own, other = same_grid(own_map, other_map.detach())
    each = 0.5 * (own - other).square().flatten(1).mean(1)
    return each if per_sample else each.mean()
