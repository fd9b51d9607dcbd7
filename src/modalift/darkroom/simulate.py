"""Simulated datasets: clips are drawn at random, rendered, passed through sensor models and written.

See :func:`simulate`. Every clip has its own seed (``SeedSequence([seed, 1, clip])``), and every subject
(``[seed, 0, subject]``), so that neither the number of workers nor their order changes a byte.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from modalift.darkroom.backdrop import backdrop
from modalift.darkroom.body import JOINTS, Subject, figure, sample_subject
from modalift.darkroom.camera import MOMENTS, Camera, look_at, rasterize
from modalift.darkroom.files import write_npz, write_video
from modalift.darkroom.motions import DURATION, GESTURES, MIRRORED, sample_motion
from modalift.darkroom.scene import sample_mover, sample_place
from modalift.darkroom.sensors import DepthSensor, NirSensor, RgbSensor, ThermalSensor
from modalift.darkroom.shading import active, actors, color, heat, tint
from modalift.errors import ModaliftError, nearest
from modalift.files import folder_beside
from modalift.interruption import starting_processes

VERSION = 1
#: Views that can be written -> their modalities.
VIEWS = {"rgb": "rgb", "rgb_day": "rgb", "depth": "depth", "nir": "nir", "thermal": "thermal", "pose": "pose"}
#: Views of the sensors that need no light, by daylight, which are written only if asked for -> their modalities.
DAYLIGHT_VIEWS = {"depth_day": "depth", "nir_day": "nir", "thermal_day": "thermal"}
_MODALITIES = {**VIEWS, **DAYLIGHT_VIEWS}
#: View -> space; views of one space are pixel-aligned: color by night and by day; depth and near-infrared.
# The name of a space seeds its random augmentation: with another spelling the same seed would give other networks.
_COLOR = "colour"
SPACES = {"rgb": _COLOR, "rgb_day": _COLOR, "depth": "depth", "nir": "depth", "thermal": "thermal", "pose": "",
          "depth_day": "depth", "nir_day": "depth", "thermal_day": "thermal"}
#: Exposure time in seconds.
EXPOSURE = 1 / 30
#: Outdoors or not -> illuminance of the daylight clips in lux: a lit room, an overcast day.
DAYLIGHT = {False: 400.0, True: 8000.0}
#: Horizontal fields of view in degrees, and distances from the color camera in meters.
FOV = {"rgb": 32.0, "depth": 35.0, "thermal": 42.0}
BASELINE = {"rgb": 0.0, "depth": 0.05, "thermal": 0.20}
#: Arguments of :func:`simulate` for the likeness of a published set. MGR-Dark: 45 to 210 frames at 25 frames per second, color,
#: depth and thermal infrared in the dark and by daylight, 16 and 5 subjects.
PRESETS: dict[str, dict[str, Any]] = {
    "mgr_dark": {"frames": (45, 210), "fps": 25.0, "train_subjects": 16, "test_subjects": 5, "test_share": 5 / 21,
                 "modalities": ("rgb", "rgb_day", "depth", "depth_day", "thermal", "thermal_day")}}
COLUMNS = ("clip_id", "label", "label_name", "subject", "split", "rgb", "rgb_day", "depth", "nir", "thermal", "pose",
           "frames", "rate", "lux", "place", "hand", "distance_m", "moving_thing")


@dataclass(frozen=True)
class Settings:
    """The arguments of :func:`simulate`, as ``dataset.json`` holds them."""

    clips: int
    size: int = 64
    frames: int | tuple[int, int] = 16
    lux: tuple[float, float] = (1.0, 8.0)
    seed: int = 0
    train_subjects: int = 16
    val_subjects: int = 0
    test_subjects: int = 5
    test_share: float = 1 / 3
    modalities: tuple[str, ...] = tuple(VIEWS)
    fps: float | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """As ``dataset.json`` holds them; without the frame rate if a clip lasts 2 s."""
        return {key: value for key, value in asdict(self).items() if key != "fps" or value is not None}

    @property
    def rate(self) -> float:
        """Frames per second; unless it is given, a clip lasts 2 s."""
        return self.fps or self.shortest / DURATION

    @property
    def shortest(self) -> int:
        return self.frames if isinstance(self.frames, int) else self.frames[0]

    @property
    def longest(self) -> int:
        return self.frames if isinstance(self.frames, int) else self.frames[1]

    def length(self, index: int) -> int:
        """The number of frames of a clip."""
        if self.shortest == self.longest:
            return self.shortest
        return int(np.random.default_rng([self.seed, 3, index]).integers(self.shortest, self.longest + 1))

    def check(self) -> None:
        """Raises :class:`~modalift.errors.ModaliftError` for the first argument outside its range."""
        if not 2 <= self.shortest <= self.longest <= 600:
            shown = self.frames if isinstance(self.frames, int) else f"{self.shortest} to {self.longest}"
            raise ModaliftError(f"frames is {shown} - give a number from 2 to 600, or the fewest and then the most")
        if self.fps is None and self.shortest != self.longest:
            raise ModaliftError(f"frames is {self.shortest} to {self.longest}, but fps is not given - give the frames"
                                " per second")
        if self.fps is not None and not 1 <= self.fps <= 300:
            raise ModaliftError(f"fps is {self.fps:g} - give a number from 1 to 300")
        for name, low, high in (("clips", 1, 10_000_000), ("size", 16, 1024), ("train_subjects", 1, 10_000),
                                ("test_subjects", 0, 10_000), ("val_subjects", 0, self.train_subjects - 1)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ModaliftError(f"{name} is {value} - give a number from {low} to {high}")
        if self.seed < 0:
            raise ModaliftError(f"seed is {self.seed} - give 0 or more")
        if not 0 < self.lux[0] <= self.lux[1] <= 1e5:
            raise ModaliftError(f"lux is {self.lux[0]:g} to {self.lux[1]:g} - give the lower bound first, above 0 and "
                                "at most 100000")
        if not 0 <= self.test_share < 1:
            raise ModaliftError(f"test_share is {self.test_share:g} - give a share from 0 up to (not including) 1")
        if not self.modalities:
            raise ModaliftError(f"modalities is empty - choose from {', '.join(_MODALITIES)}")
        for name in self.modalities:
            if name not in _MODALITIES:
                raise ModaliftError(f"unknown modality '{name}' - {nearest(name, _MODALITIES)}")


@dataclass(frozen=True)
class Plan:
    """Class, subject and split of one clip."""

    index: int
    name: str
    label: int
    subject: int
    split: str


@dataclass
class Clip:
    """One rendered clip.

    Attributes:
        videos: view -> frames.
        pose: joints ``(T, J, 3)`` in meters, in the color camera's frame.
        metadata: illuminance, place and other properties.
    """

    videos: dict[str, NDArray[Any]]
    pose: NDArray[np.float32]
    metadata: dict[str, str | float]


def plan(settings: Settings, index: int) -> Plan:
    """The plan of a clip: training clips come first; ten consecutive clips are the ten classes of one subject."""
    test = round(settings.clips * settings.test_share) if settings.test_subjects else 0
    train = settings.clips - test
    if index < train:
        subject = index // len(GESTURES) % settings.train_subjects
        split = "train" if subject < settings.train_subjects - settings.val_subjects else "val"
        label = index % len(GESTURES)
    else:
        label = (index - train) % len(GESTURES)
        subject = settings.train_subjects + (index - train) // len(GESTURES) % settings.test_subjects
        split = "test"
    return Plan(index, f"clip{index:06d}", label, subject, split)


def person(settings: Settings, number: int) -> Subject:
    """The subject of that number."""
    return sample_subject(np.random.default_rng([settings.seed, 0, number]))


def _rig(rng: np.random.Generator, target: NDArray[np.float64], size: int) -> dict[str, Camera]:
    """Three cameras in a row; the thermal one is not exactly parallel to the others and has another resolution."""
    middle = np.array([0.0, rng.uniform(1.15, 1.55), 0.0])
    axes = look_at(middle, target, float(rng.normal(0.0, 0.015)))
    wide = (2 * round(size * 0.625), 2 * round(size * 0.46875))
    shapes = {"rgb": (size, size), "depth": (size, size), "thermal": wide}
    cameras = {}
    for name, (width, height) in shapes.items():
        position = middle + BASELINE[name] * axes[0]
        own = axes
        if name == "thermal":
            own = look_at(position, target + rng.normal(0.0, 0.04, 3), float(rng.normal(0.0, 0.02)))
        cameras[name] = Camera(height, width, FOV[name], position, own)
    return cameras


def render(settings: Settings, planned: Plan) -> Clip:
    """Draws, renders and measures one clip."""
    rng = np.random.default_rng([settings.seed, 1, planned.index])
    subject, gesture = person(settings, planned.subject), GESTURES[planned.label]
    views = settings.modalities
    T = settings.length(planned.index)
    pace = DURATION * settings.rate / T  # seconds of a gesture's 2 per second of the clip
    distance, yaw = float(2.1 + 1.8 * rng.random() ** 1.4), float(rng.normal(0.0, 0.14))
    origin = np.array([rng.normal(0.0, 0.08), 0.0, distance])
    # Rows: the body's right, up and forward in the world; the right hand of a person who faces the cameras is at their left.
    body = np.array([[-np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, -np.cos(yaw)]])
    target = np.array([rng.normal(0.0, 0.05), 1.33 * subject.height / 1.75 + rng.normal(0.0, 0.03), distance])
    cameras = _rig(rng, target, settings.size)
    chest = np.array([origin[0], 1.28 * subject.height / 1.75, distance])
    place = sample_place(rng, chest)
    mover = sample_mover(rng, chest, place.ambient_celsius) if rng.random() < 0.35 else None
    lux = float(np.exp(rng.uniform(*np.log(settings.lux))))
    motion = sample_motion(rng, gesture, subject.style, subject.left_handed)
    center = (np.arange(T) + 0.5) / settings.rate * pace
    moments = (center + (MOMENTS[:, None] - 0.5) * EXPOSURE * pace).reshape(-1)
    whole = figure(subject, motion, np.concatenate([moments, center]))
    pose = cameras["rgb"].into(whole.joints[len(moments):] @ body + origin)
    metadata: dict[str, str | float] = {
        "lux": round(lux, 3), "place": "outdoor" if place.outdoor else "room",
        "hand": "left" if subject.left_handed else "right", "distance_m": round(distance, 3),
        "moving_thing": int(mover is not None)}
    capsules = whole.capsules
    capsules.start, capsules.end = capsules.start[:len(moments)], capsules.end[:len(moments)]
    cast = actors(subject, capsules, body, origin, whole.head[:len(moments)], mover, moments / DURATION, moments,
                  place.ambient_celsius)
    noise = {v: np.random.default_rng([settings.seed, 2, planned.index, i]) for i, v in enumerate(_MODALITIES)}
    sun = DAYLIGHT[True] if place.outdoor else 0.0  # lux of daylight; lamps light a room
    videos: dict[str, NDArray[Any]] = {}
    for name, camera in cameras.items():
        if not [v for v in views if SPACES[v] == {"rgb": _COLOR}.get(name, name)]:
            continue
        scene = backdrop(camera, place)
        hits = rasterize(camera, camera.into(cast.start), camera.into(cast.end), cast.radius, scene.depth)
        if name == "rgb":
            sensor, albedo = RgbSensor(), tint(hits, subject, cast, camera)
            fixed = sensor.pattern(camera.height, camera.width, settings.seed)
            for view, light, glow, level in (("rgb", place.night, scene.night_glow, lux),
                                             ("rgb_day", place.day, scene.day_glow, DAYLIGHT[place.outdoor])):
                if view in views:
                    seen = color(hits, albedo, scene, glow, light, cast, camera, T)
                    videos[view] = sensor.expose(seen, level, noise[view], fixed)
        elif name == "depth":
            z, amplitude = active(hits, scene, subject, cast, camera, T)
            if "depth" in views:
                videos["depth"] = DepthSensor().measure(z, amplitude, camera.focal, noise["depth"])
            if "nir" in views:
                videos["nir"] = NirSensor().measure(amplitude.mean(0), noise["nir"])
            if "depth_day" in views:
                videos["depth_day"] = DepthSensor().measure(z, amplitude, camera.focal, noise["depth_day"], sun)
            if "nir_day" in views:
                seen = amplitude.mean(0)
                glare = seen * (DepthSensor().daylight_noise(z.mean(0), sun) ** 2 - 1)
                videos["nir_day"] = NirSensor().measure(seen, noise["nir_day"], glare if sun else None)
        else:
            bolometer = ThermalSensor()
            warm = heat(hits, scene, subject, cast, place, camera, T, bolometer)
            for view in ("thermal", "thermal_day"):  # it sees the same by night and by day
                if view in views:
                    videos[view] = bolometer.measure(warm, noise[view], bolometer.pattern(camera.width, settings.seed))
    return Clip(videos, pose, metadata)


def _write(job: tuple[Settings, int, str]) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Renders one clip and writes its videos below a folder; returns its manifest row and its joints."""
    settings, index, folder = job
    planned = plan(settings, index)
    clip = render(settings, planned)
    row: dict[str, Any] = {
        "clip_id": planned.name, "label": planned.label, "label_name": GESTURES[planned.label],
        "subject": subject_name(planned.subject), "split": planned.split, "frames": len(clip.pose),
        "rate": f"{settings.rate:g}", **clip.metadata}
    rate = Fraction(settings.rate).limit_denominator(1001)
    for view, frames in clip.videos.items():
        row[view] = f"{view}/{planned.name}.mkv"
        write_video(Path(folder, row[view]), frames, rate)
    if "pose" in settings.modalities:
        row["pose"] = "pose.npz"
    return row, clip.pose


