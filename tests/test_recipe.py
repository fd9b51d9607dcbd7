"""Recipes: typed, and a wrong key is answered with the right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modalift.engine.tables import open_table
from modalift.engine.train import recipe_of_fold
from modalift.errors import ModaliftError
from modalift.loading.framing import Framing
from modalift.modalities import modality
from modalift.recipe import NetworkSection, Recipe, load_recipe, parse_recipe
from modalift.recipe_files import FOLDER, find_recipe, recipe_names

GOOD = {
    "data": {"dataset": "folder", "root": "somewhere"},
    "networks": {"student": {"name": "small", "view": "depth"}},
    "optim": {"lr": 0.01},
}


def write(tmp_path: Path, change=None) -> Path:
    tree = yaml.safe_load(yaml.safe_dump(GOOD))
    if change:
        change(tree)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_good_recipe_and_its_overrides(tmp_path):
    recipe = load_recipe(write(tmp_path), ["optim.lr=1e-3", "networks.student.width=8", "run.seed=3"])
    assert recipe.optim.lr == 1e-3
    assert recipe.networks["student"].model_extra == {"width": 8}
    assert recipe.run.seed == 3


def test_the_resolved_recipe_reads_back_as_itself(tmp_path):
    recipe = load_recipe(write(tmp_path), ["networks.student.dropout=0.1"])
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml())
    assert load_recipe(again) == recipe


@pytest.mark.parametrize(("override", "message"), [
    ("optim.lrr=1", "unknown key 'optim.lrr' - did you mean 'optim.lr'?"),
    ("optim.name=adamm", "optim.name = 'adamm': Input should be 'adamw' or 'sgd'"),
    ("optim.lr=fast", "optim.lr = 'fast': Input should be a valid number"),
    ("optim.epochs=0", "optim.epochs = 0"),
    ("optin.lr=1", "unknown key 'optin' - did you mean 'optim'?"),
    ("scheme.name=singel", "unknown scheme 'singel' - did you mean 'single'?"),
    ("scheme.label_smoothin=.1", "unknown key 'scheme.label_smoothin' for scheme 'single' - did you mean 'label_smoothing'?"),
    ("scheme.label_smoothing=much", "scheme.label_smoothing = 'much'"),
    ("networks.student.width=wide", "networks.student.width = 'wide'"),
    ("networks.student.mean=5", "networks.student.mean = 5"),
    ("networks.student.motion=clipp", "networks.student.motion = 'clipp'"),
    ("networks.student.causal=perhaps", "networks.student.causal = 'perhaps'"),
    ("networks.student.name=smal", "unknown network 'smal' - did you mean 'small'?"),
    ("networks.student.widht=3", "unknown key 'networks.student.widht' for network 'small' - did you mean 'width'?"),
    ("networks.teacher.name=small", "scheme 'single' has no role 'teacher'"),
    ("data.dataset=foldr", "unknown dataset 'foldr' - did you mean 'folder'?"),
    ("scheme.name=distill", "needs a network in the role 'teacher'"),
    ("optim.lr", "is not of the form section.key=value"),
    ("optim.lr=[", "not YAML"),
])
def test_what_is_wrong_is_named_in_one_line_with_what_to_do(tmp_path, override, message):
    with pytest.raises(ModaliftError) as caught:
        load_recipe(write(tmp_path), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_sections_files_and_nonsense(tmp_path):
    with pytest.raises(ModaliftError, match="'data' is missing"):
        load_recipe(write(tmp_path, lambda t: t.pop("data")))
    with pytest.raises(ModaliftError, match="no such recipe"):
        load_recipe(tmp_path / "nothing.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ModaliftError, match="a recipe is a mapping"):
        load_recipe(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("data: [1,\n")
    with pytest.raises(ModaliftError, match="not valid YAML"):
        load_recipe(tmp_path / "broken.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModaliftError):
        load_recipe(tmp_path / "binary.yaml")


def test_a_base_is_merged_under_and_may_not_lead_back(tmp_path):
    write(tmp_path)
    child = tmp_path / "child.yaml"
    child.write_text("base: recipe.yaml\noptim: {epochs: 7}\n")
    recipe = load_recipe(child)
    assert (recipe.optim.epochs, recipe.optim.lr) == (7, 0.01)
    (tmp_path / "loop.yaml").write_text("base: loop.yaml\n")
    with pytest.raises(ModaliftError, match="its base files form a circle"):
        load_recipe(tmp_path / "loop.yaml")


def test_seed_and_fold_fill_paths(tmp_path):
    path = write(tmp_path, lambda t: t.update(run={"dir": "runs/x/seed{seed}-fold{fold}"}))
    recipe = load_recipe(path, ["run.seed=4", "protocol.fold=2"])
    assert recipe.run.dir == Path("runs/x/seed4-fold2")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_ships_is_valid(name):
    recipe = load_recipe(name)
    assert recipe.paper.level


# ---- framing, augmentation and protocol are parts of a recipe ----------------------------------------------------


@pytest.mark.parametrize(("override", "message"), [
    ("data.frames=0", "data.frames = 0: must be 1 or more"),
    ("data.frmes=3", "unknown key 'data.frmes' - did you mean 'data.frames'?"),
    ("data.sampler=densse", "data.sampler = 'densse': Input should be 'segments', 'dense' or 'whole' - did you mean 'dense'?"),
    ("data.crop_ratio=2", "data.crop_ratio = 2: must lie in (0, 1]"),
    ("data.augment.rotat=3", "unknown key 'data.augment.rotat' - did you mean 'data.augment.rotate'?"),
    ("data.augment.rotate=999", "data.augment.rotate = 999: must lie in [0, 180]"),
    ("data.augment.rotate=wide", "data.augment.rotate = 'wide': Input should be a valid number"),
    ("data.augment.scale=[2, 1]", "data.augment.scale = [2, 1]: give the smaller number first"),
    ("data.augment.scale=[0, 1]", "data.augment.scale[0] = 0: must lie in [0.05, 4]"),
    ("data.augment=strong", "data.augment = 'strong': must be a section with keys, such as data.augment.crop"),
    ("data.per_view.rgb.sise=3", "unknown key 'data.per_view.rgb.sise' - did you mean 'data.per_view.rgb.size'?"),
    ("data.per_view.rgb.size=0", "data.per_view.rgb.size = 0: must be 1 or more"),
    ("data.per_view.rgb.region=vaild", "data.per_view.rgb.region = 'vaild': Input should be 'whole' or 'valid' - did you mean"),
    ("protocol.temporal_crops=0", "protocol.temporal_crops = 0: must lie in [1, 1000]"),
    ("protocol.spatial_crops=2", "protocol.spatial_crops = 2: Input should be 1, 3 or 5"),
    ("protocol.spatial_crop=3", "unknown key 'protocol.spatial_crop' - did you mean 'protocol.spatial_crops'?"),
])
def test_wrong_framing_augmentation_and_protocol_are_named(tmp_path, override, message):
    with pytest.raises(ModaliftError) as caught:
        load_recipe(write(tmp_path), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_in_the_spelling_of_a_person_are_understood(tmp_path):
    recipe = load_recipe(write(tmp_path), ["data.augment.rotate=1e1", "optim.lr=1e-3", "data.augment.scale=[8e-1, 1]"])
    assert recipe.data.augment.rotate == 10.0
    assert recipe.data.augment.scale == (0.8, 1.0)


def test_a_view_is_framed_as_the_section_says_but_for_its_own_keys(tmp_path):
    recipe = load_recipe(write(tmp_path), ["data.frames=4", "data.size=32", "data.region=valid",
                                           "data.per_view.rgb={size: 64, low_light: gamma}"])
    plain, own = recipe.data.framing("depth", modality("depth")), recipe.data.framing("rgb", modality("rgb"))
    assert type(plain) is Framing
    assert plain == Framing(frames=4, size=32, region="valid")
    assert own == plain.replace(size=64, low_light="gamma")
    signal = recipe.data.framing("pose", modality("pose"))
    assert (signal.frames, signal.size, signal.region) == (4, 1, "whole")
    assert yaml.safe_load(recipe.to_yaml())["data"]["per_view"] == {"rgb": {"size": 64, "low_light": "gamma"}}
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml())
    assert load_recipe(again) == recipe
    assert load_recipe(again).data.framing("rgb", modality("rgb")) == own


def test_a_changed_recipe_is_checked_again_and_the_first_one_stays(tmp_path):
    recipe = load_recipe(write(tmp_path, lambda t: t.update(run={"dir": "runs/{fold}"})))
    made = recipe.changed({"protocol.fold": 2, "data.per_view.depth.size": 16})
    assert (made.run.dir, made.protocol.fold, made.data.framing("depth", modality("depth")).size) == (Path("runs/2"), 2, 16)
    assert (recipe.run.dir, recipe.protocol.fold, recipe.data.per_view) == (Path("runs/{fold}"), None, {})
    with pytest.raises(ModaliftError, match=r"optim\.epochs = 0"):
        recipe.changed({"optim.epochs": 0})


def test_every_key_of_every_section_is_described():
    for name, section in Recipe.model_fields.items():
        model = NetworkSection if name == "networks" else section.annotation
        assert [k for k, field in model.model_fields.items() if not field.description] == [], name


# ---- where recipes are: names, files and run folders --------------------------------------------------------------


def test_a_recipe_of_the_package_has_a_name_and_a_run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = load_recipe("utd_mhad/distill_pose", ["run.seed=3"])
    assert named.run.dir == Path("runs/utd_mhad/distill_pose/seed3")
    assert load_recipe(FOLDER / "utd_mhad" / "distill_pose.yaml", ["run.seed=3"]) == named
    assert load_recipe("utd_mhad/distill_pose", ["run.dir=out/{recipe}"]).run.dir == Path("out/utd_mhad/distill_pose")
    write(tmp_path).rename(tmp_path / "mine.yaml")
    assert load_recipe("mine.yaml").run.dir == load_recipe(tmp_path / "mine.yaml").run.dir == Path("runs/mine/seed0")


def test_a_file_or_run_that_exists_is_preferred_to_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder := tmp_path / "darkroom" / "labels_only").mkdir(parents=True)
    assert find_recipe("darkroom/labels_only").path.is_relative_to(FOLDER), "a folder without a recipe is none"
    write(folder)
    assert find_recipe("darkroom/labels_only").run == Path("darkroom/labels_only")
    assert load_recipe("darkroom/labels_only").data.root == Path("somewhere")


def test_the_recipe_of_a_run_folder_trains_that_folder_unless_told_otherwise(tmp_path):
    write(tmp_path, lambda t: t.update(run={"dir": "moved/away"}))
    assert load_recipe(tmp_path).run.dir == tmp_path
    assert load_recipe(tmp_path, ["run.dir=other"]).run.dir == Path("other")


@pytest.mark.parametrize(("asked", "message"), [
    ("darkroom/taught_termal", "did you mean 'darkroom/taught_thermal'?"),
    ("taught_thermal", "did you mean 'darkroom/taught_thermal'?"),
    ("mtut_c3d", "did you mean 'egogesture/mtut_c3d' or 'nvgesture/mtut_c3d' or 'viva/mtut_c3d'?"),
    ("recipes/utd_mhad/at_pose.yaml", "did you mean 'utd_mhad/at_pose'?"),
    ("utd_mhad/at_pose.yaml", "did you mean 'utd_mhad/at_pose'?"),
    ("UTD_MHAD/at_pose", "did you mean 'utd_mhad/at_pose'?"),
    ("darkroom", "name one of the recipes of 'darkroom' that `modalift list recipes` lists"),
    ("../recipes/darkroom/labels_only", "did you mean"),
    ("", "give a file, a run folder or one of `modalift list recipes`"),
    (".", "give a file, a run folder or one of `modalift list recipes`"),
    ("0" * 5000, "give a file, a run folder or one of `modalift list recipes`"),
])
def test_an_unknown_recipe_is_answered_with_similar_names(asked, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModaliftError) as caught:
        load_recipe(asked)
    assert str(caught.value).startswith(f"{asked}: no such recipe - {message}")


def test_names_leave_out_bases_which_are_found_all_the_same():
    assert "darkroom/labels_only" in recipe_names()
    assert not [name for name in recipe_names() if "/_" in name]
    assert find_recipe("darkroom/_base").path == FOLDER / "darkroom" / "_base.yaml"


def test_a_base_may_be_a_recipe_of_the_package(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: darkroom/labels_only\noptim: {epochs: 3}\n")
    recipe, under = load_recipe(mine), load_recipe("darkroom/labels_only")
    assert recipe.run.dir == Path("runs/mine/seed0")
    assert recipe.changed({"optim.epochs": under.optim.epochs, "run.dir": under.run.dir}) == under
    (tmp_path / "darkroom").mkdir()
    write(tmp_path / "darkroom").rename(tmp_path / "darkroom" / "labels_only.yaml")
    assert load_recipe(mine).data.root == Path("data/darkroom"), "not without its ending"
    mine.write_text("base: darkroom/labels_only.yaml\n")
    assert load_recipe(mine).data.root == Path("somewhere"), "relative to the file, not to the current folder"
    mine.write_text("base: darkroom/labels_onyl\n")
    with pytest.raises(ModaliftError, match=r"mine\.yaml: base: .*did you mean 'darkroom/labels_only'"):
        load_recipe(mine)
    mine.write_text(f"base: ../{tmp_path.name}/mine.yaml\n")
    with pytest.raises(ModaliftError, match="its base files form a circle"):
        load_recipe(mine)


# ---- the run that a network starts from follows from its recipe ------------------------------------------------------


def test_a_network_that_names_a_recipe_starts_from_the_run_of_its_seed_and_fold(tmp_path):
    def init(*overrides: str) -> str:
        return load_recipe("utd_mhad/distill_pose", overrides).networks["teacher"].init

    home = "runs/utd_mhad/single_pose"
    assert init() == f"{home}/seed0"
    assert init("run.seed=3", "run.dir=mine") == f"{home}/seed3"
    assert init("protocol.folds=4", "protocol.fold=2") == f"{home}/seed0/fold2"
    assert init("networks.teacher.init=elsewhere/{seed}") == "elsewhere/0"
    crossed = load_recipe("utd_mhad/distill_pose", ["protocol.folds=4"])
    assert crossed.changed({"protocol.fold": 1}).networks["teacher"].init == f"{home}/seed0/fold1"
    own = write(tmp_path, lambda t: t.update(run={"dir": "out/{recipe}-{seed}"}))
    assert init(f"networks.teacher.recipe={own}", "run.seed=2") == "out/recipe-2"
    assert init(f"networks.teacher.recipe={own.parent}") == str(tmp_path), "a run folder is the run"


def test_a_single_fold_trains_where_cross_validation_would_train_it():
    crossed = load_recipe("utd_mhad/single_pose", ["protocol.folds=4"])
    single = load_recipe("utd_mhad/single_pose", ["protocol.folds=4", "protocol.fold=2"])
    assert (crossed.run.dir, single.run.dir) == (Path("runs/utd_mhad/single_pose/seed0"),
                                                 Path("runs/utd_mhad/single_pose/seed0/fold2"))
    assert recipe_of_fold(crossed, 2) == single


def test_a_network_that_names_an_unknown_recipe(tmp_path):
    path = write(tmp_path, lambda t: t["networks"]["student"].update(recipe="utd_mhad/single_posse"))
    with pytest.raises(ModaliftError, match=r"networks\.student\.recipe: utd_mhad/single_posse: .*'utd_mhad/single_pose'"):
        load_recipe(path)


@pytest.mark.parametrize("name", recipe_names())
def test_every_run_that_a_recipe_starts_from_is_the_default_run_of_its_recipe(name):
    recipe = load_recipe(name, ["run.seed=5"])
    for section in recipe.networks.values():
        if section.recipe:
            trained = load_recipe(section.recipe, ["run.seed=5"])
            assert (section.recipe in recipe_names(), section.init) == (True, str(trained.run.dir))


def test_the_dataset_is_recognized_by_its_files(tmp_path, tiny):
    tree = {"data": {"root": str(tiny)}, "networks": {"student": {"name": "small", "view": "depth"}}}
    assert parse_recipe(tree).data.dataset == "csv"
    tree["data"]["root"] = str(tmp_path / "nowhere")
    recipe = parse_recipe(tree)
    assert recipe.data.dataset == "", "it can only be recognized where it is"
    with pytest.raises(ModaliftError, match=r"nowhere does not exist - give a dataset's folder"):
        open_table(recipe)


# ---- as people write it ------------------------------------------------------------------------------------------


def test_subjects_and_classes_stay_as_they_were_written(tmp_path):
    words = ["01", "007", "1e5", "on", "no", "y", "null", "2024-01-01", "1_0"]
    path = tmp_path / "mine.yaml"
    path.write_text(f"""
