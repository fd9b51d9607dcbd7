"""Sample clips as small animations: the recordings of all sensors side by side, and each network's prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from modalift.engine.provenance import Evidence, contents_of, summarized
from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.modalities import Modality, Row, Table
from modalift.models import Predictions
from modalift.report.html import data_uri, esc
from modalift.report.numbers import percent

Images = NDArray[np.uint8]
Sample = dict[str, Any]

_SCREEN = (23, 23, 26)
#: Metadata about the file, not about the scene, which is not shown.
_FILE_METADATA = ("frame", "sample", "width", "height", "rate", "fps", "box", "mask", "size")
_MAPS = {"depth": cv2.COLORMAP_VIRIDIS, "thermal": cv2.COLORMAP_INFERNO, "pose_map": cv2.COLORMAP_MAGMA,
         "pseudo_ir": cv2.COLORMAP_INFERNO}
#: Known joint layouts by number of joints: the index of the head, and the parent of each joint.
_LEGS = (3, 12, 13, 14, 3, 16, 17, 18)
_SKELETONS = {
    20: ((0, (1, 2, 3, 3, 1, 4, 5, 6, 1, 8, 9, 10, *_LEGS)),  # Kinect, from the head down (UTD-MHAD)
         (3, (0, 0, 1, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18))),  # Kinect, from the hips up
    22: ((0, (1, 2, 3, 3, 1, 4, 5, 6, 7, 7, 1, 10, 11, 12, 13, 13, 3, 16, 17, 3, 19, 20)),),  # Darkroom
    25: ((3, (0, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 7, 7, 11, 11)),),  # Kinect 2
}
#: If less than this fraction of a depth image is valid, it holds only the segmented person: crop to the person.
_CUT_OUT = 0.4


def choose_clips(table: Table, count: int, *, seed: int = 0, key: str = "lux") -> list[int]:
    """Chooses rows to show without regard to results: at random, of different classes, one per interval of ``metadata[key]``.

    If the clips do not have it, the intervals are those of the table's order. Deterministic for a seed.
    """
    def known(i: int) -> float:
        value = table[i].metadata.get(key)
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


#: Why no clips are shown beside the predictions.
CHANGED = "No clips are shown, because the recordings have changed since the networks were evaluated."


def same_recordings(part: Table, predictions: Iterable[Predictions]) -> bool:
    """Whether a split's recordings are those that were evaluated; predictions without evidence do not count.

    Args:
        part: all clips of the split.
        predictions: of any networks.
    """
    for found in predictions:
        evidence = Evidence.parse(found.evidence)
        views = list(evidence.contents) if evidence else []
        if evidence and views:
            own = part.where(lambda r, views=views: set(views) <= set(r.tracks))  # type: ignore[misc]
            now = summarized(contents_of(own, views))
            if any(was and now.get(v) and was != now[v] for v, was in evidence.contents.items()):
                return False
    return True


def sample_clips(table: Table, indices: Iterable[int], views: Sequence[str] = (), *, frames: int = 16,
                 height: int = 128, predictions: Mapping[str, Predictions] | None = None) -> list[Sample]:
    """Reads clips for display: every view as a few small RGB frames.

    Args:
        table: the clips.
        indices: rows of the table.
        views: views in the order of display; by default all views of the table.
        frames: largest number of frames per clip, evenly spread.
        height: height of a frame, pixels.
        predictions: network -> its predictions (matched by clip id).

    Returns:
        ``{"id", "label" (class name or None), "subject", "metadata", "views": {view: (T, h, w, 3) uint8}, "predictions":
        {network: (class name, probability)}, "problems": {view: why it could not be read}}``.

    Raises:
        ModaliftError: the table lacks a view.
    """
    wanted = list(views) or list(table.views)
    kinds = {v: table.modality(v) for v in wanted}
    samples = []
    for index in indices:
        row = table[index]
        images, problems = {}, {}
        for view in wanted:
            if view in row.tracks:
                try:
                    images[view] = _view(row, view, kinds[view], frames, height)
                except ModaliftError as error:
                    problems[view] = str(error)
        samples.append({
            "id": row.id, "label": None if row.label is None else table.classes[row.label], "subject": row.subject,
            "metadata": dict(row.metadata), "views": images, "problems": problems,
            "predictions": {name: found for name, p in (predictions or {}).items()
                        if (found := _prediction_of(p, row.id, table.classes)) is not None},
        })
    return samples


def _view(row: Row, view: str, kind: Modality, frames: int, height: int) -> Images:
    start, end = reading.window(row.tracks[view])
    if kind.kind == "signal":  # a signal is drawn with its past, so it is read completely
        whole = reading.read(row.tracks[view], kind)
        return signal_frames(whole.reshape(len(whole), -1), kind, frames, height)
    chosen = np.unique(np.linspace(0, end - start - 1, min(frames, end - start)).round().astype(int))
    return resize(to_rgb(reading.read(row.tracks[view], kind, chosen.tolist()), kind), height)


def _prediction_of(p: Predictions, clip: str, classes: Sequence[str]) -> tuple[str, float] | None:
    where = np.flatnonzero(p.ids == clip)
    if not len(where):
        return None
    best = int(p.probabilities[where[0]].argmax())
    return classes[best], float(p.probabilities[where[0], best])


# ---- from readings to frames --------------------------------------------------------------------------------------


def to_rgb(frames: NDArray[Any], kind: Modality) -> Images:
    """Converts readings ``(T, H, W, C)`` in the sensor's unit to RGB ``(T, H, W, 3)``.

    Color clips are not changed. Depth and thermal are stretched over the clip's own range (1st to 99th
    percentile) and colored: near or warm is bright; invalid readings are dark. Flow shows direction as hue.
    """
    x = frames.astype(np.float32)
    if kind.name == "flow" and x.shape[-1] == 2:
        return _flow_to_rgb(x)
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


def _flow_to_rgb(x: NDArray[np.float32]) -> Images:
    speed = np.hypot(x[..., 0], x[..., 1])
    top = max(float(np.percentile(speed, 99)), 1e-3)
    hue = (np.arctan2(x[..., 1], x[..., 0]) + np.pi) / (2 * np.pi) * 179
    hsv = np.stack([hue, np.full_like(hue, 190), 255 * np.clip(speed / top, 0, 1)], -1).astype(np.uint8)
    return np.stack([cv2.cvtColor(f, cv2.COLOR_HSV2RGB) for f in hsv]).astype(np.uint8)


def _square(seen: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The square around all valid readings, enlarged by a tenth, inside the image."""
    y, x = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    side = int(min(1.1 * max(y[-1] - y[0], x[-1] - x[0]) + 2, *seen.shape))
    top = int(np.clip((y[0] + y[-1] - side) // 2, 0, seen.shape[0] - side))
    left = int(np.clip((x[0] + x[-1] - side) // 2, 0, seen.shape[1] - side))
    return slice(top, top + side), slice(left, left + side)


def resize(images: Images, height: int) -> Images:
    """Resizes frames to a height, at most twice the recorded one; the width is a multiple of 16 (JPEG blocks)."""
    h, w = images.shape[1:3]
    tall = min(height, 2 * h)
    wide = max(16, round(w * tall / h / 16) * 16)
    how = cv2.INTER_AREA if tall < h else cv2.INTER_CUBIC
    return np.stack([cv2.resize(f, (wide, tall), interpolation=how) for f in images]).astype(np.uint8)


def signal_frames(values: NDArray[Any], kind: Modality, frames: int, height: int) -> Images:
    """Draws a signal ``(T, C)`` as frames: joints as a stick figure, other signals as curves over time."""
    values = np.nan_to_num(np.asarray(values, np.float32))
    chosen = np.unique(np.linspace(0, len(values) - 1, min(frames, len(values))).round().astype(int))
    if kind.name == "pose" and values.shape[1] % 3 == 0 and values.shape[1] >= 9:
        return _skeleton_frames(values.reshape(len(values), -1, 3), chosen, height)
    return _curve_frames(values, chosen, height)


def _skeleton_frames(joints: NDArray[np.float32], chosen: NDArray[Any], height: int) -> Images:
    bones, upwards = skeleton(joints)
    xy = joints[..., :2].astype(np.float64)
    center = (xy.min((0, 1)) + xy.max((0, 1))) / 2
    if upwards:
        xy, center = xy * (1, -1), center * (1, -1)
    zoom = 0.86 * height / max(float(np.ptp(xy, axis=(0, 1)).max()), 1e-6)
    out = np.full((len(chosen), height, height, 3), _SCREEN, np.uint8)
    for image, t in zip(out, chosen, strict=True):
        at = np.round(((xy[t] - center) * zoom + height / 2) * 16).astype(int)
        for a, b in bones:
            cv2.line(image, at[a].tolist(), at[b].tolist(), (69, 196, 180), 2, cv2.LINE_AA, 4)
        for point in at:
            cv2.circle(image, point.tolist(), 34, (240, 236, 228), -1, cv2.LINE_AA, 4)
    return out


def skeleton(joints: NDArray[Any]) -> tuple[list[tuple[int, int]], bool]:
    """The bones of joints ``(T, J, 3)`` without known names, and whether y points up.

    Uses the known layout of that many joints with the shortest bones, or else estimates one: bones are short and of constant
    length, so each pair of joints costs its mean distance plus five times its standard deviation, and the minimum spanning
    tree (Prim's algorithm) is taken; y points up if most joints are in the upper half.
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


def _curve_frames(values: NDArray[np.float32], chosen: NDArray[Any], height: int) -> Images:
    wide, lanes = height * 3 // 2 // 16 * 16, min(values.shape[1], 6)
    colors = [(69, 196, 180), (240, 146, 79), (143, 155, 255), (232, 121, 185), (205, 185, 74), (156, 163, 175)]
    low, high = values[:, :lanes].min(0), values[:, :lanes].max(0)
    share = (values[:, :lanes] - low) / np.maximum(high - low, 1e-6)
    lane = height / lanes
    x = np.linspace(4, wide - 4, len(values))
    out = np.full((len(chosen), height, wide, 3), _SCREEN, np.uint8)
    for image, t in zip(out, chosen, strict=True):
        for k in range(lanes):
            points = np.round(np.stack([x, lane * (k + 0.9 - 0.8 * share[:, k])], -1) * 16).astype(np.int32)
            ahead = tuple(round(0.3 * c) for c in colors[k])
            cv2.polylines(image, [points], False, ahead, 1, cv2.LINE_AA, 4)
            cv2.polylines(image, [points[: t + 1]], False, colors[k], 1, cv2.LINE_AA, 4)
            cv2.circle(image, points[t].tolist(), 34, (240, 236, 228), -1, cv2.LINE_AA, 4)
    return out


# ---- as HTML --------------------------------------------------------------------------------------------------------


def gallery(samples: Sequence[Sample], note: str) -> str:
    """All samples as cards, with a check box that pauses the animations."""
    if not samples:
        return ""
    return (f'<p>{esc(note)}</p><label class="still"><input type="checkbox" id="still"> pause all animations</label>'
            f'<div class="clips">{"".join(clip(s) for s in samples)}</div>')


def clip(sample: Sample) -> str:
    """One clip: its label, each sensor's recording, and each network's prediction."""
    known = {k: v for k, v in sample.get("metadata", {}).items() if not any(w in k for w in _FILE_METADATA)}
    first = sorted(known, key=lambda k: k != "lux")[:3]
    metadata = [f"{known[k]:.3g} {k}" if k == "lux" and isinstance(known[k], float) else f"{k.replace('_', ' ')} "
             + (f"{known[k]:.3g}" if isinstance(known[k], float) else str(known[k])) for k in first]
    predicted = " · ".join([str(sample.get("id", "")), *([f"subject {s}"] if (s := sample.get("subject")) else []), *metadata])
    views = "".join(animation(v, images) for v, images in sample.get("views", {}).items())
    views += "".join(f'<p class="note">{esc(v)} could not be read: {esc(why)}</p>'
                     for v, why in sample.get("problems", {}).items())
    label = sample.get("label")
    predictions = "".join(prediction_bar(n, c, p, label) for n, (c, p) in sample.get("predictions", {}).items())
    shown = len(sample.get("views", {}))
    across = shown if 2 <= shown <= 4 else 3 if shown in (5, 6) else 4 if shown > 6 else 2
    title = esc(label) if label is not None else '<span class="soft">not labeled</span>'
    return (f'<figure class="card clip"><h3>{title}</h3><figcaption>{esc(predicted)}</figcaption>'
            f'<div class="views" style="--c:{across}">{views}</div>{predictions}</figure>')


def animation(view: str, images: NDArray[Any], rate: float = 8.0) -> str:
    """Shows frames ``(T, H, W[, 3])`` as one image strip that CSS moves frame by frame (no video decoder, no script)."""
    frames = np.asarray(images, np.uint8)
    if frames.ndim == 3:
        frames = np.repeat(frames[..., None], 3, -1)
    if frames.ndim != 4 or not frames.size:
        return f'<figure class="view"><p class="note">{esc(view)}: no frames</p></figure>'
    T, H, W = frames.shape[:3]
    strip = frames.transpose(1, 0, 2, 3).reshape(H, T * W, 3)
    done, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(strip[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 84])
    if not done:  # JPEG ends at 65500 pixels
        raise ModaliftError(f"view '{view}': {T} frames of {W} pixels do not fit into one image strip - show fewer frames")
    side = f"width:{100 * W / max(W, H):.4g}%"
    return (f'<figure class="view"><div class="screen"><div class="animation" style="{side};aspect-ratio:{W}/{H};--n:{T};'
            f'--d:{T / rate:.2f}s"><img alt="{esc(view)}" style="width:{100 * T}%" src="{data_uri(jpeg.tobytes())}">'
            f"</div></div><figcaption>{esc(view)}</figcaption></figure>")


def prediction_bar(network: str, predicted: str, probability: float, label: str | None) -> str:
    """One network's prediction as a bar, green if it is correct."""
    state = "unknown" if label is None else "yes" if predicted == label else "no"
    sign = {"yes": "✓ ", "no": "✗ ", "unknown": ""}[state]
    width = 100 * min(1.0, max(0.0, probability))
    return (f'<div class="prediction {state}"><span class="who">{esc(network)}</span><span class="what">'
            f'<i style="width:{width:.0f}%"></i><b>{sign}{esc(predicted)}</b></span>'
            f'<span class="p">{percent(probability, 0)}</span></div>')
