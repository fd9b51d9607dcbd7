"""The translator: a generator learns to show what one sensor saw as another would have; it ships, for `derive pseudo_ir`."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.losses import cycle_consistency, identity_mapping, relation_consistency
from modalift.modalities import Batch
from modalift.networks import Recognizer, Translator
from modalift.networks.translator import PatchJudge
from modalift.schemes.judging import Pool, belief, frames, nothing, told, verdict, weighted_mean
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, Update, joint
from modalift.signatures import Count, NonNegative, Share


@scheme("translator")
class Translation(Scheme):
    r"""A picture translator between two sensors, from pairs or from pictures that nobody paired.

    Paired (pix2pix), with the generator G from a to b, its judge D and weights v of the picture's points:

    .. math:: L_G = w_d \overline{v\,|G(a) - b|} + w_a \overline{(D(a, G(a)) - 1)^2}, \qquad
              L_D = \tfrac12 \overline{(D(a, b) - 1)^2} + \tfrac12 \overline{D(a, G(a))^2}

    where v is 1 + ``person`` on a person and 1 elsewhere, divided by its mean: where ``mask`` says so or, without one,
    where b is above the ``warm`` quantile of its frame. Unpaired (SDA), with H from b to a, and judges of either side:

    .. math::
        L_{G,H} &= w_a [\overline{(D_b(G(a)) - 1)^2} + \overline{(D_a(H(b)) - 1)^2}]
        + w_c [\overline{|H(G(a)) - a|} + \overline{|G(H(b)) - b|}] \\
        &+ w_i [\overline{|G(b) - b|} + \overline{|H(a) - a|}] + w_r L_{rc}(E_b(G(a)), E_a(a))

    where :math:`L_{rc}` is :func:`~modalift.losses.relation_consistency` of the identities (the labels) of a, seen by two
    frozen encoders; it spans the clips of all processes, and how many these were is logged. All pictures are compared on a
    scale on which their sensor's range is -1 .. 1. The generators and the judges are two updates, ``generator`` and
    ``judge``: in that order unpaired, the judge first paired, as published.

    Args:
        generator: G; the network that ships.
        back: H (unpaired only); it reads the target view, and stays at home, as judges do.
        source_encoder, target_encoder: :math:`E_a, E_b`, made by `identity_encoder`; without them there is no such term.
        mode: ``paired`` or ``unpaired``.
        target: the view of b; by default that which ``back`` reads, else the name of the modality that G gives.
        draw, deceive, cycle, identity, relation: :math:`w_d, w_a, w_c, w_i, w_r`; with pairs and ``deceive=0`` there is no
            judge, and distances alone teach.
        person, warm, mask: see above; ``mask`` is a view whose readings above 0 mark the person.
        ndf, layers: width and depth of the judges; three layers look at 70 x 70 pixels.
        pool: how many earlier pictures a judge remembers (unpaired).

    Source: MTCD, section 4.1; Ge et al., *Structured domain adaptation*, 2020, with the weights of its public code; Zhu et
    al., ICCV 2017; Isola et al., CVPR 2017. Deviations: the paired mode, which MTCD's "paired supervision" may mean; the
    least-squares judge where pix2pix has cross-entropy; instance instead of batch normalization and a residual generator
    there too; weights on the person; pictures for the judge are made anew after the generators' step.
    """

    frozen_roles = ("source_encoder", "target_encoder")
    labels_teach = False
    examples = ({"layers": 2, "ndf": 8, "person": 2.0}, {"mode": "unpaired", "layers": 2, "ndf": 8, "pool": 0})
    batch_relation = "compares all pairs of clips in a batch"

    def __init__(self, generator: Translator, back: Translator | None = None, source_encoder: Recognizer | None = None,
                 target_encoder: Recognizer | None = None, *, mode: Literal["paired", "unpaired"] = "paired", target: str = "",
                 draw: NonNegative = 100.0, deceive: NonNegative = 1.0, cycle: NonNegative = 10.0, identity: NonNegative = 5.0,
                 relation: NonNegative = 1.0, person: NonNegative = 0.0, warm: Share = 0.9, mask: str = "", ndf: Count = 64,
                 layers: Count = 3, pool: Annotated[int, Ge(0)] = 50) -> None:
        super().__init__()
        paired = mode == "paired"
        if paired == (back is not None):
            raise ModaliftError(f"scheme.mode = {mode} {'takes no' if paired else 'needs a'} network in the role 'back' -"
                                f" {'remove networks.back' if paired else 'add networks.back, which reads the target view'}")
        if (source_encoder is None) != (target_encoder is None) or (paired and source_encoder is not None):
            raise ModaliftError("scheme 'translator' takes two encoders or none, and only with mode=unpaired - see"
                                " networks.source_encoder and networks.target_encoder")
        self.generator, self.back, self.paired = generator, back, paired
        self.target = target or (back.view if back is not None else generator.target)
        self.source_encoder, self.target_encoder = source_encoder, target_encoder
        for role, net, view in (("back", back, self.target), ("source_encoder", source_encoder, generator.view),
                                ("target_encoder", target_encoder, self.target)):
            if net is not None and net.view != view:
                raise ModaliftError(f"networks.{role} reads '{net.view}' - it must read '{view}'")
        if self.target == generator.view:
            raise ModaliftError(f"scheme.target = {self.target} is what the generator reads - name another sensor's view")
        if back is not None and back.target != generator.modality:
            raise ModaliftError(f"networks.back gives '{back.target}' - set networks.back.target={generator.modality}")
        self.weights = {"draw": draw, "deceive": deceive, "cycle": cycle, "identity": identity, "relation": relation}
        self.person, self.warm, self.mask = person, warm, mask
        self.judge = None if paired and not deceive else PatchJudge(
            generator.given.channels + (generator.channels if paired else 0), ndf, layers)
        if back is not None:
            self.back_judge = PatchJudge(back.given.channels, ndf, layers)
            self.pool, self.back_pool = (Pool(pool, n.given.channels, n.size) for n in (generator, back))
        self.relates_batch = source_encoder is not None

    @property
    def students(self) -> dict[str, Translator]:
        return {"generator": self.generator}

    @property
    def parts(self) -> dict[str, nn.Module]:
        named = {"judge": self.judge, "back_judge": None if self.paired else self.back_judge}
        return {k: m for k, m in named.items() if m is not None}

    @property
    def idle(self) -> dict[str, str]:
        if self.paired:
            return dict.fromkeys(("cycle", "identity", "relation", "pool"), "with mode=paired") | (
                {"warm": "with a mask, which says where the person is"} if self.mask else {})
        return dict.fromkeys(("draw", "person", "warm", "mask"), "with mode=unpaired") | (
            {"relation": "without networks.source_encoder and networks.target_encoder"} if self.source_encoder is None else {})

    def evaluation_views(self, role: str) -> tuple[str, ...]:
        return (self.generator.view, self.target)

    def needs(self) -> set[str]:
        return {self.generator.view, self.target, *([self.mask] if self.mask else [])}

    def updates(self) -> list[Update]:
        if self.judge is None:
            return [Update("generator", ("generator",))]
        if self.paired:
            return [Update("judge", ("judge",)), Update("generator", ("generator",))]
        return [Update("generator", ("generator", "back")), Update("judge", ("judge", "back_judge"))]

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        both = tuple(u.name for u in self.updates()) if progress.update == "all" else (progress.update,)
        terms: Terms = {}
        for update in both:
            terms |= self.pairs(batch, update) if self.paired else self.loose(batch, update)
        return terms

    # ---- pairs ------------------------------------------------------------------------------------------------------

    def pairs(self, batch: Batch, update: str) -> Terms:
        net, source, target = self.generator, self.generator.view, self.target
        rows = seen(batch, *sorted(self.needs()))
        a, b = batch.clips[source][rows], net.standard(batch.clips[target][rows])
        if a.shape[2:] != b.shape[2:]:
            raise ModaliftError(f"clips of '{source}' are {tuple(a.shape[2:])}, of '{target}' {tuple(b.shape[2:])} (T, H, W)"
                                " - pairs must be framed alike; remove data.per_view")
        shown = net.prepare(a)
        if update == "judge":
            with torch.no_grad():
                made = torch.cat([shown, net.standard(net(a))], 1) if len(a) else None
            return {f"judge/{target}+generator>judge": (1.0, verdict(self.judge, torch.cat([shown, b], 1), made))}
        drawn = net.standard(net(a)) if len(a) else None
        v = self.importance(batch, rows, b)
        each = None if drawn is None else weighted_mean((drawn - b).abs(), v)
        terms = {f"draw/{target}>generator": (self.weights["draw"], told(each, net))}
        if self.judge is not None:
            judged = None if drawn is None else torch.cat([shown, drawn], 1)
            terms["deceive/judge>generator"] = (self.weights["deceive"], belief(self.judge, judged, net))
        return terms

    def importance(self, batch: Batch, rows: Tensor, b: Tensor) -> Tensor:
        """Weight of every point, ``(B, 1, T, H, W)``: heavier on a person, zero where the target has no reading."""
        v = torch.ones_like(b[:, :1])
        if self.mask:
            v = v + self.person * (batch.clips[self.mask][rows].amax(1, keepdim=True) > 0)
        elif self.person and len(b):
            warmth = b.mean(1, keepdim=True)
            v = v + self.person * (warmth > warmth.flatten(3).quantile(self.warm, 3)[..., None, None])
        return v * batch.valid[self.target][rows] if self.target in batch.valid else v

    # ---- no pairs ---------------------------------------------------------------------------------------------------

    def loose(self, batch: Batch, update: str) -> Terms:
        there, back, w = self.generator, self.back, self.weights
        assert back is not None
        source, target = there.view, self.target
        of_a = seen(batch, source)
        a, b = batch.clips[source][of_a], batch.clips[target][seen(batch, target)]
        real_a, real_b = back.standard(a), there.standard(b)
        if update == "judge":
            with torch.no_grad():
                made_b = self.pool(frames(there.standard(there(a)))) if len(a) else None
                made_a = self.back_pool(frames(back.standard(back(b)))) if len(b) else None
            return {f"judge/{target}+generator>judge": (1.0, verdict(self.judge, real_b, made_b)),
                    f"judge/{source}+back>back_judge": (1.0, verdict(self.back_judge, real_a, made_a))}
        made_b, made_a = there(a) if len(a) else None, back(b) if len(b) else None
        as_b, as_a = (None if m is None else n.standard(m) for m, n in ((made_b, there), (made_a, back)))
        cycle_a = None if made_b is None else cycle_consistency(real_a, back.standard(back(made_b)), per_sample=True)
        cycle_b = None if made_a is None else cycle_consistency(real_b, there.standard(there(made_a)), per_sample=True)
        same_a = identity_mapping(real_a, back.standard(back(back.recast(a))), per_sample=True) if len(a) else None
        same_b = identity_mapping(real_b, there.standard(there(there.recast(b))), per_sample=True) if len(b) else None
        terms = {
            "deceive/judge>generator": (w["deceive"], belief(self.judge, as_b, there)),
            "deceive/back_judge>back": (w["deceive"], belief(self.back_judge, as_a, back)),
            f"cycle/{source}>generator+back": (w["cycle"], told(cycle_a, there, back)),
            f"cycle/{target}>generator+back": (w["cycle"], told(cycle_b, there, back)),
            f"identity/{target}>generator": (w["identity"], told(same_b, there)),
            f"identity/{source}>back": (w["identity"], told(same_a, back))}
        if self.source_encoder is not None:
            consistency, clips = self.relation(made_b, a, batch.labels[of_a])
            terms["relation/source_encoder+target_encoder>generator"] = (w["relation"], consistency)
            terms["clips/source_encoder+target_encoder>generator"] = (0.0, consistency.new_tensor(float(clips)))
        return terms

    def relation(self, made: Tensor | None, a: Tensor, identities: Tensor) -> tuple[Tensor, int]:
        """:math:`L_{rc}` over the labeled clips of all processes, zero where there are none; and how many these were."""
        before, after = self.source_encoder, self.target_encoder
        assert before is not None
        assert after is not None
        keep = identities >= 0
        if made is not None and bool(keep.any()):
            with torch.no_grad():
                was = embed(before, a[keep])
            now = embed(after, made[keep])
        else:  # the other processes still wait for this one's share, on the way back too: no rows, with a gradient of zero
            now, was = (a.new_zeros((0, n.stages[n.last_stage].channels), dtype=torch.float32) for n in (after, before))
            now = now + nothing(self.generator)
        now, was, who = joint(now), joint(was), joint(identities[keep] if len(now) else identities[:0])
        return nothing(self.generator) + (relation_consistency(now, was, who) if len(who) else 0.0), len(who)


# ---- the words of this scheme -------------------------------------------------------------------------------------------


def seen(batch: Batch, *views: str) -> Tensor:
    """Rows of the clips that all these sensors recorded."""
    for view in views:
        if view not in batch.clips:
            raise ModaliftError(f"the batch has no view '{view}' - its views: {', '.join(batch.clips) or 'none'}")
    return torch.stack([batch.present[v] for v in views]).all(0).nonzero().squeeze(1)


def embed(net: Recognizer, clip: Tensor) -> Tensor:
    """What a recognizer's deepest map says of each clip on average, ``(B, C)``."""
    return net.observe(clip, [net.last_stage]).maps[net.last_stage].flatten(2).mean(2)
