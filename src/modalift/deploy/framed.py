"""From anything a person hands over - a file, a track, frames in memory - to the clips that a network sees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.loading.clips import ClipSet
from modalift.loading.framing import Framing
from modalift.loading.stores import Memory
from modalift.modalities import Modality, Row, Table, Track

if TYPE_CHECKING:
    from modalift.deploy.bundle import Protocol

_ID = "recording"


def framed(recording: str | Path | Track | NDArray[Any], modality: Modality, framing: Framing,
           protocol: Protocol) -> Tensor:
    """The clips ``(V, C, T, H, W)`` of one recording, exactly as evaluation frames them.

    Raises:
        ModaliftError: a recording that is missing, damaged, or no recording of this sensor.
    """
    store = None
    if isinstance(recording, np.ndarray):
        store = Memory({(_ID, modality.name): as_frames(recording, modality)})
        track = Track(Path("array"))
    else:
        track = recording if isinstance(recording, Track) else to_track(recording)
    row = Row(_ID, None, "", "test", {modality.name: track})
    table = Table(_ID, (), {modality.name: modality}, (row,))
    clips = ClipSet(table, {modality.name: framing}, cache=store, time_views=protocol.time_views,
                    crops=protocol.crops)
    try:
        views = [clips[0, 0, t, c]["clips"][modality.name]
                 for t in range(protocol.time_views) for c in range(protocol.crops)]
    except ModaliftError as error:
        raise ModaliftError(str(error).removeprefix(f"clip '{_ID}': ")) from None
    return torch.from_numpy(np.stack(views)).to(torch.float32)


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

    Videos may come as ``(T, H, W)`` where there is one channel, signals as ``(T, C)`` or ``(T, J, 3)``.

    Raises:
        ModaliftError: another shape, values that are not finite, or values that the sensor cannot have said (a video
            scaled to 0..1 where it speaks in whole numbers).
    """
    kind, unit = modality.name, modality.unit
    if array.dtype.kind not in "uif" or array.ndim < 2 or 0 in array.shape:
        raise ModaliftError(f"array of {array.dtype} {array.shape}: is no recording - give numbers (T, H, W, C) for a"
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
