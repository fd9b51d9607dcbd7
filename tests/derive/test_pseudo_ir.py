"""A translated view: its frames are the translator's, whatever the sensor, and what does not fit is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modalift import cli, networks
from modalift.derive import derive
from modalift.derive.pose_map import write_lossless
from modalift.derive.pseudo_ir import translate
from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.loading.clips import ClipSet
from modalift.loading.framing import Framing
from modalift.loading.low_light import enhance
from modalift.modalities import Row, Table, Track, build_table, modality
from modalift.models import load
from small_models import save_model


def bundle(path: Path, view: str = "rgb", target: str = "thermal", size: int = 32, **framing: Any) -> Path:
    torch.manual_seed(0)
    net = networks.build("translator", view=view, target=target, backbone="resnet_4", ngf=4, frames=1, size=size)
    return save_model(path, net, framing=Framing(frames=1, size=size, **framing), classes=[])


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """A clip of color and depth, and one of depth alone."""
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (3, 40, 61, 3), dtype=np.uint8)
    write_lossless(tmp_path / "a.mkv", color)
    depth = rng.integers(500, 4000, (3, 40, 61)).astype(np.uint16)
    depth[:, :5] = 0
    np.savez(tmp_path / "d.npz", frames=depth)
    far = Track(tmp_path / "d.npz", rate=25.0, space="s")
    rows = [Row("a", 0, "s1", "train", {"rgb": Track(tmp_path / "a.mkv", rate=25.0, space="s"), "depth": far}),
            Row("b", None, "s1", "test", {"depth": far})]
    return build_table("toy", ("x",), {"rgb": modality("rgb"), "depth": modality("depth")}, rows)


def test_color_to_infrared(table, tmp_path):
    file = bundle(tmp_path / "irt.modalift")
    made = derive("pseudo_ir", table, tmp_path / "out", bundle=str(file))
    assert list(made.views) == ["rgb", "depth", "pseudo_ir"]
    track = made[0].tracks["pseudo_ir"]
    assert (track.space, track.rate) == ("s", 25.0)
    assert "pseudo_ir" not in made[1].tracks
    frames = reading.read(track, made.modality("pseudo_ir"))
    assert frames.shape == (3, 32, 49, 1)
    source = reading.read(table[0].tracks["rgb"], modality("rgb"))
    assert np.array_equal(frames, translate(load(file), source))
    assert np.array_equal(frames[1:2], translate(load(file), source[1:2]))  # frame by frame
    asis = derive("pseudo_ir", table, tmp_path / "large", bundle=str(file), size=40, name="warm")
    drawn = reading.read(asis[0].tracks["warm"], asis.modality("warm"))
    net = load(file).network
    with torch.no_grad():
        wanted = net(torch.from_numpy(source[:1].transpose(3, 0, 1, 2)[None]))[0, 0, 0]
    assert np.abs(drawn[0, ..., 0] - wanted.numpy()).max() <= 0.5


def test_depth_to_infrared_and_infrared_to_depth(table, tmp_path):
    made = derive("pseudo_ir", table, tmp_path / "one", bundle=str(bundle(tmp_path / "a.modalift", "depth", "nir")))
    assert all("pseudo_ir" in r.tracks for r in made)
    back = derive("pseudo_ir", made, tmp_path / "two", view="rgb", name="drawn_depth",
                  bundle=str(bundle(tmp_path / "b.modalift", "rgb", "depth")))
    assert back.modality("drawn_depth").unit == "mm"
    drawn = reading.read(back[0].tracks["drawn_depth"], modality("depth"))
    assert drawn.dtype == np.uint16
    assert drawn.shape == (3, 32, 49, 1)


def test_frames_come_as_in_training(table, tmp_path):
    """The box around the person, and dark images made brighter, are a part of what the translator learned on."""
    file = bundle(tmp_path / "boxed.modalift", "depth", "nir", region="valid", margin=0.2)
    made = derive("pseudo_ir", table, tmp_path / "out", bundle=str(file))
    seen = ClipSet(table, {"depth": Framing(frames=3, size=32, region="valid", margin=0.2)})[0, 0]["clips"]["depth"]
    with torch.no_grad():
        wanted = load(file).network(torch.from_numpy(seen)[None]).numpy()[0].transpose(1, 2, 3, 0)
    track = made[0].tracks["pseudo_ir"]
    drawn = reading.read(track, made.modality("pseudo_ir"))
    assert drawn.shape == wanted.shape
    assert np.abs(drawn - wanted).max() < 1
    assert not track.space  # it shows a part of what its source shows
    lit, plain = (bundle(tmp_path / f"{how}.modalift", low_light=how) for how in ("gamma", "none"))
    frames = reading.read(table[0].tracks["rgb"], modality("rgb"))
    raised = enhance(frames.transpose(3, 0, 1, 2), "gamma").transpose(1, 2, 3, 0)
    assert np.array_equal(translate(load(lit), frames, 40), translate(load(plain), raised, 40))
    assert not np.array_equal(translate(load(lit), frames, 40), translate(load(plain), frames, 40))


def test_from_the_command_line(table, tmp_path, monkeypatch, capsys):
    from modalift.datasets.writing import write_manifest

    (tmp_path / "data").mkdir()
    write_manifest(table, tmp_path / "data")
    file = bundle(tmp_path / "irt.modalift")
    monkeypatch.setattr(sys, "argv", ["modalift", "derive", "pseudo_ir", str(tmp_path / "data"), str(tmp_path / "out"),
                                      f"bundle={file}", "size=16", "--view", "rgb", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["views"] == ["rgb", "depth", "pseudo_ir"]


def test_what_does_not_fit_is_told(table, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ModaliftError, match="needs bundle=FILE"):
        derive("pseudo_ir", table, out)
    with pytest.raises(ModaliftError, match="no such bundle"):
        derive("pseudo_ir", table, out, bundle=str(tmp_path / "none.modalift"))
    net = networks.build("small", classes=2, view="rgb", frames=2, size=32, width=4)
    other = save_model(tmp_path / "r.modalift", net, framing=Framing(frames=2, size=32), classes=["a", "b"])
    with pytest.raises(ModaliftError, match="holds a recognizer of 2 classes"):
        derive("pseudo_ir", table, out, bundle=str(other))
    file = str(bundle(tmp_path / "irt.modalift"))
    with pytest.raises(ModaliftError, match=r"cannot be computed from 'depth' \(depth\) - it needs one of rgb"):
        derive("pseudo_ir", table, out, bundle=file, view="depth")
    with pytest.raises(ModaliftError, match="give 8 pixels or more"):
        derive("pseudo_ir", table, out, bundle=file, size=4)
    with pytest.raises(ModaliftError, match=r"unknown key 'pseudo_ir\.bundel'"):
        derive("pseudo_ir", table, out, bundel=file)
    assert not out.exists()
