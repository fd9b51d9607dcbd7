"""SYSU-MM01: images of persons by four color and two near-infrared cameras, for the translator's identity encoders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modalift.datasets.registry import dataset
from modalift.errors import ModaliftError
from modalift.files import entries, is_file, is_folder, name_text, read_bytes, read_text
from modalift.loading import matlab, reading
from modalift.modalities import Row, Table, Track, build_table, modality
from modalift.values import whole

#: Cameras for visible light, and for near infrared.
COLOR, INFRARED = (1, 2, 4, 5), (3, 6)
SPLITS = ("train", "val", "test")


@dataset("sysu_mm01", recognize=lambda root: is_folder(root / "exp") and is_folder(root / "cam1"))
def read_sysu_mm01(root: Path, *, cameras: Sequence[int] = (1, 2, 3, 4, 5, 6), train_on_val: bool = True,
                   together: bool = False) -> Table:
    """Every image is a clip of one frame; its class is the person, and its only view the sensor of its camera.

    The sensors are not pixel-aligned: a clip has the view ``rgb`` or the view ``nir``, never both. A camera has no folder
    for persons whom it did not record. The lists in ``exp/`` define the splits.

    Args:
        root: the download: ``cam1`` .. ``cam6`` with ``<person>/<image>.jpg``, and ``exp/train_id.txt``, ``val_id.txt``
            and ``test_id.txt`` (or the ``.mat`` files of those names).
        cameras: the cameras to use, of 1 to 6.
        train_on_val: add the 99 persons of the validation list to the training split, as is usual (395 persons in all);
            there is then no validation split.
        together: give near-infrared images also as view ``rgb`` (three equal channels), for one encoder of both.

    Raises:
        ModaliftError: a missing list or camera, or a list that is not a line of numbers.
    """
    splits = {split: _persons(root, split) for split in SPLITS}
    for camera in cameras:
        if camera not in (*COLOR, *INFRARED):
            raise ModaliftError(f"data.options.cameras: there is no camera {camera} - cameras are 1 to 6")
    where = {person: split for split, persons in splits.items() for person in persons}
    if len(where) < sum(map(len, splits.values())):
        twice = next(p for p in where if sum(persons.count(p) for persons in splits.values()) > 1)
        raise ModaliftError(f"{root}/exp: person {twice} is in two lists, or twice in one - use the lists of the download")
    rows = []
    for camera in cameras:
        folder = root / f"cam{camera}"
        if not is_folder(folder):
            raise ModaliftError(f"{folder}: no such camera folder - give data.root=.../SYSU-MM01, or choose"
                                " data.options.cameras")
        for person in sorted(entries(folder), key=lambda p: reading.natural(p.name)):
            number = int(person.name) if re.fullmatch(r"[0-9]{1,9}", person.name) else -1
            if number not in where:  # in no list: 42 of the 533 persons
                continue
            split = "train" if where[number] == "val" and train_on_val else where[number]
            views = ("rgb",) if camera in COLOR else ("nir", "rgb") if together else ("nir",)
            for image in sorted(entries(person), key=lambda p: reading.natural(p.name)):
                if image.suffix.lower() in reading.IMAGES:
                    rows.append((camera, number, split, image, views))
    seen = {number: k for k, number in enumerate(sorted({number for _, number, *_ in rows}))}
    kinds = {name: modality(name) for name in ("rgb", "nir") if any(name in views for *_, views in rows)}
    return build_table("sysu_mm01", [f"{number:04d}" for number in seen], kinds, (
        Row(f"cam{camera}/{number:04d}/{name_text(image.stem)}", seen[number], f"{number:04d}", split,
            {view: Track(image) for view in views}, {"camera": float(camera)})
        for camera, number, split, image, views in rows), {k: k for k in range(len(seen))})


def _persons(root: Path, split: str) -> list[int]:
    """The persons of one list: one line of comma-separated numbers, or a MATLAB file."""
    text, matrix = root / "exp" / f"{split}_id.txt", root / "exp" / f"{split}_id.mat"
    if is_file(text):
        cells = [c.strip() for c in read_text(text).replace("\n", ",").split(",") if c.strip()]
        try:
            if not cells:
                raise ValueError("is empty")
            return [whole(cell) for cell in cells]
        except ValueError as error:
            raise ModaliftError(f"{text}: not a line of comma-separated numbers ({error}) - use the file of the download") \
                from None
    if not is_file(matrix):
        raise ModaliftError(f"{text}: no such list - give data.root=.../SYSU-MM01 with its folder exp")
    numbers = matlab.arrays(read_bytes(matrix), str(matrix)).get("id")
    if numbers is None or not numbers.size or not np.isfinite(numbers).all():
        raise ModaliftError(f"{matrix}: has no list 'id' - use the file of the download")
    return [int(n) for n in numbers.ravel()]
