"""Sample clips as small animations: every sensor's recording, side by side, and each network's prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.modalities import Modality, Row, Table
from modalift.models import Predictions
from modalift.report.html import data_uri, esc
from modalift.report.numbers import percent

Pictures = NDArray[np.uint8]
Sample = dict[str, Any]

_SCREEN = (23, 23, 26)
#: Facts that say how a file was written, not what was seen.
_DULL = ("frame", "sample", "width", "height", "rate", "fps", "box", "mask", "size")
_MAPS = {"depth": cv2.COLORMAP_VIRIDIS, "thermal": cv2.COLORMAP_INFERNO, "pose_map": cv2.COLORMAP_MAGMA,
         "pseudo_ir": cv2.COLORMAP_INFERNO}
#: Orders of joints that recordings use, by their number: which one is the head, and the parent of each.
_LEGS = (3, 12, 13, 14, 3, 16, 17, 18)
_SKELETONS = {
    20: ((0, (1, 2, 3, 3, 1, 4, 5, 6, 1, 8, 9, 10, *_LEGS)),  # Kinect, from the head down (UTD-MHAD)
         (3, (0, 0, 1, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18))),  # Kinect, from the hips up
    22: ((0, (1, 2, 3, 3, 1, 4, 5, 6, 7, 7, 1, 10, 11, 12, 13, 13, 3, 16, 17, 3, 19, 20)),),  # Darkroom
    25: ((3, (0, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 7, 7, 11, 11)),),  # Kinect 2
}
#: Where a depth camera has cut a person out, less than this share of the picture holds readings: show the person.
_CUT_OUT = 0.4


def pick(table: Table, count: int, *, seed: int = 0, fact: str = "lux") -> list[int]:
    """Rows to show, without choosing flattering ones: at random, of different classes, one from each band of ``fact``.

    Where the clips do not have the fact, the bands are of the table's order. Deterministic for a seed.
    """
    def known(i: int) -> float:
        value = table[i].facts.get(fact)
        return float(value) if isinstance(value, (int, float)) and np.isfinite(value) else np.inf

    order = sorted(range(len(table)), key=known)
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    shown: set[int | None] = set()
    for band in np.array_split(np.array(order, dtype=np.int64), min(count, len(order)) or 1):
        drawn = rng.permutation(band).tolist()
        fresh = next((i for i in drawn if table[i].label not in shown), drawn[0] if drawn else None)
        if fresh is not None:
            chosen.append(fresh)
            shown.add(table[fresh].label)
    return chosen


def sample_clips(table: Table, indices: Iterable[int], views: Sequence[str] = (), *, frames: int = 16,
                 height: int = 128, answers: Mapping[str, Predictions] | None = None) -> list[Sample]:
    """Clips ready to be shown: every view read, toned for the eye and made small.

    Args:
        table: the clips.
        indices: which rows of it.
        views: which sensors, in order; by default all that the table has.
        frames: at most so many frames per clip, evenly spread.
        height: pixels of a picture.
        answers: network -> its predictions (matched by clip id).

    Returns:
        ``{"id", "label" (class name or None), "subject", "facts", "views": {view: (T, h, w, 3) uint8}, "answers":
        {network: (class name, probability)}, "problems": {view: why it could not be read}}``.

    Raises:
        ModaliftError: a view that the table lacks.
    """
    wanted = list(views) or list(table.views)
    kinds = {v: table.modality(v) for v in wanted}
    samples = []
    for index in indices:
        row = table[index]
        pictures, problems = {}, {}
        for view in wanted:
            if view in row.tracks:
                try:
                    pictures[view] = _view(row, view, kinds[view], frames, height)
                except ModaliftError as error:
                    problems[view] = str(error)
        samples.append({
            "id": row.id, "label": None if row.label is None else table.classes[row.label], "subject": row.subject,
            "facts": dict(row.facts), "views": pictures, "problems": problems,
            "answers": {name: found for name, p in (answers or {}).items()
                        if (found := _answer(p, row.id, table.classes)) is not None},
        })
    return samples


def _view(row: Row, view: str, kind: Modality, frames: int, height: int) -> Pictures:
    start, end = reading.window(row.tracks[view])
    if kind.kind == "signal":  # a signal is drawn with its past, so all of it is read
        whole = reading.read(row.tracks[view], kind)
        return draw_signal(whole.reshape(len(whole), -1), kind, frames, height)
    chosen = np.unique(np.linspace(0, end - start - 1, min(frames, end - start)).round().astype(int))
    return small(tone(reading.read(row.tracks[view], kind, chosen.tolist()), kind), height)


def _answer(p: Predictions, clip: str, classes: Sequence[str]) -> tuple[str, float] | None:
    where = np.flatnonzero(p.ids == clip)
    if not len(where):
        return None
    best = int(p.probabilities[where[0]].argmax())
    return classes[best], float(p.probabilities[where[0], best])


# ---- from readings to pictures --------------------------------------------------------------------------------------


def tone(frames: NDArray[Any], kind: Modality) -> Pictures:
    """Readings ``(T, H, W, C)`` in the sensor's unit as colors ``(T, H, W, 3)``.

    Color clips stay as they were recorded. Depth and thermal are stretched over the clip's own range (1st to 99th
    percentile) and colored: bright is near, or warm; places without a reading stay dark. Flow shows direction as hue.
    """
    x = frames.astype(np.float32)
    if kind.name == "flow" and x.shape[-1] == 2:
        return _tone_flow(x)
    if x.shape[-1] == 3 and kind.dtype == "uint8":
        return frames.astype(np.uint8)
    valid = np.ones(x.shape[:3], bool) if kind.invalid is None else x[..., 0] != kind.invalid
    gray = x.max(-1) if x.shape[-1] > 1 else x[..., 0]
    if kind.invalid is not None and 0 < valid.mean() < _CUT_OUT:
        rows, columns = _square(np.asarray(valid.any(0)))
        gray, valid = gray[:, rows, columns], valid[:, rows, columns]
    colors = _MAPS.get(kind.name)
    if colors is None and kind.dtype == "uint8":  # a camera without color: as it was recorded
        return np.repeat(gray[..., None].astype(np.uint8), 3, -1)
    low, high = np.percentile(gray[valid], [1, 99]) if valid.any() else (0.0, 1.0)
    share = np.clip((gray - low) / max(float(high - low), 1e-6), 0, 1)
    if kind.name == "depth":
        share = 0.12 + 0.88 * (1 - share)
    level = (255 * share).astype(np.uint8)
    out = np.stack([cv2.applyColorMap(f, colors if colors is not None else cv2.COLORMAP_CIVIDIS)[..., ::-1]
                    for f in level])
    out[~valid] = _SCREEN
    return out.astype(np.uint8)


def _tone_flow(x: NDArray[np.float32]) -> Pictures:
    speed = np.hypot(x[..., 0], x[..., 1])
    top = max(float(np.percentile(speed, 99)), 1e-3)
    hue = (np.arctan2(x[..., 1], x[..., 0]) + np.pi) / (2 * np.pi) * 179
    hsv = np.stack([hue, np.full_like(hue, 190), 255 * np.clip(speed / top, 0, 1)], -1).astype(np.uint8)
    return np.stack([cv2.cvtColor(f, cv2.COLOR_HSV2RGB) for f in hsv]).astype(np.uint8)


def _square(seen: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The square part of a picture around what is there, a tenth wider, inside the picture."""
    y, x = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    side = int(min(1.1 * max(y[-1] - y[0], x[-1] - x[0]) + 2, *seen.shape))
    top = int(np.clip((y[0] + y[-1] - side) // 2, 0, seen.shape[0] - side))
    left = int(np.clip((x[0] + x[-1] - side) // 2, 0, seen.shape[1] - side))
    return slice(top, top + side), slice(left, left + side)


def small(pictures: Pictures, height: int) -> Pictures:
    """Pictures of one height, at most twice as large as recorded; the width is a multiple of 16, as JPEG likes it."""
    h, w = pictures.shape[1:3]
    tall = min(height, 2 * h)
    wide = max(16, round(w * tall / h / 16) * 16)
    how = cv2.INTER_AREA if tall < h else cv2.INTER_CUBIC
    return np.stack([cv2.resize(f, (wide, tall), interpolation=how) for f in pictures]).astype(np.uint8)


def draw_signal(values: NDArray[Any], kind: Modality, frames: int, height: int) -> Pictures:
    """A signal ``(T, C)`` as pictures: joints as a figure of sticks and dots, anything else as traces that light up."""
    values = np.nan_to_num(np.asarray(values, np.float32))
    chosen = np.unique(np.linspace(0, len(values) - 1, min(frames, len(values))).round().astype(int))
    if kind.name == "pose" and values.shape[1] % 3 == 0 and values.shape[1] >= 9:
        return _sticks(values.reshape(len(values), -1, 3), chosen, height)
    return _traces(values, chosen, height)


def _sticks(joints: NDArray[np.float32], chosen: NDArray[Any], height: int) -> Pictures:
    bones, upwards = skeleton(joints)
    xy = joints[..., :2].astype(np.float64)
    center = (xy.min((0, 1)) + xy.max((0, 1))) / 2
    if upwards:
        xy, center = xy * (1, -1), center * (1, -1)
    zoom = 0.86 * height / max(float(np.ptp(xy, axis=(0, 1)).max()), 1e-6)
    out = np.full((len(chosen), height, height, 3), _SCREEN, np.uint8)
    for picture, t in zip(out, chosen, strict=True):
        at = np.round(((xy[t] - center) * zoom + height / 2) * 16).astype(int)
        for a, b in bones:
            cv2.line(picture, at[a].tolist(), at[b].tolist(), (69, 196, 180), 2, cv2.LINE_AA, 4)
        for point in at:
            cv2.circle(picture, point.tolist(), 34, (240, 236, 228), -1, cv2.LINE_AA, 4)
    return out


def skeleton(joints: NDArray[Any]) -> tuple[list[tuple[int, int]], bool]:
    """Bones of joints ``(T, J, 3)`` of unknown names, and whether y points up.

    A known order of that many joints, the one with the shortest bones; else a guess: a bone is short and does not
    change its length, so each pair costs its mean distance plus five times the deviation of it, and the cheapest tree
    that joins all joints (Prim's algorithm) is a skeleton; most joints of a body are in its upper half.
    """
    def length(parents: Sequence[int]) -> float:
        return float(np.linalg.norm(joints - joints[:, list(parents)], axis=-1).sum())

    if known := _SKELETONS.get(joints.shape[1]):
        head, parents = min(known, key=lambda order: length(order[1]))
        root = next(k for k, parent in enumerate(parents) if k == parent)
        return list(enumerate(parents)), bool((joints[:, head, 1] - joints[:, root, 1]).mean() > 0)
    y = joints[..., 1]
    apart = np.linalg.norm(joints[:, :, None] - joints[:, None], axis=-1)
    price = apart.mean(0) + 5 * apart.std(0)
    inside, bones = {0}, []
    while len(inside) < joints.shape[1]:
        _, a, b = min((price[a, b], a, b) for a in inside for b in range(joints.shape[1]) if b not in inside)
        bones.append((a, b))
        inside.add(b)
    return bones, bool(np.median(y) > (y.min() + y.max()) / 2)


def _traces(values: NDArray[np.float32], chosen: NDArray[Any], height: int) -> Pictures:
    wide, lanes = height * 3 // 2 // 16 * 16, min(values.shape[1], 6)
    colors = [(69, 196, 180), (240, 146, 79), (143, 155, 255), (232, 121, 185), (205, 185, 74), (156, 163, 175)]
    low, high = values[:, :lanes].min(0), values[:, :lanes].max(0)
    share = (values[:, :lanes] - low) / np.maximum(high - low, 1e-6)
    lane = height / lanes
    x = np.linspace(4, wide - 4, len(values))
    out = np.full((len(chosen), height, wide, 3), _SCREEN, np.uint8)
    for picture, t in zip(out, chosen, strict=True):
        for k in range(lanes):
            points = np.round(np.stack([x, lane * (k + 0.9 - 0.8 * share[:, k])], -1) * 16).astype(np.int32)
            ahead = tuple(round(0.3 * c) for c in colors[k])
            cv2.polylines(picture, [points], False, ahead, 1, cv2.LINE_AA, 4)
            cv2.polylines(picture, [points[: t + 1]], False, colors[k], 1, cv2.LINE_AA, 4)
            cv2.circle(picture, points[t].tolist(), 34, (240, 236, 228), -1, cv2.LINE_AA, 4)
    return out


# ---- as HTML --------------------------------------------------------------------------------------------------------


def gallery(samples: Sequence[Sample], note: str) -> str:
    """All samples as cards, with a box that stops them."""
    if not samples:
        return ""
    return (f'<p>{esc(note)}</p><label class="still"><input type="checkbox" id="still"> pause all pictures</label>'
            f'<div class="clips">{"".join(clip(s) for s in samples)}</div>')


def clip(sample: Sample) -> str:
    """One clip: its label, each sensor's recording, and each network's prediction."""
    known = {k: v for k, v in sample.get("facts", {}).items() if not any(w in k for w in _DULL)}
    first = sorted(known, key=lambda k: k != "lux")[:3]
    facts = [f"{known[k]:.3g} {k}" if k == "lux" and isinstance(known[k], float) else f"{k.replace('_', ' ')} "
             + (f"{known[k]:.3g}" if isinstance(known[k], float) else str(known[k])) for k in first]
    said = " · ".join([str(sample.get("id", "")), *([f"subject {s}"] if (s := sample.get("subject")) else []), *facts])
    views = "".join(film(v, pictures) for v, pictures in sample.get("views", {}).items())
    views += "".join(f'<p class="note">{esc(v)} could not be read: {esc(why)}</p>'
                     for v, why in sample.get("problems", {}).items())
    label = sample.get("label")
    answers = "".join(answer(n, c, p, label) for n, (c, p) in sample.get("answers", {}).items())
    shown = len(sample.get("views", {}))
    across = shown if 2 <= shown <= 4 else 3 if shown in (5, 6) else 4 if shown > 6 else 2
    title = esc(label) if label is not None else '<span class="soft">not labeled</span>'
    return (f'<figure class="card clip"><h3>{title}</h3><figcaption>{esc(said)}</figcaption>'
            f'<div class="views" style="--c:{across}">{views}</div>{answers}</figure>')


def film(view: str, pictures: NDArray[Any], rate: float = 8.0) -> str:
    """Pictures ``(T, H, W[, 3])`` as one strip that the page moves frame by frame (no decoder, no script)."""
    frames = np.asarray(pictures, np.uint8)
    if frames.ndim == 3:
        frames = np.repeat(frames[..., None], 3, -1)
    if frames.ndim != 4 or not frames.size:
        return f'<figure class="view"><p class="note">{esc(view)}: no picture</p></figure>'
    T, H, W = frames.shape[:3]
    strip = frames.transpose(1, 0, 2, 3).reshape(H, T * W, 3)
    done, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(strip[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 84])
    if not done:  # JPEG ends at 65500 pixels
        raise ModaliftError(f"view '{view}': {T} frames of {W} pixels are too long for a strip - show fewer frames")
    side = f"width:{100 * W / max(W, H):.4g}%"
    return (f'<figure class="view"><div class="screen"><div class="film" style="{side};aspect-ratio:{W}/{H};--n:{T};'
            f'--d:{T / rate:.2f}s"><img alt="{esc(view)}" style="width:{100 * T}%" src="{data_uri(jpeg.tobytes())}">'
            f"</div></div><figcaption>{esc(view)}</figcaption></figure>")


def answer(network: str, said: str, probability: float, label: str | None) -> str:
    """One network's prediction as a bar: green where it is correct."""
    state = "unknown" if label is None else "yes" if said == label else "no"
    sign = {"yes": "✓ ", "no": "✗ ", "unknown": ""}[state]
    width = 100 * min(1.0, max(0.0, probability))
    return (f'<div class="answer {state}"><span class="who">{esc(network)}</span><span class="what">'
            f'<i style="width:{width:.0f}%"></i><b>{sign}{esc(said)}</b></span>'
            f'<span class="p">{percent(probability, 0)}</span></div>')
