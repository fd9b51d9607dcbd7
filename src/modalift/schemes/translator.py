"""The translator: a generator of one sensor's images from another's; it is deployed by `derive pseudo_ir`."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.losses import cycle_consistency, identity_mapping, relation_consistency
from modalift.modalities import Batch
from modalift.networks import Recognizer, Translator
from modalift.networks.translator import PatchDiscriminator
from modalift.schemes.discriminators import (
    Pool,
    discriminator_loss,
    frames,
    generator_adversarial_loss,
    mean_or_zero,
    weighted_mean,
    zero,
)
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, Update, gather_across_ranks
from modalift.signatures import Count, NonNegative, Share


@scheme("translator")
class Translation(Scheme):
    r"""Image translation between two sensors, trained on paired or on unpaired images.

    Paired (pix2pix), with the generator G from a to b, its discriminator D and weights v of the pixels:

    .. math:: L_G = w_d \overline{v\,|G(a) - b|} + w_a \overline{(D(a, G(a)) - 1)^2}, \qquad
              L_D = \tfrac12 \overline{(D(a, b) - 1)^2} + \tfrac12 \overline{D(a, G(a))^2}

    where v is 1 + ``person_weight`` on a person and 1 elsewhere, divided by its mean. A person is where the ``mask_view`` is
    above 0 or, without one, where b is above the ``warm_quantile`` of its frame. Unpaired (SDA), with the generator H from b
    to a and one discriminator per sensor:

    .. math::
        L_{G,H} &= w_a [\overline{(D_b(G(a)) - 1)^2} + \overline{(D_a(H(b)) - 1)^2}]
        + w_c [\overline{|H(G(a)) - a|} + \overline{|G(H(b)) - b|}] \\
        &+ w_i [\overline{|G(b) - b|} + \overline{|H(a) - a|}] + w_r L_{rc}(E_b(G(a)), E_a(a))

    where :math:`L_{rc}` is :func:`~modalift.losses.relation_consistency` of the identities (the labels) of a, by the features
    of two frozen encoders; it spans the images of all processes, and their number is logged. All images are compared on a
    scale on which their sensor's range is -1 .. 1. A step has two updates, ``generator`` (of both generators) and
    ``discriminator`` (of both discriminators): in this order if unpaired, in the other if paired, as published.

    Args:
        generator: G; the network that is deployed.
        back: H (unpaired only); it reads the target view. Training only, as are the discriminators.
        source_encoder, target_encoder: :math:`E_a, E_b`, trained by `identity_encoder`, frozen; without them there is no
            :math:`L_{rc}`.
        mode: ``paired`` or ``unpaired``.
        target_view: the view of b; by default the view that ``back`` reads, else the name of the modality that G generates.
        l1_weight, adversarial_weight, cycle_weight, identity_weight, relation_weight: :math:`w_d, w_a, w_c, w_i, w_r`; in
            paired mode, ``adversarial_weight=0`` trains without a discriminator.
        person_weight, warm_quantile, mask_view: see above.
        ndf, discriminator_layers: channels of the first layer and number of layers of the discriminators; with three layers
            they see patches of 70 x 70 pixels.
        pool_size: number of earlier images that are shown to a discriminator again (unpaired).

    Source: MTCD, section 4.1; Ge et al., *Structured domain adaptation*, 2020, with the weights of its public code; Zhu et
    al., ICCV 2017; Isola et al., CVPR 2017. Deviations: the paired mode, which MTCD's "paired supervision" may mean; the
    least-squares discriminator where pix2pix has cross-entropy; instance instead of batch normalization and a residual
    generator there too; weights on the person; images for the discriminator are generated anew after the generators' update.
    """

    frozen_roles = ("source_encoder", "target_encoder")
    trains_on_labels = False
    examples = ({"discriminator_layers": 2, "ndf": 8, "person_weight": 2.0},
                {"mode": "unpaired", "discriminator_layers": 2, "ndf": 8, "pool_size": 0})
    batch_relation = "compares all pairs of clips in a batch"

    def __init__(self, generator: Translator, back: Translator | None = None, source_encoder: Recognizer | None = None,
                 target_encoder: Recognizer | None = None, *, mode: Literal["paired", "unpaired"] = "paired",
                 target_view: str = "", l1_weight: NonNegative = 100.0, adversarial_weight: NonNegative = 1.0,
                 cycle_weight: NonNegative = 10.0, identity_weight: NonNegative = 5.0, relation_weight: NonNegative = 1.0,
                 person_weight: NonNegative = 0.0, warm_quantile: Share = 0.9, mask_view: str = "", ndf: Count = 64,
                 discriminator_layers: Count = 3, pool_size: Annotated[int, Ge(0)] = 50) -> None:
        super().__init__()
        paired = mode == "paired"
        if paired == (back is not None):
            raise ModaliftError(f"scheme.mode = {mode} {'takes no' if paired else 'needs a'} network in the role 'back' -"
                                f" {'remove networks.back' if paired else 'add networks.back, which reads the target view'}")
        if (source_encoder is None) != (target_encoder is None) or (paired and source_encoder is not None):
            raise ModaliftError("scheme 'translator' takes two encoders or none, and only with mode=unpaired - see"
                                " networks.source_encoder and networks.target_encoder")
        self.generator, self.back, self.paired = generator, back, paired
        self.target_view = target_view or (back.view if back is not None else generator.target)
        self.source_encoder, self.target_encoder = source_encoder, target_encoder
        self.check_views()
        self.l1_weight, self.adversarial_weight, self.cycle_weight = l1_weight, adversarial_weight, cycle_weight
        self.identity_weight, self.relation_weight = identity_weight, relation_weight
        self.person_weight, self.warm_quantile, self.mask_view = person_weight, warm_quantile, mask_view
        self.discriminator = None if paired and not adversarial_weight else PatchDiscriminator(
            generator.output_modality.channels + (generator.channels if paired else 0), ndf, discriminator_layers)
        if back is not None:
            self.back_discriminator = PatchDiscriminator(back.output_modality.channels, ndf, discriminator_layers)
            self.pool, self.back_pool = (Pool(pool_size, n.output_modality.channels, n.size) for n in (generator, back))
        self.relates_batch = source_encoder is not None

    def check_views(self) -> None:
        """Raises a ModaliftError for a network that reads or generates another view than its role asks for."""
        source, target = self.generator.view, self.target_view
        for role, net, view in (("back", self.back, target), ("source_encoder", self.source_encoder, source),
                                ("target_encoder", self.target_encoder, target)):
            if net is not None and net.view != view:
                raise ModaliftError(f"networks.{role} reads '{net.view}' - it must read '{view}'")
        if target == source:
            raise ModaliftError(f"scheme.target_view = {target} is what the generator reads - name another sensor's view")
        if self.back is not None and self.back.target != self.generator.modality:
            raise ModaliftError(f"networks.back gives '{self.back.target}' - set"
                                f" networks.back.target={self.generator.modality}")

    @property
    def students(self) -> dict[str, Translator]:
        return {"generator": self.generator}

    @property
    def training_only_modules(self) -> dict[str, nn.Module]:
        named = {"discriminator": self.discriminator, "back_discriminator": None if self.paired else self.back_discriminator}
        return {k: m for k, m in named.items() if m is not None}

    @property
    def unused_settings(self) -> dict[str, str]:
        if self.paired:
            return dict.fromkeys(("cycle_weight", "identity_weight", "relation_weight", "pool_size"), "with mode=paired") | (
                {"warm_quantile": "with a mask_view, which says where the person is"} if self.mask_view else {})
        unpaired = dict.fromkeys(("l1_weight", "person_weight", "warm_quantile", "mask_view"), "with mode=unpaired")
        return unpaired | ({"relation_weight": "without networks.source_encoder and networks.target_encoder"}
                           if self.source_encoder is None else {})

    def evaluation_views(self, role: str) -> tuple[str, ...]:
        return (self.generator.view, self.target_view)

    def required_views(self) -> set[str]:
        return {self.generator.view, self.target_view, *([self.mask_view] if self.mask_view else [])}

    def updates(self) -> list[Update]:
        if self.discriminator is None:
            return [Update("generator", ("generator",))]
        if self.paired:
            return [Update("discriminator", ("discriminator",)), Update("generator", ("generator",))]
        return [Update("generator", ("generator", "back")), Update("discriminator", ("discriminator", "back_discriminator"))]

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        updates = tuple(u.name for u in self.updates()) if progress.update == "all" else (progress.update,)
        terms: Terms = {}
        for update in updates:
            terms |= self.paired_terms(batch, update) if self.paired else self.unpaired_terms(batch, update)
        return terms

    # ---- paired images --------------------------------------------------------------------------------------------------

    def paired_terms(self, batch: Batch, update: str) -> Terms:
        net, source, target = self.generator, self.generator.view, self.target_view
        rows = rows_with(batch, *sorted(self.required_views()))
        a, b = batch.clips[source][rows], net.standard(batch.clips[target][rows])
        if a.shape[2:] != b.shape[2:]:
            raise ModaliftError(f"clips of '{source}' are {tuple(a.shape[2:])}, of '{target}' {tuple(b.shape[2:])} (T, H, W)"
                                " - pairs must be framed alike; remove data.per_view")
        given = net.prepare(a)
        if update == "discriminator":
            with torch.no_grad():
                generated = torch.cat([given, net.standard(net(a))], 1) if len(a) else None
            loss = discriminator_loss(self.discriminator, torch.cat([given, b], 1), generated)
            return {f"discriminator/{target}+generator>discriminator": (1.0, loss)}
        generated = net.standard(net(a)) if len(a) else None
        v = self.pixel_weights(batch, rows, b)
        l1 = None if generated is None else weighted_mean((generated - b).abs(), v)
        terms = {f"l1/{target}>generator": (self.l1_weight, mean_or_zero(l1, net))}
        if self.discriminator is not None:
            conditioned = None if generated is None else torch.cat([given, generated], 1)
            loss = generator_adversarial_loss(self.discriminator, conditioned, net)
            terms["adversarial/discriminator>generator"] = (self.adversarial_weight, loss)
        return terms

    def pixel_weights(self, batch: Batch, rows: Tensor, b: Tensor) -> Tensor:
        """v before its division, ``(B, 1, T, H, W)``: larger on a person, zero where the target has no reading."""
        v = torch.ones_like(b[:, :1])
        if self.mask_view:
            v = v + self.person_weight * (batch.clips[self.mask_view][rows].amax(1, keepdim=True) > 0)
        elif self.person_weight and len(b):
            warmth = b.mean(1, keepdim=True)
            v = v + self.person_weight * (warmth > warmth.flatten(3).quantile(self.warm_quantile, 3)[..., None, None])
        return v * batch.valid[self.target_view][rows] if self.target_view in batch.valid else v

    # ---- unpaired images ------------------------------------------------------------------------------------------------

    def unpaired_terms(self, batch: Batch, update: str) -> Terms:
        G, H = self.generator, self.back
        assert H is not None
        source, target = G.view, self.target_view
        rows_of_a = rows_with(batch, source)
        a, b = batch.clips[source][rows_of_a], batch.clips[target][rows_with(batch, target)]
        real_a, real_b = H.standard(a), G.standard(b)
        if update == "discriminator":
            with torch.no_grad():
                fake_b = self.pool(frames(G.standard(G(a)))) if len(a) else None
                fake_a = self.back_pool(frames(H.standard(H(b)))) if len(b) else None
            loss_b = discriminator_loss(self.discriminator, real_b, fake_b)
            loss_a = discriminator_loss(self.back_discriminator, real_a, fake_a)
            return {f"discriminator/{target}+generator>discriminator": (1.0, loss_b),
                    f"discriminator/{source}+back>back_discriminator": (1.0, loss_a)}
        made_b, made_a = G(a) if len(a) else None, H(b) if len(b) else None  # in the sensors' units
        fake_b, fake_a = (None if m is None else net.standard(m) for m, net in ((made_b, G), (made_a, H)))
        cycle_a = None if made_b is None else cycle_consistency(real_a, H.standard(H(made_b)), per_sample=True)
        cycle_b = None if made_a is None else cycle_consistency(real_b, G.standard(G(made_a)), per_sample=True)
        same_a = identity_mapping(real_a, H.standard(H(H.recast(a))), per_sample=True) if len(a) else None
        same_b = identity_mapping(real_b, G.standard(G(G.recast(b))), per_sample=True) if len(b) else None
        adversarial_b = generator_adversarial_loss(self.discriminator, fake_b, G)
        adversarial_a = generator_adversarial_loss(self.back_discriminator, fake_a, H)
        terms = {
            "adversarial/discriminator>generator": (self.adversarial_weight, adversarial_b),
            "adversarial/back_discriminator>back": (self.adversarial_weight, adversarial_a),
            f"cycle/{source}>generator+back": (self.cycle_weight, mean_or_zero(cycle_a, G, H)),
            f"cycle/{target}>generator+back": (self.cycle_weight, mean_or_zero(cycle_b, G, H)),
            f"identity/{target}>generator": (self.identity_weight, mean_or_zero(same_b, G)),
            f"identity/{source}>back": (self.identity_weight, mean_or_zero(same_a, H))}
        if self.source_encoder is not None:
            relation, images = self.relation(made_b, a, batch.labels[rows_of_a])
            terms["relation/source_encoder+target_encoder>generator"] = (self.relation_weight, relation)
            terms["batch_clips/source_encoder+target_encoder>generator"] = (0.0, relation.new_tensor(float(images)))
        return terms

    def relation(self, made_b: Tensor | None, a: Tensor, identities: Tensor) -> tuple[Tensor, int]:
        """:math:`L_{rc}` over the labeled images of all processes, zero if there are none; and their number."""
        E_a, E_b = self.source_encoder, self.target_encoder
        assert E_a is not None
        assert E_b is not None
        keep = identities >= 0
        if made_b is not None and bool(keep.any()):
            with torch.no_grad():
                original = embedding(E_a, a[keep])
            translated = embedding(E_b, made_b[keep])
        else:  # no rows, but with a gradient: the other processes wait for this one's part, in the backward pass too
            translated, original = (a.new_zeros((0, net.stages[net.last_stage].channels), dtype=torch.float32)
                                    for net in (E_b, E_a))
            translated = translated + zero(self.generator)
        people = gather_across_ranks(identities[keep] if len(translated) else identities[:0])
        translated, original = gather_across_ranks(translated), gather_across_ranks(original)
        loss = relation_consistency(translated, original, people) if len(people) else 0.0
        return zero(self.generator) + loss, len(people)


def rows_with(batch: Batch, *views: str) -> Tensor:
    """Rows of the clips that all these sensors recorded."""
    for view in views:
        if view not in batch.clips:
            raise ModaliftError(f"the batch has no view '{view}' - its views: {', '.join(batch.clips) or 'none'}")
    return torch.stack([batch.present[v] for v in views]).all(0).nonzero().squeeze(1)


def embedding(net: Recognizer, clip: Tensor) -> Tensor:
    """The mean of a recognizer's deepest map for each clip, ``(B, C)``."""
    return net.observe(clip, [net.last_stage]).maps[net.last_stage].flatten(2).mean(2)
