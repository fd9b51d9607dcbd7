"""The contact sheet: the frames of all sensors for some clips, in one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from modalift.darkroom.motions import GESTURES
from modalift.darkroom.simulate import Clip, Settings, plan, render, subject_name
from modalift.errors import ModaliftError
from modalift.files import read_json, write_beside

U8 = NDArray[np.uint8]
_INK, _PAPER = (225, 225, 225), (24, 20, 18)
_TITLES = {"rgb": "dark RGB", "rgb_day": "daylight RGB", "depth": "depth", "nir": "near-infrared", "thermal": "thermal",
           "depth_day": "daylight depth", "nir_day": "daylight NIR", "thermal_day": "daylight thermal"}


def image(view: str, frame: NDArray[Any]) -> U8:
    """One frame as a BGR image: depth and temperature in false colors, missing readings black."""
    if view.startswith("depth"):
        span = np.clip((frame.astype(np.float32) - 1200) / 4300, 0, 1)
        drawn = cv2.applyColorMap((255 * (1 - span)).astype(np.uint8), cv2.COLORMAP_TURBO)
        drawn[frame == 0] = 0
        return drawn.astype(np.uint8)
    if view.startswith("thermal"):
        return cv2.applyColorMap(frame, cv2.COLORMAP_INFERNO).astype(np.uint8)
    return cv2.cvtColor(frame, cv2.COLOR_RGB2BGR if frame.ndim == 3 else cv2.COLOR_GRAY2BGR).astype(np.uint8)


def _strip(view: str, frames: NDArray[Any], moments: Sequence[int], cell: int) -> U8:
    height = round(cell * frames.shape[1] / frames.shape[2])
    cells = [cv2.resize(image(view, frames[t]), (cell, height), interpolation=cv2.INTER_NEAREST) for t in moments]
    return np.concatenate(cells, 1).astype(np.uint8)


def _block(title: str, note: str, clip: Clip, moments: Sequence[int], cell: int, width: int) -> U8:
    """One clip: one row per sensor, frames from left to right."""
    side = 118
    strips = []
    for view, frames in clip.videos.items():
        strip = _strip(view, frames, moments, cell)
        row = np.full((len(strip) + 2, side + width, 3), _PAPER, np.uint8)
        row[:-2, side:] = strip
        cv2.putText(row, _TITLES[view], (6, len(strip) // 2 + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
        strips.append(row)
    head = np.full((22, side + width, 3), _PAPER, np.uint8)
    cv2.putText(head, title, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (120, 200, 255), 1, cv2.LINE_AA)
    cv2.putText(head, note, (side, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
    return np.concatenate([head, *strips, np.full((8, side + width, 3), _PAPER, np.uint8)])


def sheet(path: Path | str, dataset: Path | str, *, clips: Sequence[int] | None = None, columns: int = 8,
          cell: int = 96) -> Path:
    """Draws some clips of a simulated dataset as a PNG: one row of frames per sensor and clip.

    The clips are rendered again from ``dataset.json`` (the same seed gives the same frames).

    Args:
        path: the PNG to write; an existing file is replaced.
        dataset: a folder that :func:`~modalift.darkroom.simulate.simulate` wrote.
        clips: indices of clips; by default one per class, of different subjects.
        columns: frames per row, spread evenly over the clip.
        cell: width of a frame in pixels.

    Raises:
        ModaliftError: the folder holds no simulated dataset, or a clip is not in it.
    """
    path, about = Path(path), Path(dataset) / "dataset.json"
    advice = "give a folder that `modalift simulate` wrote"
    try:
        settings = TypeAdapter(Settings).validate_python(read_json(about, dict, advice)["arguments"])
    except (ValueError, KeyError) as error:
        raise ModaliftError(f"{about} is not readable ({type(error).__name__}) - {advice}") from error
    settings.check()
    wanted = default_clips(settings) if clips is None else list(clips)
    shown = min(columns, settings.shortest)
    blocks = []
    for index in wanted:
        if not 0 <= index < settings.clips:
            raise ModaliftError(f"clip {index} is not in {dataset} - give numbers from 0 to {settings.clips - 1}")
        planned = plan(settings, index)
        clip = render(settings, planned)
        metadata = clip.metadata
        moments = [int((c + 0.5) * len(clip.pose) / shown) for c in range(shown)]
        note = (f"{planned.name}  {subject_name(planned.subject)}, {metadata['hand']}-handed, {planned.split}, "
                f"{metadata['lux']} lux, {metadata['distance_m']} m, {metadata['place']}")
        blocks.append(_block(GESTURES[planned.label], note, clip, moments, cell, cell * shown))
    half = (len(blocks) + 1) // 2
    left, right = np.concatenate(blocks[:half]), np.concatenate(blocks[half:] or blocks[:1])
    tall = max(len(left), len(right))
    pages = [cv2.copyMakeBorder(p, 6, 6 + tall - len(p), 6, 6, cv2.BORDER_CONSTANT, value=_PAPER)
             for p in (left, right)]
    done, data = cv2.imencode(".png", np.concatenate(pages, 1))
    if not done:
        raise ModaliftError(f"{path} could not be drawn - choose a smaller cell")
    return write_beside(path, lambda beside: beside.write_bytes(data.tobytes()))


def default_clips(settings: Settings) -> list[int]:
    """One clip per class, of different subjects if there are enough clips."""
    ten = len(GESTURES)
    chosen = []
    for label in range(ten):
        choices = [i for i in range(settings.clips) if plan(settings, i).label == label]
        if choices:
            chosen.append(choices[label % len(choices)])
    return chosen
