"""The published protocols on recordings as the sets ship them: 8-bit depth, and color and depth that are cropped together."""

from __future__ import annotations

import importlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from modalift import datasets
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


def images(folder: Path, left: int, top: int, *, color: bool) -> None:
    """Six frames of a bright box on black, away from the middle so that a mirror image is told from none."""
    folder.mkdir(parents=True)
    for t in range(6):
        frame = np.zeros((60, 80), np.uint8)
        frame[top:top + 22, left + t:left + t + 22] = GRAY
        cv2.imwrite(str(folder / f"{t:03d}.png"), np.dstack([frame] * 3) if color else frame)


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    """The same clips in the three layouts that the recipes name: by split, by view, and with flow in a manifest."""
    by_split, by_view = (tmp_path_factory.mktemp(name) / "data" for name in ("by_split", "by_view"))
    for subject in range(1, 9):
        split = "train" if subject < 5 else "val" if subject < 7 else "test"
        for c, label in enumerate(("left", "right")):
            clip, where = f"s{subject:02d}_{c}", (6 + 4 * subject, 8 + 3 * subject)
            for view in ("rgb", "depth", "ir", "pseudo_ir"):
                images(by_split / split / label / clip / view, *where, color=view == "rgb")
                if view not in ("rgb", "depth"):
                    continue
                (by_view / view / label).mkdir(parents=True, exist_ok=True)
                (by_view / view / label / clip).symlink_to(by_split / split / label / clip / view)
    with_flow = tmp_path_factory.mktemp("with_flow") / "data"
    derive("flow", datasets.open("folder", by_split), with_flow, view="rgb")
    return {"split": by_split, "view": by_view, "flow": with_flow}


def changed(name: str, roots: dict[str, Path]) -> Recipe:
    """A published recipe at a scale of seconds, with small networks from nothing, on the made-up clips."""
    recipe = RECIPES[name]
    layout = "view" if recipe.data.root.name == "viva" else "flow" if recipe.data.dataset == "csv" else "split"
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
    folder = roots["split"] / "train" / "left" / "s01_0" / "depth"
    read = reading.read(Track(folder), modality("depth_gray"))
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
