"""MGCAM: cross-attention between two networks' graphs over the batch, and the distance of the maps that it mixes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from modalift.errors import ModaliftError
from modalift.losses.attention_transfer import attention
from modalift.losses.full_precision import full_precision
from modalift.losses.maps import as_clip, common_extents, flattened, pooled

Sigma = float | Literal["median"]


def batch_graph(feature_map: Tensor, sigma: Sigma = 1.0) -> Tensor:
    r"""A network's graph over the clips of a batch at one stage (equations 1 and 2): ``(B, ...)`` to Q, ``(B, B)``.

    .. math:: E_{mn} = \exp\Big(-\frac{\overline{(f_m - f_n)^2}}{2\sigma^2}\Big), \qquad Q = D^{-1/2} E D^{-1/2}

    where D holds the row sums of E. The squared distance is a *mean* over the elements of the map: with the printed sum, E is
    practically the identity on any real map. The features' mean over the batch is subtracted first, which changes no distance
    and keeps the products accurate. With ``sigma="median"``, :math:`\sigma^2` is the median squared distance of two clips of
    the batch, without gradient.
    """
    rows, = flattened(as_clip(feature_map))
    return _normalized(_edges(rows, rows, sigma))


def _edges(one: Tensor, other: Tensor, sigma: Sigma) -> Tensor:
    """Equation 1 between the rows ``(B, N)`` of two matrices, which may be the same one."""
    a = one - one.mean(0, keepdim=True)
    b = a if one is other else other - one.mean(0, keepdim=True)  # avoids a second copy
    gram = a @ b.T
    mine, theirs = (gram.diagonal(),) * 2 if one is other else (x.square().sum(1) for x in (a, b))
    distance = (mine.unsqueeze(1) + theirs.unsqueeze(0) - 2 * gram).clamp_min(0) / a.shape[1]
    if sigma != "median":
        return torch.exp(-distance / (2 * sigma**2))
    between = distance.detach()[~torch.eye(len(a), dtype=torch.bool, device=a.device)]
    width = between.median() if len(between) else distance.new_zeros(())
    return torch.exp(-distance / (2 * torch.where(width > 0, width, torch.ones_like(width))))


def _normalized(edges: Tensor) -> Tensor:
    """Equation 2."""
    root = edges.sum(1).rsqrt()
    return root.unsqueeze(1) * edges * root.unsqueeze(0)


@full_precision
def cross_graphs(student_map: Tensor, teacher_map: Tensor, sigma: Sigma = 1.0) -> tuple[Tensor, Tensor]:
    """Equations 1 and 2 as printed: Q of the student's clips against the teacher's, and of the teacher's against the student's.

    The edges are those between the two networks' maps, ``(B, N)`` or ``(B, C, T, H, W)`` of one shape; each side's graph has
    its own clips in the rows. For equal maps both are :func:`batch_graph`.
    """
    own, other = flattened(student_map, teacher_map) if student_map.dim() == 5 else (student_map, teacher_map)
    edges = _edges(own, other, sigma)
    return _normalized(edges), _normalized(edges.T)


@full_precision
def cross_attention(student_graph: Tensor, teacher_graph: Tensor, temperature: float | None = None) -> Tensor:
    r"""Equation 3: :math:`A = \mathrm{softmax}_{rows}(Q^S Q^{T\top} / \tau)`; :math:`\tau = \sqrt B` unless given."""
    return torch.softmax(student_graph @ teacher_graph.T / (temperature or len(student_graph) ** 0.5), 1)


@full_precision
def fused_difference(attention_weights: Tensor, student_map: Tensor, teacher_map: Tensor, residual: bool = False) -> Tensor:
    r"""Equations 4 to 6 for one pair of stages: :math:`\overline{(A F^S - A F^T)^2}`, for each clip ``(B,)``.

    The mixture is linear, so this is the squared norm of the mixed differences D: with :math:`G = D D^\top`, the diagonal of
    :math:`A G A^\top`, without computing mixed maps. With ``residual`` A becomes A + I.
    """
    own, other = flattened(student_map, teacher_map) if student_map.dim() == 5 else (student_map, teacher_map)
    difference = own - other
    mix = attention_weights + torch.eye(len(own), dtype=own.dtype, device=own.device) if residual else attention_weights
    return ((mix @ (difference @ difference.T)) * mix).sum(1).clamp_min(0) / difference.shape[1]


def graph_attention(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor],
                    project: Callable[[int, int, Tensor], Tensor] | None = None, *, sigma: Sigma = 1.0,
                    temperature: float | None = None, residual: bool = False, graph: Literal["own", "cross"] = "own",
                    pairs: Literal["all", "same"] = "all") -> Tensor:
    r"""Multi-scale graph cross-attention (MGCAM).

    .. math:: L = \frac1k \sum_{i,j=1}^{k} \overline{\big(W_i^S - W_j^T\big)^2}, \qquad
              W_i^S = A_{ij} P_{ij}(F_i^S), \quad W_j^T = A_{ij} F_j^T

    where :math:`A_{ij}` is :func:`cross_attention` of the :func:`batch_graph` of the student's stage i and of the
    teacher's stage j, and :math:`P_{ij}` projects the student's map to the teacher's channels; the larger of two maps is
    average-pooled to the smaller one's extents before. Each stage's graph is built once. Without ``project`` there are no
    parameters: both maps are replaced by their attention maps (:func:`~modalift.losses.attention_transfer.attention`).

    **As printed the loss mainly compares batch means.** Entries of Q are at most 1 and are divided by :math:`\sqrt B`, so
    every row of A is nearly uniform, and A removes nearly all differences between clips: with a batch of 8 the share of a
    sample's own gradient was measured as .000 (plain squared error: .87). A ``temperature`` of .1 with ``sigma`` .3 restores
    .87, ``residual`` .30. The defaults are the paper's.

    Args:
        student_maps, teacher_maps: k maps each, ``(B, C, T, H, W)`` or ``(B, C, H, W)``, first stages first.
        project: ``(i, j, map) -> map`` with the channels of the teacher's stage j (from 0); None: see above.
        sigma: width of the graphs' Gaussian, for features of about unit size; ``median``: see :func:`batch_graph`.
        temperature: :math:`\tau` of :func:`cross_attention`; None: :math:`\sqrt B`.
        residual: whether a mixed map also keeps the map that it was made of.
        graph: ``own``: one graph per stage of each network; ``cross``: one per pair of stages, between the two maps that are
            compared, as equation 1 is printed (:func:`cross_graphs`).
        pairs: ``all`` pairs of stages, or only stages of the ``same`` depth.

    Returns a scalar. Its value depends on the size of the batch: in the limit of a batch of one it is the plain squared
    error.

    Raises:
        ModaliftError: different numbers of stages, or of clips.

    Source: MGCAM+DKD, equations 1 to 6; the printed equation 1 subtracts the teacher's features from the student's, but
    equations 2 and 3 have one graph of each. Squared distances after Wang et al. and Liu et al. (SAKDN), as means.

    Example:
        >>> x = [torch.rand(4, 3, 1, 4, 4)]
        >>> graph_attention(x, x).item()
        0.0
    """
    if len(student_maps) != len(teacher_maps):
        raise ModaliftError(f"graph_attention: {len(student_maps)} stages of the student against {len(teacher_maps)} of the "
                            "teacher - name as many of each")
    clips = {len(m) for m in (*student_maps, *teacher_maps)}
    if len(clips) > 1:
        raise ModaliftError(f"graph_attention: maps of {sorted(clips)} clips - all must be of the same clips")
    with torch.autocast(student_maps[0].device.type, enabled=False):
        own = [as_clip(m).to(torch.promote_types(m.dtype, torch.float32)) for m in student_maps]
        shown = [as_clip(m).detach().to(torch.promote_types(m.dtype, torch.float32)) for m in teacher_maps]
        graphs = [[batch_graph(m, sigma) for m in maps] for maps in (own, shown)] if graph == "own" else []

    seen: dict[tuple[int, tuple[int, int, int]], Tensor] = {}

    def shrunk(feature_map: Tensor, extents: tuple[int, int, int]) -> Tensor:
        """The map at these extents, or its attention map, computed once for all pairs of stages."""
        key = (id(feature_map), extents)
        if key not in seen:
            small = pooled(feature_map, extents)
            seen[key] = attention(small) if project is None else small
        return seen[key]

    terms = []
    for i, a in enumerate(own):
        for j, b in enumerate(shown):
            if pairs == "same" and i != j:
                continue
            grid = common_extents(a, b)
            small = shrunk(a, grid) if project is None else project(i, j, shrunk(a, grid))
            both = (graphs[0][i], graphs[1][j]) if graphs else cross_graphs(small, shrunk(b, grid), sigma)
            weights = cross_attention(*both, temperature)
            terms.append(fused_difference(weights, small, shrunk(b, grid), residual).mean())
    return torch.stack(terms).sum() / len(own)
