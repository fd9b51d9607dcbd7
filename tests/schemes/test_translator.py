"""The translator's equations, literally; pools, masks and bad casts; a table without labels from recipe to derived view."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from modalift import cli, datasets, networks, schemes
from modalift.derive import derive
from modalift.engine import checkpoint as checkpoints
from modalift.engine.evaluate import evaluate
from modalift.engine.run import Run
from modalift.engine.ship import ship
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.loading.clips import ClipSet
from modalift.loading.epoch_sampler import EpochSampler
from modalift.loading.framing import Framing
from modalift.losses import relation_consistency
from modalift.modalities import Batch
from modalift.recipe import load_recipe
from modalift.report.page import write_report
from modalift.schemes import Progress
from modalift.schemes.discriminators import Pool, frames, weighted_mean
from modalift.schemes.translator import embedding

T, SIZE = 2, 32


def generator(view: str = "rgb", target: str = "thermal") -> networks.Translator:
    torch.manual_seed(len(view))
    return networks.build("translator", view=view, target=target, backbone="resnet_4", ngf=4, frames=T, size=SIZE)


def encoder(view: str) -> networks.Recognizer:
    torch.manual_seed(len(view))
    return networks.build("small", classes=2, view=view, frames=T, size=SIZE, width=4, dropout=0.0)


def scheme(mode: str = "paired", encoders: bool = False, **settings) -> schemes.Scheme:
    nets = {"generator": generator()}
    if mode == "unpaired":
        nets["back"] = generator("thermal", "rgb")
    if encoders:
        nets |= {"source_encoder": encoder("rgb"), "target_encoder": encoder("thermal")}
    torch.manual_seed(0)
    given = {"mode": mode, "ndf": 4, "discriminator_layers": 2} | ({"pool_size": 0} if mode == "unpaired" else {})
    return schemes.build("translator", nets, given | settings).train()


def batch(n: int = 4) -> Batch:
    g = torch.Generator().manual_seed(0)
    yes = torch.ones(n, dtype=torch.bool)
    shown = {v: torch.randint(0, 256, (n, c, T, SIZE, SIZE), dtype=torch.uint8, generator=g) for v, c in
             (("rgb", 3), ("thermal", 1))}
    return Batch(shown, {}, {v: yes.clone() for v in shown}, torch.arange(n) // 2, yes, torch.arange(n))


def of(update: str) -> Progress:
    return Progress(update=update)


def test_the_paired_equations_literally():
    made, given = scheme(person_weight=3.0, warm_quantile=0.75), batch()
    net, discriminator = made.generator, made.discriminator
    b = given.clips["thermal"].float() / 127.5 - 1
    shown, drawn = net.prepare(given.clips["rgb"]), net(given.clips["rgb"]) / 127.5 - 1
    v = torch.ones_like(b)
    for n in range(4):
        for t in range(T):
            v[n, 0, t] += 3.0 * (b[n, 0, t] > b[n, 0, t].flatten().quantile(0.75))
    terms = made(given, of("generator"))
    wanted = torch.stack([(v[n] * (drawn[n] - b[n]).abs()).sum() / v[n].sum() for n in range(4)]).mean()
    torch.testing.assert_close(terms["l1/thermal>generator"][1], wanted)
    assert terms["l1/thermal>generator"][0] == 100
    fooled = (discriminator(frames(torch.cat([shown, drawn], 1))) - 1).square().mean()
    torch.testing.assert_close(terms["adversarial/discriminator>generator"][1], fooled)
    found = made(given, of("discriminator"))["discriminator/thermal+generator>discriminator"][1]
    real = (discriminator(frames(torch.cat([shown, b], 1))) - 1).square().mean()
    fake = discriminator(frames(torch.cat([shown, drawn.detach()], 1))).square().mean()
    torch.testing.assert_close(found, (real + fake) / 2)


def test_the_unpaired_equations_literally():
    made, given = scheme("unpaired", encoders=True), batch()
    there, back = made.generator, made.back
    a, b = given.clips["rgb"].float(), given.clips["thermal"].float()
    terms = made(given, of("generator"))
    made_b, made_a = there(a), back(b)
    wanted = {
        "adversarial/discriminator>generator": (1, (made.discriminator(frames(made_b / 127.5 - 1)) - 1).square().mean()),
        "adversarial/back_discriminator>back": (1, (made.back_discriminator(frames(made_a / 127.5 - 1)) - 1).square().mean()),
        "cycle/rgb>generator+back": (10, (back(made_b) - a).abs().mean() / 127.5),
        "cycle/thermal>generator+back": (10, (there(made_a) - b).abs().mean() / 127.5),
        "identity/thermal>generator": (5, (there(b.expand(-1, 3, -1, -1, -1)) - b).abs().mean() / 127.5),
        "identity/rgb>back": (5, (back(a.mean(1, keepdim=True)) - a).abs().mean() / 127.5),
        "relation/source_encoder+target_encoder>generator": (1, relation_consistency(
            embedding(made.target_encoder, made_b), embedding(made.source_encoder, a), given.labels)),
        "batch_clips/source_encoder+target_encoder>generator": (0, torch.tensor(4.0)),
    }
    assert terms.keys() == wanted.keys()
    for key, (weight, value) in wanted.items():
        assert terms[key][0] == weight
        torch.testing.assert_close(terms[key][1], value, msg=key)
    assert [u.name for u in made.updates()] == ["generator", "discriminator"]
    assert [u.name for u in scheme().updates()] == ["discriminator", "generator"]


@pytest.mark.parametrize(("mode", "encoders", "others", "dead", "why"), [
    *(("paired", False, {}, {key: 1}, "with mode=paired")
      for key in ("cycle_weight", "identity_weight", "relation_weight", "pool_size")),
    ("paired", False, {"mask_view": "mask", "person_weight": 1.0}, {"warm_quantile": 0.5}, "with a mask_view"),
    *(("unpaired", True, {}, {key: value}, "with mode=unpaired") for key, value in
      (("l1_weight", 1.0), ("person_weight", 1.0), ("warm_quantile", 0.5), ("mask_view", "mask"))),
    ("unpaired", False, {}, {"relation_weight": 1.0}, "without networks.source_encoder"),
])
def test_settings_of_the_other_mode_are_refused(mode, encoders, others, dead, why):
    (key,) = dead
    scheme(mode, encoders, **others)
    with pytest.raises(ModaliftError, match=rf"scheme\.{key} does nothing {why}.* - remove it"):
        scheme(mode, encoders, **others, **dead)


def test_settings_that_do_something_and_weights_of_zero_are_not():
    scheme(l1_weight=1.0, person_weight=2.0, warm_quantile=0.5)
    scheme(person_weight=0.0, warm_quantile=0.5, adversarial_weight=0.0)
    scheme("unpaired", encoders=True, cycle_weight=1.0, identity_weight=0.0, relation_weight=2.0, pool_size=3)


@pytest.mark.parametrize("key", ["l1_weight", "adversarial_weight", "cycle_weight", "identity_weight", "relation_weight"])
def test_weights_that_teach_the_opposite_are_told(key):
    with pytest.raises(ModaliftError, match=rf"scheme\.{key} = -1\.0: must be 0 or more"):
        scheme("unpaired" if key in ("cycle_weight", "identity_weight") else "paired", **{key: -1.0})


def test_pictures_that_nobody_paired():
    """As in SYSU-MM01: a clip has one sensor or the other."""
    made, given = scheme("unpaired", encoders=True), batch(6)
    given.present["rgb"][3:] = False
    given.present["thermal"][:3] = False
    one = made(given, of("generator"))
    given.clips["rgb"][3:] = 0
    given.clips["thermal"][:3] = 9
    for key, (_, raw) in made(given, of("generator")).items():
        torch.testing.assert_close(raw, one[key][1])
    assert made.relates_batch
    assert not scheme().relates_batch


def test_an_l1_loss_alone_has_no_discriminator():
    made = scheme(adversarial_weight=0.0)
    assert not made.training_only_modules
    assert [u.name for u in made.updates()] == ["generator"]
    assert list(made(batch(), of("all"))) == ["l1/thermal>generator"]


def test_a_mask_outranks_warmth_and_holes_are_not_asked():
    made, given = scheme(person_weight=2.0, mask_view="mask"), batch()
    given.clips["mask"] = torch.zeros(4, 1, T, SIZE, SIZE, dtype=torch.uint8)
    given.clips["mask"][..., :8] = 1
    given.present["mask"] = given.present["rgb"].clone()
    rows, b = torch.arange(4), made.generator.standard(given.clips["thermal"])
    v = made.pixel_weights(given, rows, b)
    assert v[..., :8].unique().tolist() == [3]
    assert v[..., 8:].unique().tolist() == [1]
    given.valid["thermal"] = torch.ones_like(given.clips["thermal"], dtype=torch.bool)
    given.valid["thermal"][0] = False
    assert made.pixel_weights(given, rows, b)[0].abs().max() == 0
    assert torch.isfinite(made(given, of("generator"))["l1/thermal>generator"][1])
    assert weighted_mean(torch.ones(1, 1, 2), torch.tensor([[[1.0, 0.0]]])).tolist() == [1.0]


def test_a_pool_remembers_and_resumes():
    torch.manual_seed(0)
    pool = Pool(3, 1, 2).train()
    images = [torch.full((1, 1, 2, 2), float(k)) for k in range(40)]
    shown = [int(pool(p)[0, 0, 0, 0]) for p in images]
    assert shown[:3] == [0, 1, 2]
    late = shown[3:]
    old = sum(s != k for k, s in enumerate(late, 3))
    assert 8 < old < 30  # about every other one is an earlier image
    again = Pool(3, 1, 2)
    again.load_state_dict(pool.state_dict())
    torch.manual_seed(5)
    one = pool(torch.zeros(4, 1, 2, 2))
    torch.manual_seed(5)
    assert torch.equal(again.train()(torch.zeros(4, 1, 2, 2)), one)
    assert torch.equal(again.eval()(images[7]), images[7])


def test_bad_casts_are_told():
    with pytest.raises(ModaliftError, match="needs a network in the role 'back'"):
        schemes.build("translator", {"generator": generator()}, {"mode": "unpaired"})
    with pytest.raises(ModaliftError, match="takes no network in the role 'back'"):
        schemes.build("translator", {"generator": generator(), "back": generator("thermal", "rgb")})
    with pytest.raises(ModaliftError, match="needs a translator in the role 'generator', not a recognizer"):
        schemes.build("translator", {"generator": encoder("rgb")})
    with pytest.raises(ModaliftError, match="needs a recognizer in the role 'student', not a translator"):
        schemes.build("single", {"student": generator()})
    with pytest.raises(ModaliftError, match="two encoders or none"):
        schemes.build("translator", {"generator": generator(), "source_encoder": encoder("rgb")})
    with pytest.raises(ModaliftError, match="it must read 'nir'"):
        schemes.build("translator", {"generator": generator(), "back": generator("thermal", "rgb")},
                      {"mode": "unpaired", "target_view": "nir"})
    with pytest.raises(ModaliftError, match=r"set networks\.back\.target=rgb"):
        schemes.build("translator", {"generator": generator(), "back": generator("thermal", "depth")}, {"mode": "unpaired"})
    with pytest.raises(ModaliftError, match="is what the generator reads"):
        scheme(target_view="rgb")
    with pytest.raises(ModaliftError, match=r"warm_quantile = 1\.0: must lie in"):
        scheme(warm_quantile=1.0)
    with pytest.raises(ModaliftError, match="the batch has no view 'nir'"):
        scheme(target_view="nir")(batch(), of("discriminator"))
    given = batch()
    given.clips["thermal"] = given.clips["thermal"][:, :, :1]
    with pytest.raises(ModaliftError, match="pairs must be framed alike"):
        scheme()(given, of("discriminator"))


# ---- from a recipe to a view ----------------------------------------------------------------------------------------


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twelve registered pairs: what is bright in color is cold."""
    root, rng, rows = tmp_path / "pairs", np.random.default_rng(0), []
    root.mkdir()
    for k in range(12):
        gray = cv2.GaussianBlur(rng.integers(0, 256, (30, 41)).astype(np.float32), (0, 0), 2)
        gray = ((gray - gray.min()) / (gray.max() - gray.min()) * 255).astype(np.uint8)
        cv2.imwrite(str(root / f"{k}_rgb.png"), np.repeat(gray[..., None], 3, 2))
        cv2.imwrite(str(root / f"{k}_thermal.png"), 255 - gray)
        rows.append({"id": k, "split": ("train", "train", "val", "test")[k % 4], "rgb": f"{k}_rgb.png",
                     "thermal": f"{k}_thermal.png"})
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def recipe(pairs: Path, tmp_path: Path, **scheme: object) -> Path:
    tree = {"data": {"dataset": "csv", "root": str(pairs), "frames": 1, "size": 24, "options": {
                "views": {"rgb": {"space": "s"}, "thermal": {"space": "s"}}}},
            "networks": {"generator": {"name": "translator", "view": "rgb", "target": "thermal", "backbone": "resnet_4",
                                       "ngf": 4}},
            "scheme": {"name": "translator", "ndf": 4, "discriminator_layers": 2, **scheme},
            "optim": {"epochs": 2, "batch": 2, "lr": 2e-3, "betas": [0.5, 0.999], "schedule": "linear"},
            "protocol": {"select": "best"},
            "run": {"dir": str(tmp_path / "run"), "device": "cpu", "threads": 1, "precision": "fp32"}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_table_without_labels_trains_a_translator_that_derives_a_view(pairs, tmp_path):
    run = train(load_recipe(recipe(pairs, tmp_path), ["optim.epochs=40", "scheme.adversarial_weight=0.01"]))
    assert run.roles() == ["generator"]
    found = evaluate(run)["generator"]
    assert found["n"] == 3
    assert found["target"] == "thermal"
    assert found["psnr"] > 12  # the input itself has about 7
    assert found["edges"] > 0.2
    assert '"ssim"' in (run.folder / "test_ledger.jsonl").read_text()
    write_report(run.folder)
    assert "structural similarity" in (run.folder / "report.html").read_text()
    bundle = tmp_path / "irt.modalift"
    ship(run, "", bundle)
    table = datasets.open("csv", pairs)
    made = derive("pseudo_ir", table, tmp_path / "with", bundle=str(bundle))
    assert made.views["pseudo_ir"].name == "pseudo_ir"
    assert len(made) == 12
    row = made[0]
    drawn = reading.read(row.tracks["pseudo_ir"], made.modality("pseudo_ir"))
    assert drawn.shape == (1, 24, 33, 1)  # the short side as in training
    real = cv2.resize(cv2.imread(str(pairs / "0_thermal.png"), 0), (33, 24), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(drawn.ravel(), real.ravel())[0, 1] > 0.5


def test_the_target_is_compared_as_training_framed_it(pairs, tmp_path):
    run = train(load_recipe(recipe(pairs, tmp_path, adversarial_weight=0.0),
                            ["optim.epochs=1", "data.per_view.thermal.low_light=gamma"]))
    model, table = run.model("generator"), datasets.open("csv", pairs).split("test")
    assert model.target_view == "thermal"
    assert model.framings["thermal"].low_light == "gamma"
    psnr = {how: model.validate(ClipSet(table, {
        "rgb": model.framing, "thermal": model.framing.replace(low_light=how)}))["psnr"] for how in ("gamma", "none")}
    assert evaluate(run)["generator"]["psnr"] == pytest.approx(psnr["gamma"])
    assert psnr["none"] != pytest.approx(psnr["gamma"])


def test_it_is_explained_and_looked_at_before_training(pairs, tmp_path, monkeypatch, capsys):
    path = str(recipe(pairs, tmp_path))
    for words in (["explain", path, "--json"], ["look", path, "--out", str(tmp_path / "look.png"), "--clips", "2"]):
        monkeypatch.setattr(sys, "argv", ["modalift", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
    assert set(json.loads(capsys.readouterr().out.splitlines()[0])["terms"]) == {
        "l1/thermal>generator", "adversarial/discriminator>generator", "discriminator/thermal+generator>discriminator"}
    assert cv2.imread(str(tmp_path / "look.png")) is not None


def test_a_run_without_pairs_to_look_at_trains_all_the_same(pairs, tmp_path):
    lines = (pairs / "manifest.csv").read_text().splitlines()
    cut = [line.rsplit(",", 1)[0] + "," if k % 2 else line.rsplit(",", 2)[0] + ",," + line.rsplit(",", 1)[1]
           for k, line in enumerate(lines[1:])]  # one sensor or the other, never both
    (pairs / "manifest.csv").write_text("\n".join([lines[0], *cut]) + "\n")
    back = {"name": "translator", "view": "thermal", "target": "rgb", "backbone": "resnet_4", "ngf": 4}
    asked = load_recipe(recipe(pairs, tmp_path, mode="unpaired", pool_size=2),
                        [f"networks.back={back}", "protocol.select=last", "optim.updates.discriminator.lr=1e-3"])
    run = train(asked)
    assert isinstance(run, Run)
    with pytest.raises(ModaliftError, match="no clip of this split has all of the views rgb, thermal"):
        evaluate(run)


def test_stopped_at_every_step_it_ends_the_same(pairs, tmp_path, monkeypatch):
    """Two updates, pools, dropout and chance: every place that a kill can leave."""
    back = {"name": "translator", "view": "thermal", "target": "rgb", "backbone": "resnet_4", "ngf": 4}
    changes = [f"networks.back={back}", "networks.generator.dropout=0.2", "scheme.mode=unpaired", "scheme.pool_size=3",
               "protocol.select=last", "run.checkpoint_every_s=1e-6"]
    whole = train(load_recipe(recipe(pairs, tmp_path), [*changes, f"run.dir={tmp_path / 'whole'}"]))
    save, saves = checkpoints.TrainingState.save, []

    def stop(self, path):
        save(self, path)
        saves.append(path.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.TrainingState, "save", stop)
    for _ in range(30):
        try:
            train(load_recipe(recipe(pairs, tmp_path), [*changes, f"run.dir={tmp_path / 'parts'}"]))
            break
        except KeyboardInterrupt:
            if len(saves) > 5:
                monkeypatch.undo()
    one, other = (load_file(Run(f).model_path("generator")) for f in (whole.folder, tmp_path / "parts"))
    assert len(saves) > 5
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


def test_several_clips_of_a_class_stand_together(tiny):
    table = datasets.open("csv", tiny)
    clips = ClipSet(table, {"depth": Framing(frames=2, size=16)})
    order = [place for _, place in EpochSampler(clips, shuffle=True, seed=0, epoch=0, per_class=4).keys]
    assert sorted(order) == list(range(len(table)))
    labels = [table[i].label for i in order]
    assert all(len(set(labels[k:k + 4])) == 1 for k in range(0, 24, 4))
    other = [place for _, place in EpochSampler(clips, shuffle=True, seed=0, epoch=1, per_class=4).keys]
    assert order != other
    rest = [place for _, place in EpochSampler(clips, shuffle=True, seed=0, epoch=0, per_class=5).keys]
    assert sorted(rest) == sorted(order)
    assert len({table[i].label for i in rest[:5]}) == 1
