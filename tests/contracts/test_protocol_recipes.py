"""The published protocols on recordings as the sets ship them: 8-bit depth, and color and depth that are cropped together."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from downloads import images, text, video

from modalift import datasets
from modalift.datasets.writing import write_manifest
from modalift.derive import derive
from modalift.engine.build import assemble
from modalift.engine.evaluate import evaluate
from modalift.engine.train import train
from modalift.loading import reading
from modalift.loading.clips import ClipSet
from modalift.loading.collation import loader
from modalift.modalities import Track, modality
from modalift.recipe import TINY, Recipe, load_recipe
from modalift.recipe_files import recipe_names

SETS = ("egogesture", "nvgesture", "isogd", "viva")
#: Sets whose recipes name the layout of the download, which `sample_<set>.py` writes.
DOWNLOADS = ("ntu_rgbd", "pku_mmd")
GRAY = 200


def frames(left: int, top: int, *, color: bool) -> list[np.ndarray]:
    """Six frames of a bright box on black, away from the middle so that a mirror image is told from none."""
    made = []
    for t in range(6):
        frame = np.zeros((60, 80), np.uint8)
        frame[top:top + 22, left + t:left + t + 22] = GRAY
        made.append(np.dstack([frame] * 3) if color else frame)
    return made


def clips() -> Iterator[tuple[int, int, list[np.ndarray], list[np.ndarray]]]:
    """Subject, class, color and depth of the made-up clips: eight subjects, two classes."""
    for subject in range(1, 9):
        for c in (0, 1):
            where = (6 + 4 * subject, 8 + 3 * subject)
            yield subject, c, frames(*where, color=True), frames(*where, color=False)


def write_nvgesture(root: Path) -> None:
    lists: dict[str, str] = {"train": "", "test": ""}
    for k, c, color, depth in clips():
        folder = f"Video_data/class_{c + 1:02d}/subject{10 + k}_r0"  # subject 18 is held out of the training for validation
        lists["test" if k < 3 else "train"] += (
            f"path:./{folder} depth:sk_depth:0:6 color:sk_color:0:6 duo_left:duo_left:0:6 label:{c + 1} \n")
        for name, recording in (("sk_color", color), ("sk_depth", depth), ("duo_left", depth)):
            video(root / folder / f"{name}.avi", recording)
    for split, lines in lists.items():
        text(root / f"nvgesture_{split}_correct_cvpr2016_v2.lst", lines.encode())


def write_egogesture(root: Path) -> None:
    named = (3, 4, 5, 6, 1, 7, 2, 9)  # four of the training split, two each of the others
    for k, c, color, depth in clips():
        subject = named[k - 1]
        scene = root / "images" / f"Subject{subject:02d}" / "Scene1"
        images(scene / "Color" / f"rgb{c + 1}", color, "{:06d}.png")
        images(scene / "Depth" / f"depth{c + 1}", depth, "{:06d}.png")
        text(root / "labels-final-revised1" / f"subject{subject:02d}" / "Scene1" / f"Group{c + 1}.csv", f"{c + 1},1,6".encode())


def write_isogd(root: Path) -> None:
    lists: dict[str, str] = {"train": "", "valid": ""}
    for k, (subject, c, color, depth) in enumerate(clips(), 1):
        split = "train" if subject < 7 else "valid"
        video(root / split / "001" / f"M_{k:05d}.avi", color)
        video(root / split / "001" / f"K_{k:05d}.avi", depth)
        lists[split] += f"{split}/001/M_{k:05d}.avi {split}/001/K_{k:05d}.avi {c + 1}\n"
    for split, lines in lists.items():
        text(root / f"{split}_list.txt", lines.encode())


def write_viva(root: Path) -> None:
    for subject, c, color, depth in clips():
        name = f"{2 * subject - c:02d}_{c + 1:02d}_01.avi"
        video(root / "LISA_HG_Data" / "dynamic_gestures" / "data" / name, color)
        video(root / "LISA_HG_Data" / "dynamic_gestures" / "data" / "depth" / name, depth)


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    """The same clips as each set is downloaded, and with flow and translated color in a manifest, as NVGesture's is derived."""
    made = {name: tmp_path_factory.mktemp(name) / "data" for name in (*SETS, "derived")}
    for name, write in (("nvgesture", write_nvgesture), ("egogesture", write_egogesture), ("isogd", write_isogd),
                        ("viva", write_viva)):
        write(made[name])
        assert datasets.guess(made[name]) == name
    with_flow = derive("flow", datasets.open("nvgesture", made["nvgesture"]), made["nvgesture"].parent / "flow", view="rgb")
    translated = replace(with_flow, views={**with_flow.views, "pseudo_ir": modality("pseudo_ir")})
    write_manifest(translated.map(lambda row: replace(row, tracks={**row.tracks, "pseudo_ir": row.tracks["ir_left"]})),
                   made["derived"])
    return made