data:
  dataset: csv
  root: 2024-01-01
  options: {{test_subjects: [{", ".join(words)}], mirrored: {{on: off, 01: 02}}, classes: [on, off, 01, 02]}}
networks: {{student: {{name: small, view: depth}}}}
protocol: {{val_subjects: [{", ".join(words)}]}}
""")
    given = load_recipe(path)
    overridden = load_recipe(path, [f"protocol.val_subjects=[{', '.join(words)}]", "data.root=010"])
    for recipe in (given, overridden):
        assert recipe.protocol.val_subjects == words
        assert recipe.data.options["test_subjects"] == words
        assert recipe.data.options["mirrored"] == {"on": "off", "01": "02"}
        assert recipe.data.options["classes"] == ["on", "off", "01", "02"]
        again = tmp_path / "again.yaml"
        again.write_text(recipe.to_yaml())
        assert load_recipe(again) == recipe
    assert (given.data.root, overridden.data.root) == (Path("2024-01-01"), Path("010"))


@pytest.mark.parametrize(("override", "value"), [
    ("optim.epochs=1e1", 10), ("optim.epochs=10.0", 10), ("optim.epochs=010", 10), ("optim.epochs=1_0", 10),
    ("optim.epochs=１２", 12), ("optim.epochs=0x10", 16), ("optim.lr=1e-3", 1e-3), ("optim.lr=.5", 0.5), ("optim.lr=2", 2.0),
    ("optim.warmup=+1.", 1.0), ("optim.milestones=[1e1, 020]", [10.0, 20.0]), ("optim.betas=[.9, 9e-1]", (0.9, 0.9)),
    ("run.tensorboard=yes", True), ("run.sync_batchnorm=off", False), ("run.tensorboard=1", True), ("run.seed=007", 7),
    ("protocol.fold=null", None), ("protocol.fold=none", None), ("protocol.fold=", None), ("paper.value=~", None),
    ("paper.table=1.10", "1.10"), ("paper.row=no", "no"), ("protocol.spatial_crops=3", 3), ("data.augment.rotate=1e1", 10.0),
    ("data.cache=no", ""), ("data.cache=none", ""), ("data.cache=0", ""), ("data.cache=False", ""), ("data.cache=", ""),
    ("data.cache=01", "01"), ("networks.student.init=none", ""), ("networks.student.init=", ""),
    ("scheme.label_smoothing=1e-1", 0.1),
    ("networks.student.width=016", 16), ("networks.student.dropout=1e-1", 0.1), ("networks.student.causal=yes", True),
    ("data.options.rate=3e1", 30.0), ("data.options.classes=[01, on]", ["01", "on"]), ("optim.updates.all.lr=1e-4", 1e-4)])
def test_what_a_person_writes_is_what_it_means(tmp_path, override, value):
    recipe = load_recipe(write(tmp_path), [override])
    found: Any = recipe.model_dump()
    for key in override.split("=")[0].split("."):
        found = found[key]
    assert found == value
    assert type(found) is type(value)
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml())
    assert load_recipe(again) == recipe


@pytest.mark.parametrize(("override", "message"), [
    ("optim.epochs=1.5", "optim.epochs = 1.5: is not a whole number"),
    ("optim.epochs=1,5", "optim.epochs = '1,5': has a comma"),
    ("optim.epochs=1e999", "optim.epochs = '1e999': is too large"), ("optim.epochs=1e30", "is too large for a whole number"),
    ("optim.epochs=" + "9" * 30, "is too large for a whole number"),
    ("optim.epochs=" + "9" * 5000, "is too large for a number"), ("optim.milestones=[1, x]", "optim.milestones[1] = 'x'"),
    ("networks.student.width=" + "9" * 30, "is too large for a whole number"),
    ("optim.lr=1:30", "optim.lr = '1:30': is a time"), ("optim.lr=.nan", "optim.lr = '.nan': is not a finite number"),
    ("optim.epochs=yes", "optim.epochs = 'yes': Input should be a valid integer"), ("optim.epochs=", "optim.epochs = ''"),
    ("run.tensorboard=perhaps", "run.tensorboard = 'perhaps': is neither true nor false - write true or false"),
    ("protocol.val_subjects=01", "protocol.val_subjects = '01': must be a list, such as [01]"),
    ("data.root=[a]", "data.root = ['a']: must be text - quote it"),
    ("data.options=3", "must be a mapping, such as {name: value}"),
    ("data.options.test_subjects=[{a: b}]", "data.options.test_subjects[0] = {'a': 'b'}: must be text - quote it"),
    ("data.options.rat=3", "unknown key 'data.options.rat' for dataset 'folder' - did you mean 'rate'?"),
    ("networks.a/b.name=small", "networks.a/b: 'a/b' is not a word of letters, digits, _ and -"),
    (f"networks.{'x' * 65}.name=small", "is not a word of letters, digits"), (f"{'a.' * 60}b=1", "keys have at most 50 parts")])
def test_what_a_person_cannot_mean_is_refused_with_the_reason(tmp_path, override, message):
    with pytest.raises(ModaliftError) as caught:
        load_recipe(write(tmp_path), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_section_that_is_left_empty_changes_nothing(tmp_path):
    write(tmp_path)
    child = tmp_path / "child.yaml"
    child.write_text("base: recipe.yaml\noptim:\n# lr: 1\nscheme:\nprotocol: ~\nrun: {dir: x}\n")
    assert load_recipe(child) == load_recipe(tmp_path / "recipe.yaml", ["run.dir=x"])
    (tmp_path / "child.yaml").write_text("base:\n" + (tmp_path / "recipe.yaml").read_text())
    assert load_recipe(child).optim.lr == 0.01


def test_a_key_that_is_given_twice_is_named_with_its_line(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text() + "optim: {lr: 1}\n")
    lines = path.read_text().splitlines()
    first = next(i for i, line in enumerate(lines, 1) if line.startswith("optim:"))
    with pytest.raises(ModaliftError, match=rf"recipe.yaml: is not valid YAML - line {len(lines)}, column 1: the key 'optim'"
                                            rf" was already given in line {first}"):
        load_recipe(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_recipe_with_a_byte_order_mark(tmp_path, encoding):
    path = write(tmp_path)
    path.write_bytes(path.read_text().encode(encoding))
    assert load_recipe(path).optim.lr == 0.01
