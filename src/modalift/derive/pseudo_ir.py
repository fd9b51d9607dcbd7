"""Another sensor's pictures, drawn by a translator that was trained and shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from modalift.derive.pose_map import write_lossless
from modalift.derive.registry import derived
from modalift.derive.writing import source_view, write_view
from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.loading.clips import ClipSet
from modalift.loading.low_light import enhance
from modalift.modalities import Modality, Row, Table, modality
from modalift.models import load
from modalift.models.translator import TranslatorModel

#: What a translator gives, to the modality that the new view then has.
INFRARED = ("thermal", "nir", "gray")


@derived("pseudo_ir")
def derive_pseudo_ir(table: Table, view: str | None, out: Path, *, bundle: str = "", name: str = "pseudo_ir", size: int = 0,
                     device: str = "cpu", progress: Callable[[int, int], None] | None = None) -> Table:
    """What another sensor might have seen of each clip, frame by frame, from a translator's bundle.

    A frame is scaled so that its short side is as in training, translated whole, and kept at that size: gray pictures in
    lossless FFV1 (``<name>/<clip>.mkv``), depth as ``.npz`` of millimeters. A translated infrared or gray picture has the
    modality ``pseudo_ir``; any other the one that the translator gives. The new view is aligned with its source, except
    where the translator learned on the box of ``region: valid``: then that box of each clip is all that is translated.

    Args:
        table: the clips.
        view: the view to translate; by default the first of the sensor that the translator reads.
        out: a new folder.
        bundle: a translator that `modalift ship` wrote.
        name: of the new view.
        size: short side in pixels at which frames are translated; 0: that of training.
        device: where it is computed.
        progress: called with (clips done, clips).

    Returns:
        The table with the new view, read back from ``out``.

    Raises:
        ModaliftError: no bundle, a bundle that is no translator's, a view of another sensor, or an ``out`` that is not
            empty.
    """
    if not bundle:
        raise ModaliftError("pseudo_ir needs bundle=FILE.modalift, a translator that was trained and shipped - see"
                            " docs/schemes/translator.md")
    if size and size < 8:
        raise ModaliftError(f"pseudo_ir size={size} - give 8 pixels or more, or 0 for that of training")
    if not Path(bundle).is_file():
        raise ModaliftError(f"{bundle}: no such bundle - `modalift train recipes/translator/pairs.yaml` and `modalift ship`"
                            " make one")
    translator = load(bundle, device)
    if not isinstance(translator, TranslatorModel):
        raise ModaliftError(f"{bundle}: holds a {translator.kind} of {len(translator.classes)} classes, not a translator")
    source = source_view(table, view, (translator.modality.name,), f"{Path(bundle).name}: its pictures")
    kind, target = table.modality(source), translator.network.target
    given = modality("pseudo_ir" if target in INFRARED else target)
    if given.dtype == "uint8" and given.channels not in (1, 3):
        raise ModaliftError(f"{bundle}: draws '{given.name}', which no file of pictures holds - name a translator to infrared,"
                            " color or depth")
    video, boxed = given.dtype == "uint8", translator.framing.region == "valid"
    if boxed:
        box = translator.framing.replace(sampler="whole", fit="stretch", crop_ratio=1.0, size=size or short_side(translator))
        clips = ClipSet(table.where(lambda r: source in r.tracks), {source: box})
        places = {row.id: k for k, row in enumerate(clips.table.rows)}

    def make(row: Row, file: Path) -> None:
        if boxed:
            drawn = drawn_of(translator, clips[0, places[row.id]]["clips"][source].transpose(1, 2, 3, 0))
        else:
            drawn = translate(translator, reading.read(row.tracks[source], kind), size)
        if video:
            write_lossless(file, drawn, round(row.tracks[source].rate or 30))
        else:
            np.savez_compressed(file, frames=drawn)

    return write_view(table, out, source, name, given, ".mkv" if video else ".npz", make,
                      keep_space=not boxed, progress=progress)


def short_side(translator: TranslatorModel) -> int:
    """The short side of the frames that a translator was trained on."""
    return max(8, round(translator.framing.size / translator.framing.crop_ratio))


def translate(translator: TranslatorModel, frames: np.ndarray, size: int = 0) -> np.ndarray:
    """What a translator draws of whole frames ``(T, H, W, C)``: ``(T, h, w, C')`` in the target's unit and type.

    The short side is ``size``, or that of training where it is 0; dark pictures are made brighter as they were there.
    """
    height, width = frames.shape[1:3]
    scale = (size or short_side(translator)) / min(height, width)
    extent = (max(8, round(width * scale)), max(8, round(height * scale)))
    pictures = np.stack([_resized(frame, extent, translator.modality) for frame in frames])
    if translator.framing.low_light != "none":
        gray = np.rint(pictures).astype(np.uint8).transpose(3, 0, 1, 2)
        pictures = enhance(gray, translator.framing.low_light, translator.framing.low_light_strength).transpose(1, 2, 3, 0)
    return drawn_of(translator, pictures)


@torch.inference_mode()
def drawn_of(translator: TranslatorModel, pictures: np.ndarray) -> np.ndarray:
    """What a translator draws of pictures ``(T, h, w, C)`` as it takes them, one at a time: a clip of any length fits."""
    net, given = translator.network, modality(translator.network.target)
    device = next(net.parameters()).device
    drawn = []
    for picture in pictures:
        clip = torch.tensor(picture, dtype=torch.float32, device=device).permute(2, 0, 1)[None, :, None]
        drawn.append(net(clip)[0, :, 0].permute(1, 2, 0).cpu().numpy())
    stacked = np.stack(drawn).clip(given.low, given.high)
    return stacked.astype(np.float32) if given.dtype == "float32" else np.rint(stacked).astype(given.dtype)


def _resized(frame: np.ndarray, extent: tuple[int, int], kind: Modality) -> np.ndarray:
    """A frame at another extent; readings that mean *no reading* are never mixed with others."""
    if extent == (frame.shape[1], frame.shape[0]):
        return frame
    how = cv2.INTER_NEAREST if kind.invalid is not None else cv2.INTER_AREA if extent[0] < frame.shape[1] else cv2.INTER_LINEAR
    scaled = cv2.resize(frame.astype(np.float32), extent, interpolation=how)
    return scaled if scaled.ndim == 3 else scaled[..., None]
