"""Draws a contact sheet of network inputs, to check the data visually.

Everything is drawn from the tensors of a Batch, after framing, augmentation and collation, so a wrong crop, a wrong unit,
invalid readings or a loss of synchronization are visible exactly as they reach the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from modalift.errors import ModaliftError
from modalift.files import write_beside
from modalift.loading.clips import ClipSet
from modalift.loading.collation import collate
from modalift.modalities import Batch, Modality
from modalift.report.clips import skeleton

Image = NDArray[np.uint8]  # BGR
Floats = NDArray[np.float32]
Words = list[tuple[str, tuple[int, int, int]]]
#: A network's preprocessing of a view's clips: ``(view, (B, C, T, H, W)) -> (B, C', T, H, W)``.
Prepared = Callable[[str, Tensor], Tensor]

_PAPER, _INK, _SOFT, _LINE = (24, 21, 20), (236, 236, 236), (150, 146, 142), (58, 52, 48)
_HOLE, _HATCH = (30, 27, 26), (52, 46, 44)
_CURVES = ((180, 196, 69), (79, 146, 240), (255, 155, 143), (185, 121, 232), (74, 185, 205), (175, 163, 156))
_GUTTER, _GAP, _HEAD, _LINE_HEIGHT = 236, 6, 44, 19
_FONT = cv2.FONT_HERSHEY_SIMPLEX
#: Side of a cell in pixels; small clips are enlarged by an integer factor, so that their pixels stay square.
_CELL = 144


def look(clips: ClipSet, indices: Sequence[int], out: Path, *, epoch: int = 0, columns: int = 8,
         prepare: Prepared | None = None) -> Path:
    """Draws clips as networks receive them: one row per view, one column per frame.

    Depth is colored by distance with invalid readings hatched, 8-bit views are not changed, flow is colored by direction,
    joints are stick figures and other signals are curves. Shapes, ranges and units are written in the margin.

    Args:
        clips: the dataset; if it is augmented, the augmentation of ``epoch`` is shown.
        indices: positions in the dataset.
        out: the ``.png`` to write.
        epoch: the epoch whose augmentation is shown.
        columns: largest number of frames per clip, evenly spread.
        prepare: a network's normalization; each video is also drawn after it, one row per channel.

    Returns:
        ``out``.

    Raises:
        ModaliftError: there is no such clip, the file name does not end in ``.png``, or a clip cannot be read.
    """
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise ModaliftError(f"{out}: the contact sheet is a PNG image - give a file name that ends in .png")
    wrong = [i for i in indices if not 0 <= i < len(clips)]
    if wrong or not len(indices):
        raise ModaliftError(f"{f'no clip {wrong[0]}' if wrong else 'no clip was selected'}: there are {len(clips)} -"
                            f" give positions from 0 to {len(clips) - 1}")
    sheet = draw(clips, collate([clips[epoch, i] for i in indices]), columns=columns, prepare=prepare)
    done, png = cv2.imencode(".png", sheet)
    if not done:
        raise ModaliftError(f"{out}: a contact sheet of {sheet.shape[1]}x{sheet.shape[0]} pixels is too large - select"
                            " fewer clips")
    write_beside(out, lambda path: path.write_bytes(png.tobytes()))
    return out


def spread(clips: ClipSet, count: int, epoch: int = 0) -> tuple[list[int], dict[str, str]]:
    """Positions of clips that can be read, evenly spread over the dataset; only these clips are read.

    Args:
        clips: the dataset.
        count: number of clips.
        epoch: the epoch in which they are drawn.

    Returns:
        At most ``count`` positions, and for each clip that cannot be read: its id and why. The next one takes its place.

    Raises:
        ModaliftError: no clip can be read.
    """
    step = max(1, len(clips) // count)
    chosen: list[int] = []
    left_out: dict[str, str] = {}
    for start in range(0, min(len(clips), step * count), step):
        for position in range(start, min(start + step, len(clips))):
            try:
                clips[epoch, position]
            except ModaliftError as error:
                left_out[clips.table.rows[clips.indices[position]].id] = str(error)
                continue
            chosen.append(position)
            break
    if not chosen:
        raise ModaliftError(f"{clips.table.name}: none of {len(left_out)} clips can be read; the first:"
                            f" {next(iter(left_out.values()))}")
    return chosen, left_out


def draw(clips: ClipSet, batch: Batch, *, columns: int = 8, prepare: Prepared | None = None) -> Image:
    """The contact sheet ``(height, width, 3)``, BGR, of a batch of the dataset."""
    prepared = {} if prepare is None else {v: _numbers(prepare(v, batch.clips[v])) for v in clips.framings
                                           if clips.modalities[v].kind == "video"}
    strips: list[str | tuple[Words, list[Image]]] = []
    for row in range(len(batch)):
        strips.append(_title(clips, batch, row))
        for view in clips.framings:
            kind = clips.modalities[view]
            clip = _numbers(batch.clips[view][row])
            valid = batch.valid[view][row, 0].numpy() if view in batch.valid else None
            is_present = bool(batch.present[view][row])
            chosen = np.unique(np.linspace(0, clip.shape[1] - 1, min(columns, clip.shape[1])).round().astype(int))
            strips.append((_facts(view, kind, clip, valid, is_present), _cells(clip, valid, kind, chosen, is_present)))
            if is_present and view in prepared:
                for channel, values in enumerate(prepared[view][row]):
                    words = [(f"{view}, prepared [{channel}]", _INK),
                             (f"mean {values.mean():+.2f}  deviation {values.std():.2f}", _SOFT),
                             (f"{values.min():+.1f} to {values.max():+.1f}  (blue - to red +)", _SOFT)]
                    strips.append((words, [_signed(values[t], values) for t in chosen]))
    return _compose(strips, f"{clips.table.name}: network inputs")


def _numbers(tensor: Tensor) -> Floats:
    return np.asarray(tensor.detach().float().cpu().numpy(), dtype=np.float32)


def _title(clips: ClipSet, batch: Batch, row: int) -> str:
    found = clips.table.rows[int(batch.index[row])]
    label = int(batch.labels[row])
    name = clips.table.classes[label] if label >= 0 else "no label"
    mirrored = found.label is not None and label != found.label
    return f"{name}   |   subject {found.subject or '?'}   |   {found.split}   |   {found.id}" + (
        f"   |   mirrored, was {clips.table.classes[found.label or 0]}" if mirrored else "")


def _facts(view: str, kind: Modality, clip: Floats, valid: NDArray[np.bool_] | None,
           is_present: bool) -> Words:
    """The lines in the margin: the view, its shape, its range and its fraction of valid readings."""
    words = [(view if view == kind.name else f"{view} ({kind.name})", _INK),
             (f"(C, T, H, W) = {clip.shape}", _SOFT)]
    if not is_present:
        return [*words, ("sensor absent", _CURVES[1])]
    readings = clip[:, valid] if valid is not None else clip
    if readings.size:
        words.append((f"{readings.min():.4g} to {readings.max():.4g} {kind.unit}", _SOFT))
        words.append((f"mean {readings.mean():.4g}", _SOFT))
    if valid is not None:
        words.append((f"valid: {valid.mean():.0%}", _SOFT))
    return words


# ---- from readings to cells -----------------------------------------------------------------------------------------


def _cells(clip: Floats, valid: NDArray[np.bool_] | None, kind: Modality, chosen: NDArray[Any],
           is_present: bool) -> list[Image]:
    """Images of the chosen frames; a signal other than joints is one wide image of curves."""
    if not is_present:
        return [_hatched(_CELL, _CELL) for _ in chosen]
    if kind.kind == "signal":
        values = clip[:, :, 0, 0].T
        if kind.unit == "m" and values.shape[1] % 3 == 0 and values.shape[1] >= 9:
            return _figures(values.reshape(len(values), -1, 3), chosen)
        return [_curves(values, len(chosen) * (_CELL + _GAP) - _GAP)]
    if valid is not None:
        seen = clip[0][valid]
        low, high = np.percentile(seen, [1, 99]) if seen.size else (0.0, 1.0)
        return [_depth(clip[0, t], valid[t], float(low), float(high)) for t in chosen]
    if kind.mirror == "negate_x" and len(clip) == 2:
        top = max(float(np.percentile(np.hypot(clip[0], clip[1]), 99)), 1e-3)
        return [_vectors(clip[:, t], top) for t in chosen]
    if kind.dtype == "uint8":
        return [_enlarged(_eight_bit(clip[:, t])) for t in chosen]
    low, high = np.percentile(clip, [1, 99])
    share = np.clip((clip[0] - low) / max(float(high - low), 1e-6), 0, 1)
    return [_enlarged(cv2.applyColorMap((255 * share[t]).astype(np.uint8), cv2.COLORMAP_CIVIDIS)) for t in chosen]


def _eight_bit(frame: Floats) -> Image:
    """``(C, H, W)`` gray levels: color where there are three channels, else the first as gray."""
    planes = frame[::-1] if len(frame) == 3 else np.repeat(frame[:1], 3, 0)
    return np.ascontiguousarray(planes.transpose(1, 2, 0)).astype(np.uint8)


def _depth(frame: Floats, valid: NDArray[np.bool_], low: float, high: float) -> Image:
    """Depth as colors: near is bright, invalid readings are hatched."""
    share = 1 - np.clip((frame - low) / max(high - low, 1e-6), 0, 1)
    colored = _enlarged(cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_VIRIDIS))
    height, width = colored.shape[:2]
    solid = cv2.resize(valid.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
    return np.where(solid[..., None], colored, _hatched(height, width))


def _hatched(height: int, width: int) -> Image:
    """The pattern for missing readings."""
    y, x = np.mgrid[:height, :width]
    return np.where(((x + y) % 8 < 2)[..., None], _HATCH, _HOLE).astype(np.uint8)


def _vectors(frame: Floats, top: float) -> Image:
    """Flow: direction is hue, speed is brightness."""
    hue = (np.arctan2(frame[1], frame[0]) + np.pi) / (2 * np.pi) * 179
    value = 255 * np.clip(np.hypot(frame[0], frame[1]) / top, 0, 1)
    hsv = np.stack([hue, np.full_like(hue, 200), value], -1).astype(np.uint8)
    return _enlarged(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR))


def _signed(frame: Floats, clip: Floats) -> Image:
    """Normalized values: blue below zero, red above, dark at zero, in units of the clip's 99th percentile."""
    top = max(float(np.percentile(np.abs(clip), 99)), 1e-6)
    share = np.clip(frame / top, -1, 1)
    up, down = np.clip(share, 0, 1), np.clip(-share, 0, 1)
    mixed = np.stack([24 + 226 * down + 66 * up, 21 + 139 * down + 109 * up, 20 + 50 * down + 230 * up], -1)
    return _enlarged(mixed.astype(np.uint8))


