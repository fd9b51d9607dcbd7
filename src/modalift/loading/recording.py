"""One recording - a file, a track, frames in memory - and the clips that a network receives of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.loading.framer import Framer
from modalift.loading.framing import Framing, Protocol
from modalift.loading.sampling import centered, clock_of
from modalift.loading.stores import TrackFrames
from modalift.loading.transforms import crop_geometry
from modalift.modalities import Modality, Track


def clips_of(recording: str | Path | Track | NDArray[Any], modality: Modality, framing: Framing,
             protocol: Protocol) -> Tensor:
    """The clips ``(V, C, T, H, W)`` of one recording, exactly as evaluation frames them; V = temporal x spatial crops.

    Args:
        recording: a file or folder (the whole of it is read), a Track (its window is read), or frames ``(T, H, W, C)``
            in the sensor's unit; a signal's are ``(T, C)``.
        modality: the sensor.
        framing: what the network receives.
        protocol: temporal and spatial crops.

    Raises:
        ModaliftError: a recording that is missing, damaged, or not of this sensor.
    """
    framer = Framer(modality, framing)
    if isinstance(recording, np.ndarray):
        frames: NDArray[Any] | TrackFrames = as_frames(recording, modality)
        clock, affine = None, None
    else:
        track = recording if isinstance(recording, Track) else to_track(recording)
        frames = TrackFrames(track, modality)
        clock, affine = clock_of(track, len(frames)), track.affine
    place = framer.locate(frames, affine)
    crops = [(t, c) for t in range(protocol.temporal_crops) for c in range(protocol.spatial_crops)]
    clips = [framer(frames, centered(t, protocol.temporal_crops), crop_geometry(c, protocol.spatial_crops), clock=clock,
                    place=place)[0] for t, c in crops]
    return torch.from_numpy(np.stack(clips)).to(torch.float32)


def to_track(recording: str | Path) -> Track:
    """The whole of a file or folder; ``joints.npz:walk`` is the array ``walk`` of an archive of several.

    Raises:
        ModaliftError: nothing is there, or an archive of several arrays without saying which.
    """
    path, key = Path(recording), ""
    if not path.exists() and ".npz:" in path.name:
        name, _, key = path.name.partition(".npz:")
        path = path.with_name(f"{name}.npz")
    if not path.exists():
        raise ModaliftError(f"{path}: no such recording - check the path")
    if path.suffix == ".npz" and not key and len(inside := reading.keys(path)) > 1:
        raise ModaliftError(f"{path}: holds {len(inside)} arrays - name one, as in {path.name}:{inside[0]}")
    return Track(path, key=key)


def as_frames(array: NDArray[Any], modality: Modality) -> NDArray[Any]:
    """Frames ``(T, H, W, C)`` of the modality's own type, from an array in the sensor's unit.

    Videos may be given as ``(T, H, W)`` where there is one channel, signals as ``(T, C)`` or ``(T, J, 3)``.

    Raises:
        ModaliftError: another shape, values that are not finite, or values that the sensor cannot have given (a video
            scaled to 0..1 where its readings are whole numbers).
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
        raise ModaliftError(f"array {array.shape}: holds values that are not finite - replace them by what means 'no"
                            " reading'")
    if modality.dtype == "float32":
        return frames.astype(np.float32)
    limits = np.iinfo(modality.dtype)
    if frames.min() < limits.min or frames.max() > limits.max:
        raise ModaliftError(f"array {array.shape}: its values reach from {frames.min():g} to {frames.max():g}, {kind}"
                            f" is in {unit} from {limits.min} to {limits.max} - convert it")
    if frames.dtype.kind == "f" and not (frames == np.rint(frames)).all():
        raise ModaliftError(f"array {array.shape}: {kind} is in whole numbers ({unit}), not fractions up to"
                            f" {frames.max():g} - do not normalize it, the network does")
    return frames.astype(modality.dtype)