def subject_name(number: int) -> str:
    """``s01`` for subject 0, and so on."""
    return f"s{number + 1:02d}"


def _work(settings: Settings, folder: str, workers: int) -> Iterator[tuple[dict[str, Any], NDArray[np.float32]]]:
    jobs = [(settings, i, folder) for i in range(settings.clips)]
    if workers <= 1:
        yield from map(_write, jobs)
        return
    # One fresh interpreter per worker: forking a process that already runs threads can hang.
    with starting_processes():
        pool = multiprocessing.get_context("spawn").Pool(workers, cv2.setNumThreads, (1,))
    with pool:
        yield from pool.imap(_write, jobs, chunksize=4)


def simulate(out: Path | str, *, clips: int, size: int = 64, frames: int | tuple[int, int] = 16,
             lux: tuple[float, float] = (1.0, 8.0),
             seed: int = 0, workers: int = 1, train_subjects: int = 16, val_subjects: int = 0, test_subjects: int = 5,
             test_share: float = 1 / 3, modalities: Sequence[str] | None = None,
             fps: float | None = None, progress: Callable[[int, int], None] | None = None) -> Path:
    """Writes a dataset of simulated clips. The same arguments give the same bytes, for any number of workers.

    The folder then holds

    - ``manifest.csv``, one row per clip: ``clip_id``, ``label`` (0..9), ``label_name``, ``subject``, ``split`` (train,
      val, test), one column per view with the path of its file relative to the folder (empty if not written; views by
      daylight but for ``rgb_day`` only if written),
      ``frames``, ``rate`` (frames per second), and metadata: ``lux``, ``place`` (room, outdoor), ``hand`` (left, right),
      ``distance_m``, ``moving_thing`` (0, 1);
    - ``rgb/``, ``rgb_day/``, ``depth/``, ``nir/``, ``thermal/``: one ``.mkv`` per clip (MJPEG; gray FFV1; depth as
      16-bit FFV1 in millimeters, 0 for no reading);
    - ``pose.npz``: per ``clip_id`` an array ``(T, J, 3)`` float32, in meters in the color camera's frame (x right,
      y down, z forward);
    - ``dataset.json``: version, arguments, class names, joint names, mirrored classes, space of each view.

    Args:
        out: the new folder; it must not exist, or be empty.
        clips: number of clips.
        size: height and width of color and depth images in pixels; thermal images are 1.25 x ``size`` wide and 0.94 x
            ``size`` high.
        frames: frames per clip; or the fewest and the most, of which every clip draws its own number (with ``fps``).
        lux: range of the illuminance in the dark, drawn log-uniformly.
        seed: seed of everything.
        workers: number of processes, each a fresh interpreter: a script that uses more than one must call this below
            ``if __name__ == "__main__":``.
        train_subjects, test_subjects: numbers of subjects in the two splits, which share none.
        val_subjects: how many of the training subjects are in the split ``val`` instead.
        test_share: share of the clips that are by test subjects.
        modalities: views to write, of ``rgb, rgb_day, depth, nir, thermal, pose``, which are all written if None, and of
            ``depth_day, nir_day, thermal_day``: the other sensors by daylight. Outdoors, daylight adds noise to depth and
            near-infrared; thermal images differ in their noise.
        fps: frames per second; if None, a clip lasts 2 s. A gesture fills its clip, however long that is.
        progress: called with (clips done, clips).

    Raises:
        ModaliftError: an argument outside its range, or an ``out`` that is not empty.
    """
    out = Path(out)
    settings = Settings(clips, size, frames, (float(lux[0]), float(lux[1])), seed, train_subjects, val_subjects,
                        test_subjects, test_share, tuple(VIEWS) if modalities is None else
                        tuple(v for v in _MODALITIES if v in modalities) + tuple(v for v in modalities if v not in _MODALITIES),
                        fps)
    settings.check()
    if not 1 <= workers <= 1024:
        raise ModaliftError(f"workers is {workers} - give a number from 1 to 1024")
    with folder_beside(out) as partial:
        _fill(partial, settings, workers, progress)
    return out


def _fill(folder: Path, settings: Settings, workers: int, progress: Callable[[int, int], None] | None) -> None:
    for view in settings.modalities:
        if view != "pose":
            (folder / view).mkdir()
    rows, poses = [], {}
    for done, (row, pose) in enumerate(_work(settings, str(folder), workers), start=1):
        rows.append(row)
        poses[row["clip_id"]] = pose
        if progress is not None:
            progress(done, settings.clips)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        added = [view for view in DAYLIGHT_VIEWS if view in settings.modalities]
        table = csv.DictWriter(file, [*COLUMNS, *added], restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    if "pose" in settings.modalities:
        write_npz(folder / "pose.npz", poses)
    about = {"format": f"modalift-darkroom/{VERSION}", "arguments": settings.arguments, "classes": list(GESTURES),
             "mirrored": MIRRORED, "joints": list(JOINTS), "views": {v: _MODALITIES[v] for v in settings.modalities},
             "spaces": {v: SPACES[v] for v in settings.modalities}, "rate": settings.rate}
    (folder / "dataset.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