def _enlarged(image: NDArray[Any]) -> Image:
    factor = max(1, _CELL // max(image.shape[:2]))
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST).astype(np.uint8)


def _figures(joints: Floats, chosen: NDArray[Any]) -> list[Image]:
    """Joints ``(T, J, 3)`` from the front, with their paths since the previous drawn frame."""
    bones, upwards = skeleton(joints)
    flat = joints[..., :2].astype(np.float64)
    center = (flat.min((0, 1)) + flat.max((0, 1))) / 2
    if upwards:  # up in the world is down in an image
        flat, center = flat * (1, -1), center * (1, -1)
    zoom = 0.9 * _CELL / max(float(np.ptp(flat, axis=(0, 1)).max()), 1e-6)
    at = np.round(((flat - center) * zoom + _CELL / 2) * 16).astype(np.int32)
    cells, before = [], 0
    for t in chosen.tolist():
        cell = np.full((_CELL, _CELL, 3), _PAPER, np.uint8)
        for joint in range(at.shape[1]):
            cv2.polylines(cell, [at[before : t + 1, joint]], False, (110, 84, 60), 1, cv2.LINE_AA, 4)
        for a, b in bones:
            cv2.line(cell, at[t, a].tolist(), at[t, b].tolist(), _CURVES[0], 2, cv2.LINE_AA, 4)
        for point in at[t]:
            cv2.circle(cell, point.tolist(), 30, _INK, -1, cv2.LINE_AA, 4)
        cells.append(cell)
        before = t
    return cells


