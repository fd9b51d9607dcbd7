"""The translator as a trained model: one sensor in, images of another out; evaluated by their similarity to real ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from modalift.errors import ModaliftError
from modalift.loading.clips import ClipSet
from modalift.loading.collation import loader
from modalift.modalities import Table
from modalift.models.image_similarity import edge_correlation, flicker, psnr, ssim
from modalift.models.model import SensorModel, model_kind
from modalift.models.result import Column, Evaluation


@model_kind
class TranslatorModel(SensorModel):
    """A :class:`~modalift.networks.Translator` with the framings of its input view and its target view.

    It has no classes. ``modalift derive pseudo_ir`` uses it.
    """

    kind = "translator"
    advice = "use it with `modalift derive pseudo_ir DATA OUT bundle=...`"
    output = "image"
    frame_by_frame = True
    headline = Column("ssim", "SSIM", "number3")
    columns = (Column("target", "target", "text"), Column("n", "clips", "count"), Column("psnr", "PSNR, dB", "number1"),
               headline, Column("edges", "edge correlation", "number3"), Column("flicker", "flicker", "number3"))

    @property
    def target_view(self) -> str:
        """The view whose recordings its images are compared with; empty where the model has none."""
        return next((view for view in self.framings if view != self.view), "")

    @property
    def output_metadata(self) -> dict[str, Any]:
        """The sensor that its images are of."""
        return {"target": asdict(self.network.output_modality)}

    def check_table(self, table: Table) -> None:
        if not self.target_view:
            raise ModaliftError(f"{self.name}: has no view of '{self.network.target}' that its images could be compared"
                                " with - write its images with `modalift derive pseudo_ir` and inspect them")
        if self.protocol.crops > 1:
            raise ModaliftError("protocol: a translator's images are not averaged over crops - set protocol.temporal_crops and"
                                " protocol.spatial_crops to 1")

    def validate(self, clips: ClipSet, *, workers: int = 0, device: torch.device | str = "cpu") -> dict[str, float]:
        return mean_figures(self.compare(clips, workers=workers, device=device))

    def evaluate(self, clips: ClipSet, *, workers: int = 0, device: torch.device | str = "cpu") -> Evaluation:
        found = self.compare(clips, workers=workers, device=device)
        return Evaluation({"kind": self.kind, **mean_figures(found), "target": self.target_view, "per_clip": found})

    @torch.no_grad()
    def compare(self, clips: ClipSet, *, workers: int = 0, device: torch.device | str = "cpu") -> list[dict[str, Any]]:
        """Compares the images of every clip that both sensors recorded with those of the target sensor.

        Returns:
            For each clip: its ``id``, ``psnr``, ``ssim``, ``edges``, ``l1`` (share of the target's range) and ``flicker``.
        """
        net, target = self.network.to(device).eval(), self.target_view
        low, span = float(net.middle - net.reach), float(2 * net.reach)
        found: list[dict[str, Any]] = []
        for batch in loader(clips, batch=4, shuffle=False, seed=0, epoch=0, workers=workers):
            rows = (batch.present[net.view] & batch.present[target]).nonzero().squeeze(1)
            if not len(rows):
                continue
            made = net(batch.clips[net.view][rows].to(device)).clamp(low, low + span).cpu().permute(0, 2, 3, 4, 1).numpy()
            real = batch.clips[target][rows].permute(0, 2, 3, 4, 1).numpy().astype(np.float32)
            known = batch.valid[target][rows].permute(0, 2, 3, 4, 1).numpy() if target in batch.valid else None
            for k, row in enumerate(rows):
                x, y = made[k], real[k]
                if known is not None:  # where the sensor had no reading, nothing is compared
                    x = np.where(known[k], x, y)
                found.append({"id": clips.table.rows[int(batch.index[row])].id, "psnr": psnr(x, y, span),
                              "ssim": ssim(x, y, span), "edges": edge_correlation(x, y),
                              "l1": float(np.abs(x - y).mean()) / span, "flicker": flicker(x / span, y / span)})
        clips.leave_out_unreadable()
        return found


def mean_figures(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over clips, with the number of clips ``n``; ``loss`` is the mean L1 distance, as training minimizes it."""
    moving = [f["flicker"] for f in found if f["flicker"] is not None]
    means = {k: float(np.mean([f[k] for f in found])) for k in ("psnr", "ssim", "edges", "l1")}
    return {"n": len(found), **means, "loss": means["l1"], "flicker": float(np.mean(moving)) if moving else None}
