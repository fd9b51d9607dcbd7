"""Clips of a single recording (a file, a track, or frames in memory), for prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalift.errors import ModaliftError
from modalift.files import exists
from modalift.loading import reading
from modalift.loading.framer import Framer
from modalift.loading.framing import Framing, Protocol
from modalift.loading.sampling import centered, clock_of
from modalift.loading.stores import TrackFrames
from modalift.loading.transforms import crop_geometry
from modalift.modalities import Modality, Track


def clips_of(recording: str | Path | Track | NDArray[Any], modality: Modality, framing: Framing,
             protocol: Protocol) -> Tensor:
    """Makes the clips ``(V, C, T, H, W)`` of one recording exactly as evaluation does; V = temporal x spatial crops.

    Args:
        recording: a file or folder (all of it is read), a Track (its window is read), or frames ``(T, H, W, C)`` in the
            sensor's unit; signals are ``(T, C)``.
        modality: the sensor's modality.
        framing: the clips' length and size, and how they are obtained.
        protocol: temporal and spatial crops.

    Raises:
        ModaliftError: the recording is missing, damaged, or of another modality.
    """
    framer = Framer(modality, framing)
    if isinstance(recording, np.ndarray):
        frames: NDArray[Any] | TrackFrames = as_frames(recording, modality)
        clock, affine = None, None
    else:
        track = recording if isinstance(recording, Track) else to_track(recording)
        frames = TrackFrames(track, modality, framer.reduction)
        clock, affine = clock_of(track, len(frames)), track.affine
    placement = framer.locate(frames, affine)
    crops = [(t, c) for t in range(protocol.temporal_crops) for c in range(protocol.spatial_crops)]
    clips = [framer(frames, centered(t, protocol.temporal_crops), crop_geometry(c, protocol.spatial_crops), clock=clock,
                    placement=placement)[0] for t, c in crops]
    return torch.from_numpy(np.stack(clips)).to(torch.float32)


def to_track(recording: str | Path) -> Track:
    """A Track of a whole file or folder; ``joints.npz:wave`` selects the array ``wave`` of an archive.

    Raises:
        ModaliftError: there is no such file, or an archive of several arrays is given without the name of one.
    """
    path, key = Path(recording), ""
    if not exists(path) and ".npz:" in path.name:
        name, _, key = path.name.partition(".npz:")
        path = path.with_name(f"{name}.npz")
    if not exists(path):
        raise ModaliftError(f"{path}: no such recording - check the path")
    if path.suffix == ".npz" and not key and len(inside := reading.keys(path)) > 1:
        raise ModaliftError(f"{path}: holds {len(inside)} arrays - select one, such as {path.name}:{inside[0]}")
    return Track(path, key=key)


def as_frames(array: NDArray[Any], modality: Modality) -> NDArray[Any]:
    """Converts an array in the sensor's unit to frames ``(T, H, W, C)`` of the modality's dtype.

    Videos of one channel may be given as ``(T, H, W)``, signals as ``(T, C)`` or ``(T, J, 3)``.

    Raises:
        ModaliftError: a wrong shape, values that are not finite, or values that the sensor cannot produce (such as a video
            scaled to 0..1, where readings are integers).
    """
    kind, unit = modality.name, modality.unit
    if array.dtype.kind not in "uif" or array.ndim < 2 or 0 in array.shape:
        raise ModaliftError(f"array of {array.dtype} {array.shape}: is not a recording - give numbers (T, H, W, C) for a"
                            " video, (T, C) for a signal")
    if modality.kind == "signal":
        frames = array.reshape(len(array), 1, 1, -1)
    else:
        frames = array[..., None] if array.ndim == 3 else array
    if frames.ndim != 4 or frames.shape[3] != modality.channels:
        wanted = f"(T, {modality.channels})" if modality.kind == "signal" else f"(T, H, W, {modality.channels})"
        raise ModaliftError(f"array {array.shape}: the network reads {kind} {wanted} - reshape it, channels last")
    if frames.dtype.kind == "f" and not np.isfinite(frames).all():
        raise ModaliftError(f"array {array.shape}: holds values that are not finite (NaN or Inf) - replace them by the"
                            " value that marks invalid readings")
    if modality.dtype == "float32":
        return frames.astype(np.float32)
    limits = np.iinfo(modality.dtype)
    if frames.min() < limits.min or frames.max() > limits.max:
        raise ModaliftError(f"array {array.shape}: its values range from {frames.min():g} to {frames.max():g}, but"
                            f" {kind} is in {unit} from {limits.min} to {limits.max} - convert it")
    if frames.dtype.kind == "f" and not (frames == np.rint(frames)).all():
        raise ModaliftError(f"array {array.shape}: {kind} must be integers ({unit}), not fractions up to"
                            f" {frames.max():g} - do not normalize it, the network does that")
    return frames.astype(modality.dtype)