def changed(name: str, roots: dict[str, Path]) -> Recipe:
    """A published recipe at a scale of seconds, with small networks from nothing, on the made-up clips."""
    recipe = RECIPES[name]
    layout = "derived" if recipe.data.dataset == "csv" else name.split("/")[0]
    assert recipe.data.dataset == ("csv" if layout == "derived" else layout), "the download is read as it is"
    changes = [*TINY, "data.size=48", f"data.root={roots[layout]}", "data.augment.photometric=0"]
    changes += [f"scheme.{key}=" for key in recipe.scheme.model_extra or {} if key.endswith("stage")]
    for role, section in recipe.networks.items():
        if section.name == "cnn_lstm":  # its scheme asks for a recurrent head
            changes += [f"networks.{role}.init=", f"networks.{role}.grid=1"]
        elif section.name:
            changes += [f"networks.{role}={{name: small, view: {section.view}, width: 8}}"]
    return load_recipe(name, changes)


def reads_depth(recipe: Recipe) -> bool:
    views = {section.view for section in recipe.networks.values()} | {(recipe.scheme.model_extra or {}).get("target_view")}
    return {"rgb", "depth"} <= views


RECIPES = {name: load_recipe(name) for name in recipe_names() if name.split("/")[0] in SETS}
TWO_PICTURES = [name for name, recipe in RECIPES.items() if reads_depth(recipe)]


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Intersection over union of what is bright, a value a clip."""
    a, b = a.flatten(1), b.flatten(1)
    return (a & b).sum(1) / (a | b).sum(1).clamp_min(1)


@pytest.mark.parametrize("name", TWO_PICTURES)
def test_color_and_depth_are_framed_together_and_depth_is_a_gray_picture(name, roots) -> None:
    made = assemble(changed(name, roots))
    assert made.table.modality("depth") == modality("depth_gray")
    clips = made.clips(made.train, {"rgb", "depth"}, augment=True)
    boxes = []
    for epoch in range(4):  # several draws of each clip
        batch = next(iter(loader(clips, batch=8, shuffle=False, seed=0, epoch=epoch, start=0, workers=0)))
        rgb, depth = batch.clips["rgb"].float().mean(1), batch.clips["depth"].float().mean(1)
        assert "depth" not in batch.valid or batch.valid["depth"].all()  # black is a gray like any other
        assert depth.max() == pytest.approx(GRAY, abs=1)
        assert depth.min() >= 0
        shown = (rgb > GRAY / 2).flatten(1).any(1)
        assert shown.any()
        assert (overlap(rgb > GRAY / 2, depth > GRAY / 2)[shown] > 0.9).all()
        boxes.append(rgb > GRAY / 2)
    assert not torch.equal(boxes[0], boxes[1])  # the draws differ, so that they could have differed between views


@pytest.mark.parametrize("name", SETS)
def test_every_other_recipe_of_a_set_finds_its_views(name, roots) -> None:
    others = [p for p in RECIPES if p.startswith(f"{name}/") and p not in TWO_PICTURES]
    assert others
    for other in others:
        recipe = changed(other, roots)
        made = assemble(recipe, train=False)
        assert made.scheme.required_views() <= made.table.views.keys(), other


def test_published_mirror_images_are_drawn(roots) -> None:
    for name in ("egogesture/mtut_i3d", "nvgesture/mtut_i3d", "viva/mtut_i3d"):
        made = assemble(changed(name, roots))
        clips: ClipSet = made.clips(made.train, made.scheme.required_views(), augment=True)
        assert made.recipe.data.augment.flip == 0.5
        assert clips.mirrors, name


def test_a_gray_depth_video_reads_as_its_gray_levels(roots) -> None:
    file = roots["nvgesture"] / "Video_data" / "class_01" / "subject11_r0" / "sk_depth.avi"
    read = reading.read(Track(file), modality("depth_gray"))
    assert read.dtype == np.uint8
    assert read.shape == (6, 60, 80, 1)
    assert set(np.unique(read)) == {0, GRAY}


@pytest.mark.parametrize("dataset", DOWNLOADS)
def test_recipes_read_the_download(dataset, tmp_path) -> None:
    root = tmp_path / "data"
    assert importlib.import_module(f"sample_{dataset}").write(root) == {}
    recipes = {name: load_recipe(name) for name in recipe_names() if name.split("/")[0] == dataset}
    assert {recipe.data.dataset for recipe in recipes.values()} == {dataset}
    changes = [*TINY, "data.size=16", f"data.root={root}"]
    teacher = train(load_recipe(f"{dataset}/teacher_rgb", [*changes, f"run.dir={tmp_path / 'teacher'}",
                                                           "networks.student={name: small, view: rgb, width: 8}"]))
    taught = train(load_recipe(f"{dataset}/mgcam_dkd", [*changes, f"run.dir={tmp_path / 'student'}",
                                                        "networks.student={name: small, view: ir, width: 8}",
                                                        f"networks.teacher={{init: {teacher.folder}}}"]))
    of = datasets.open(dataset, root, **recipes[f"{dataset}/mgcam_dkd"].data.options)
    assert evaluate(taught)["student"]["n"] == len(of.split("test"))
