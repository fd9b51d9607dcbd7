"""Simulated datasets: clips are drawn at random, rendered, passed through sensor models and written.

See :func:`simulate`. Every clip has its own seed (``SeedSequence([seed, 1, clip])``), and every subject
(``[seed, 0, subject]``), so that neither the number of workers nor their order changes a byte.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import tempfile
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

VERSION = 1
#: Views that can be written -> their modalities.
VIEWS = {"rgb": "rgb", "rgb_day": "rgb", "depth": "depth", "nir": "nir", "thermal": "thermal", "pose": "pose"}
#: View -> space; views of one space are pixel-aligned: color by night and by day; depth and near-infrared.
# The name of a space seeds its random augmentation: with another spelling the same seed would give other networks.
_COLOR = "colour"
SPACES = {"rgb": _COLOR, "rgb_day": _COLOR, "depth": "depth", "nir": "depth", "thermal": "thermal", "pose": ""}
#: Exposure time in seconds.
EXPOSURE = 1 / 30
#: Outdoors or not -> illuminance of the daylight clips in lux: a lit room, an overcast day.
DAYLIGHT = {False: 400.0, True: 8000.0}
#: Horizontal fields of view in degrees, and distances from the color camera in meters.
FOV = {"rgb": 32.0, "depth": 35.0, "thermal": 42.0}
BASELINE = {"rgb": 0.0, "depth": 0.05, "thermal": 0.20}
COLUMNS = ("clip_id", "label", "label_name", "subject", "split", "rgb", "rgb_day", "depth", "nir", "thermal", "pose",
           "frames", "rate", "lux", "place", "hand", "distance_m", "moving_thing")


@dataclass(frozen=True)
class Settings:
    """The arguments of :func:`simulate`, as ``dataset.json`` holds them."""

    clips: int
    size: int = 64
    frames: int = 16
    lux: tuple[float, float] = (1.0, 8.0)
    seed: int = 0
    train_subjects: int = 16
    val_subjects: int = 0
    test_subjects: int = 5
    test_share: float = 1 / 3
    modalities: tuple[str, ...] = tuple(VIEWS)

    @property
    def rate(self) -> float:
        """Frames per second: a clip always lasts 2 s."""
        return self.frames / DURATION

    def check(self) -> None:
        """Raises :class:`~modalift.errors.ModaliftError` for the first argument outside its range."""
        for name, low, high in (("clips", 1, 10_000_000), ("size", 16, 1024), ("frames", 2, 600),
                                ("train_subjects", 1, 10_000), ("test_subjects", 0, 10_000),
                                ("val_subjects", 0, self.train_subjects - 1)):
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
            raise ModaliftError(f"modalities is empty - choose from {', '.join(VIEWS)}")
        for name in self.modalities:
            if name not in VIEWS:
                raise ModaliftError(f"unknown modality '{name}' - {nearest(name, VIEWS)}")


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
    T = settings.frames
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
    center = (np.arange(T) + 0.5) / settings.rate
    moments = (center + (MOMENTS[:, None] - 0.5) * EXPOSURE).reshape(-1)
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
    noise = {v: np.random.default_rng([settings.seed, 2, planned.index, i]) for i, v in enumerate(VIEWS)}
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
        else:
            bolometer = ThermalSensor()
            warm = heat(hits, scene, subject, cast, place, camera, T, bolometer)
            videos["thermal"] = bolometer.measure(warm, noise["thermal"],
                                                  bolometer.pattern(camera.width, settings.seed))
    return Clip(videos, pose, metadata)


def _write(job: tuple[Settings, int, str]) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Renders one clip and writes its videos below a folder; returns its manifest row and its joints."""
    settings, index, folder = job
    planned = plan(settings, index)
    clip = render(settings, planned)
    row: dict[str, Any] = {
        "clip_id": planned.name, "label": planned.label, "label_name": GESTURES[planned.label],
        "subject": subject_name(planned.subject), "split": planned.split, "frames": settings.frames,
        "rate": f"{settings.rate:g}", **clip.metadata}
    rate = Fraction(settings.frames) / Fraction(DURATION)
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
    with multiprocessing.get_context("spawn").Pool(workers, cv2.setNumThreads, (1,)) as pool:
        yield from pool.imap(_write, jobs, chunksize=4)


def simulate(out: Path | str, *, clips: int, size: int = 64, frames: int = 16, lux: tuple[float, float] = (1.0, 8.0),
             seed: int = 0, workers: int = 1, train_subjects: int = 16, val_subjects: int = 0, test_subjects: int = 5,
             test_share: float = 1 / 3, modalities: Sequence[str] | None = None,
             progress: Callable[[int, int], None] | None = None) -> Path:
    """Writes a dataset of simulated clips. The same arguments give the same bytes, for any number of workers.

    The folder then holds

    - ``manifest.csv``, one row per clip: ``clip_id``, ``label`` (0..9), ``label_name``, ``subject``, ``split`` (train,
      val, test), one column per view with the path of its file relative to the folder (empty if not written),
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
        frames: frames per clip; a clip always lasts 2 s.
        lux: range of the illuminance in the dark, drawn log-uniformly.
        seed: seed of everything.
        workers: number of processes, each a fresh interpreter: a script that uses more than one must call this below
            ``if __name__ == "__main__":``.
        train_subjects, test_subjects: numbers of subjects in the two splits, which share none.
        val_subjects: how many of the training subjects are in the split ``val`` instead.
        test_share: share of the clips that are by test subjects.
        modalities: views to write, of ``rgb, rgb_day, depth, nir, thermal, pose``; all if None.
        progress: called with (clips done, clips).

    Raises:
        ModaliftError: an argument outside its range, or an ``out`` that is not empty.
    """
    out = Path(out)
    settings = Settings(clips, size, frames, (float(lux[0]), float(lux[1])), seed, train_subjects, val_subjects,
                        test_subjects, test_share, tuple(VIEWS) if modalities is None else
                        tuple(v for v in VIEWS if v in modalities) + tuple(v for v in modalities if v not in VIEWS))
    settings.check()
    if workers < 1:
        raise ModaliftError(f"workers is {workers} - give 1 or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModaliftError(f"{out} exists and is not empty - give a new folder, or remove it first")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise ModaliftError(f"{out} cannot be written ({error.strerror}) - choose another folder") from error
    try:
        _fill(partial, settings, workers, progress)
        os.chmod(partial, 0o755)
        if out.exists():  # it is empty; not every system replaces a folder
            out.rmdir()
        os.replace(partial, out)
    except OSError as error:
        raise ModaliftError(f"{out} could not be written ({error.strerror}) - free some space or choose another folder"
                            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
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
        table = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    if "pose" in settings.modalities:
        write_npz(folder / "pose.npz", poses)
    about = {"format": f"modalift-darkroom/{VERSION}", "arguments": asdict(settings), "classes": list(GESTURES),
             "mirrored": MIRRORED, "joints": list(JOINTS), "views": {v: VIEWS[v] for v in settings.modalities},
             "spaces": {v: SPACES[v] for v in settings.modalities}, "rate": settings.rate}
    (folder / "dataset.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