def _curves(values: Floats, width: int) -> Image:
    """Channels ``(T, C)`` over time, each in its own lane, scaled to its own range; samples are dots."""
    lanes = min(values.shape[1], 12)
    height = max(_CELL, lanes * 24)
    image = np.full((height, width, 3), _PAPER, np.uint8)
    lane = height / lanes
    x = np.linspace(6, width - 6, max(len(values), 2))[: len(values)]
    for k in range(lanes):
        low, high = float(values[:, k].min()), float(values[:, k].max())
        y = lane * (k + 0.88 - 0.76 * (values[:, k] - low) / max(high - low, 1e-6))
        points = np.round(np.stack([x, y], -1) * 16).astype(np.int32)
        cv2.line(image, (0, round(lane * (k + 1)) - 1), (width, round(lane * (k + 1)) - 1), _LINE, 1)
        color = _CURVES[k % len(_CURVES)]
        cv2.polylines(image, [points], False, color, 1, cv2.LINE_AA, 4)
        for point in points:
            cv2.circle(image, point.tolist(), 24, color, -1, cv2.LINE_AA, 4)
    return image


# ---- the sheet ------------------------------------------------------------------------------------------------------


def _compose(strips: Sequence[str | tuple[Words, list[Image]]], head: str) -> Image:
    """Stacks titles and strips vertically."""
    rows = [s for s in strips if not isinstance(s, str)]
    width = _GUTTER + max(sum(c.shape[1] + _GAP for c in cells) for _, cells in rows)
    width = max(width, 720)
    heights = [_HEAD if isinstance(s, str) else max(max(c.shape[0] for c in s[1]), _LINE_HEIGHT * len(s[0]) + 8) + _GAP
               for s in strips]
    sheet = np.full((_HEAD + sum(heights) + _GAP, width, 3), _PAPER, np.uint8)
    _write(sheet, head, (12, 29), _INK, 0.62)
    y = _HEAD
    for strip, height in zip(strips, heights, strict=True):
        if isinstance(strip, str):
            cv2.line(sheet, (0, y + 6), (width, y + 6), _LINE, 1)
            _write(sheet, strip, (12, y + 31), _INK, 0.54)
        else:
            for k, (line, color) in enumerate(strip[0]):
                _write(sheet, line, (12, y + 16 + k * _LINE_HEIGHT), color, 0.46 if color == _INK else 0.38)
            x = _GUTTER
            for cell in strip[1]:
                sheet[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
                x += cell.shape[1] + _GAP
        y += height
    return sheet


def _write(sheet: Image, text: str, at: tuple[int, int], color: tuple[int, int, int], size: float) -> None:
    """Writes text in the built-in font, which supports ASCII only."""
    plain = text.replace("°", "deg ").replace("µ", "u").encode("ascii", "replace").decode()
    cv2.putText(sheet, plain, at, _FONT, size, color, 1, cv2.LINE_AA)
