"""The recognizer as a trained model: one sensor in, class probabilities out. This is what is deployed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalift.loading.clips import ClipSet
from modalift.loading.collation import loader
from modalift.loading.recording import clips_of
from modalift.modalities import Batch, Table, Track
from modalift.models.metrics import score
from modalift.models.model import Model, SensorModel, model_kind
from modalift.models.prediction import Prediction
from modalift.models.predictions import Predictions
from modalift.models.result import Column, Evaluation

#: From a Batch to logits ``(B, K)``.
LogitsOf = Callable[[Batch], Tensor]


class ClassifierModel(Model):
    """Base of the kinds of model that predict classes, from one sensor or several."""

    headline = Column("top1", "top-1", "percent")
    columns = (
        Column("n", "clips", "count"), headline, Column("intervals.top1.clips", "95 % CI over clips", "interval"),
        Column("intervals.top1.subjects", "95 % CI over subjects", "interval"),
        Column("mean_class", "mean class accuracy", "percent"), Column("top5", "top-5", "percent"),
        Column("ece", "ECE", "percent"), Column("nll", "NLL", "number3"))

    @abstractmethod
    def logits_of(self, batch: Batch) -> Tensor:
        """Logits ``(B, K)`` of the clips of a batch."""

    def validation_clips(self, table: Table) -> Table:
        return self.evaluable(table).where(lambda row: row.label is not None)

    def predict_clips(self, clips: ClipSet, *, workers: int = 0, device: torch.device | str = "cpu") -> Predictions:
        """Predicts class probabilities of every clip, with its subject and numeric metadata; corrupt clips are left out."""
        self.network.to(device).eval()
        rows = [clips.table.rows[i] for i in clips.indices]
        found = probabilities(self.logits_of, clips, workers=workers, device=device)
        found = found[[row.id not in clips.unreadable for row in rows]]
        rows = [row for row in rows if row.id not in clips.unreadable]
        clips.leave_out_unreadable()
        names = {k for r in rows for k, v in r.metadata.items() if isinstance(v, float)}
        metadata = {n: np.array([r.metadata.get(n, np.nan) for r in rows], float) for n in sorted(names)}
        return Predictions(np.array([r.id for r in rows]), np.array([-1 if r.label is None else r.label for r in rows]),
                           np.array([r.subject for r in rows]), found.astype(np.float32), metadata)

    def validate(self, clips: ClipSet, *, workers: int = 0, device: torch.device | str = "cpu") -> dict[str, float]:
        found = self.predict_clips(clips, workers=workers, device=device)
        known = found.take(found.labels >= 0)
        chosen = known.probabilities[np.arange(len(known)), known.labels]
        recalls = [known.correct[known.labels == c].mean() for c in np.unique(known.labels)]
        return {"top1": float(known.correct.mean()), "mean_class": float(np.mean(recalls)),
                "loss": float(-np.log(np.clip(chosen, 1e-12, None)).mean())}

    def evaluate(self, clips: ClipSet, *, workers: int = 0, device: torch.device | str = "cpu") -> Evaluation:
        found = self.predict_clips(clips, workers=workers, device=device)
        return Evaluation(self.metrics_of(found, self.classes), found)

    @classmethod
    def metrics_of(cls, found: Predictions, classes: tuple[str, ...]) -> dict[str, Any]:
        """The metrics of predictions (e.g. of all folds, or of a mean of networks)."""
        return {"kind": cls.kind, **score(found.probabilities, found.labels, classes, subjects=found.subjects,
                                          metadata=dict(found.metadata))}


@torch.no_grad()
def probabilities(logits_of: LogitsOf, clips: ClipSet, *, batch: int = 32, workers: int = 0,
                  device: torch.device | str = "cpu") -> NDArray[Any]:
    """Class probabilities ``(N, K)`` of every clip: the mean over its temporal and spatial crops.

    The last batch may be smaller: a split is never padded.
    """
    each = clips.protocol.crops
    found = []
    for part in loader(clips, batch=max(1, batch // each) * each, shuffle=False, seed=0, epoch=0, workers=workers):
        logits = logits_of(part.to(device)).float()
        found.append(torch.softmax(logits, 1).reshape(-1, each, logits.shape[1]).mean(1).cpu().numpy())
    return np.concatenate(found)


@model_kind
class RecognizerModel(SensorModel, ClassifierModel):
    """A :class:`~modalift.networks.Recognizer` with its framing, protocol and class names.

    Example::

        model = modalift.load("student.modalift")
        model.predict("clip.mp4").label
    """

    kind = "recognizer"

    def logits_of(self, batch: Batch) -> Tensor:
        logits: Tensor = self.network(batch.clips[self.view])
        return logits

    def clips(self, recording: str | Path | Track | NDArray[Any]) -> Tensor:
        """The clips ``(V, C, T, H, W)`` of a recording that the network reads: V = temporal x spatial crops, not random.

        Args:
            recording: a file or folder (the whole of it is read), a Track (its window is read), or frames
                ``(T, H, W, C)`` in the sensor's unit; a signal's are ``(T, C)``.
        """
        return clips_of(recording, self.modality, self.framing, self.protocol)

    @torch.inference_mode()
    def logits(self, clip: Tensor | NDArray[Any]) -> Tensor:
        """Logits ``(B, K)`` of framed clips ``(B, C, T, H, W)`` in the sensor's unit."""
        device = next(self.network.parameters()).device
        logits: Tensor = self.network(torch.as_tensor(clip).to(device, torch.float32)).cpu()
        return logits

    def predict(self, clip: str | Path | Track | NDArray[Any], top: int = 5) -> Prediction:
        """Predicts the class of a recording: the mean of the probabilities over the protocol's crops.

        Args:
            clip: see :meth:`clips`.
            top: how many classes :attr:`Prediction.top` lists.

        Raises:
            ModaliftError: a recording that is missing, damaged, or of another kind of sensor.
        """
        # One crop at a time: results do not depend on the number of crops, and memory suffices for one.
        crops = torch.stack([self.logits(crop[None])[0].softmax(0) for crop in self.clips(clip)])
        return Prediction.of(name_of(clip), crops.mean(0).numpy(), self.classes, top)


def name_of(clip: str | Path | Track | NDArray[Any]) -> str:
    """The name of a recording in its prediction."""
    if isinstance(clip, np.ndarray):
        return "array"
    if isinstance(clip, Track):
        return f"{clip.path}:{clip.key}" if clip.key else str(clip.path)
    return str(clip)


