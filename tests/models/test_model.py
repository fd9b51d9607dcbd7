"""A saved model loads bit for bit, and predicts as evaluation does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import modalift as ml
from modalift import networks
from modalift.deploy.predict import exit_code, predict_many
from modalift.errors import ModaliftError
from modalift.loading.clips import ClipSet
from modalift.loading.collation import collate
from modalift.loading.framing import Framing, Protocol
from modalift.modalities import Row, Track, build_table, modality
from modalift.models import container, model_of
from modalift.models.prediction import Prediction
from modalift.report.predictions import as_json, render
from small_models import NAMES, UTD, lively, save_model, small_net

needs_data = pytest.mark.skipif(not UTD.exists(), reason="../shared with the real recordings is absent")


def _depth(frames: int = 9, seed: int = 0) -> np.ndarray:
    """A box that moves, in frames without other readings."""
    rng = np.random.default_rng(seed)
    clip = np.zeros((frames, 30, 40, 1), np.uint16)
    for t, frame in enumerate(clip):
        frame[8:22, 6 + t:18 + t] = 1500 + rng.integers(0, 900, (14, 12, 1))
    return clip


@pytest.mark.parametrize(("name", "options", "shape"), [
    ("small", {"view": "depth", "motion": "clip", "width": 4}, (2, 1, 6, 24, 24)),
    ("small", {"view": "rgb", "motion": "running", "causal": True, "width": 4}, (2, 3, 6, 24, 24)),
    ("tsm", {"view": "thermal", "backbone": "resnet18", "width": 0.125}, (2, 1, 6, 24, 24)),
    ("tcn", {"view": "pose", "channels": 12}, (2, 12, 6, 1, 1)),
])
def test_round_trip_is_bit_exact(tmp_path: Path, name: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    net = lively(networks.build(name, classes=5, frames=6, size=shape[-1], **options))
    framing = Framing(frames=6, size=shape[-1])
    path = save_model(tmp_path / "x.modalift", net, framing=framing, classes=NAMES, provenance={"date": "2020-01-01"})
    random_state = torch.random.get_rng_state()
    bundle = ml.load(str(path))
    assert torch.equal(torch.random.get_rng_state(), random_state), "opening a file must not disturb a training"
    clip = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 200
    with torch.no_grad():
        assert torch.equal(bundle.logits(clip), net(clip))
    assert bundle.network.state_dict().keys() == net.state_dict().keys()
    assert (bundle.framing, bundle.classes, bundle.protocol) == (framing, NAMES, Protocol())
    assert bundle.network.config == json.loads(json.dumps(net.config))
    assert not bundle.network.training
    assert bundle.modality.channels == shape[1]
    assert bundle.path == path
    assert len(bundle.sha256) == 64
    again = save_model(tmp_path / "again.modalift", bundle.network, framing=bundle.framing, classes=bundle.classes,
                        protocol=bundle.protocol, provenance=bundle.provenance)
    assert again.read_bytes() == path.read_bytes()


def test_provenance_is_kept(whole: Path) -> None:
    found = ml.load(whole).provenance
    assert found["run"] == "r1"
    assert found["accuracy"]["interval"] == [0.7, 0.9]
    assert set(found["versions"]) == {"modalift", "torch", "python"}


def test_predict_is_the_mean_over_the_protocol(whole: Path) -> None:
    bundle = ml.load(whole)
    clips = bundle.clips(_depth())
    assert clips.shape == (2, 1, 6, 24, 24)
    assert not torch.equal(clips[0], clips[1])
    found = bundle.predict(_depth(), top=2)
    with torch.no_grad():
        expected = bundle.network(clips).softmax(1).mean(0).numpy()
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert found.label == NAMES[int(expected.argmax())]
    assert found.probability == pytest.approx(float(expected.max()), abs=1e-6)
    assert [p for _, p in found.top] == sorted(found.probabilities.tolist(), reverse=True)[:2]
    assert json.loads(json.dumps(found.to_dict()))["label"] == found.label


def test_a_file_a_track_and_an_array_are_the_same_recording(tmp_path: Path, whole: Path) -> None:
    bundle, frames = ml.load(whole), _depth(20)
    np.savez(tmp_path / "two.npz", a=frames, b=frames[:8])
    np.save(tmp_path / "one.npy", frames)
    expected = bundle.predict(frames).probabilities
    for same in (tmp_path / "one.npy", f"{tmp_path}/two.npz:a", Track(tmp_path / "two.npz", key="a"), frames[..., 0],
                 frames.astype(np.float64), frames.astype(np.int32)):
        np.testing.assert_array_equal(bundle.predict(same).probabilities, expected)
    windowed = bundle.predict(Track(tmp_path / "one.npy", start=2, end=9)).probabilities
    np.testing.assert_array_equal(windowed, bundle.predict(frames[2:9]).probabilities)
    assert not np.array_equal(windowed, expected)
    with pytest.raises(ModaliftError, match="holds 2 arrays - select one"):
        bundle.predict(tmp_path / "two.npz")


def test_signals(tmp_path: Path) -> None:
    net = lively(networks.build("tcn", classes=5, view="pose", channels=6, frames=8))
    bundle = ml.load(save_model(tmp_path / "x.modalift", net, framing=Framing(frames=8, size=1), classes=NAMES))
    joints = np.random.default_rng(0).normal(size=(20, 2, 3)).astype(np.float32)
    np.savez(tmp_path / "j.npz", joints=joints)
    expected = bundle.predict(tmp_path / "j.npz").probabilities
    np.testing.assert_array_equal(bundle.predict(joints.reshape(20, 6)).probabilities, expected)
    np.testing.assert_array_equal(bundle.predict(joints).probabilities, expected)
    with pytest.raises(ModaliftError, match=r"reads pose \(T, 6\)"):
        bundle.predict(joints[:, :1])


@needs_data
def test_a_real_recording_is_predicted_as_in_evaluation(whole: Path) -> None:
    bundle, path = ml.load(whole), UTD / "depth" / "a10_s1_t1.mkv"
    table = build_table("utd", NAMES, {"depth": modality("depth")},
                        [Row("a", 0, "s1", "test", {"depth": Track(path, space="camera")})])
    clips = ClipSet(table, {"depth": bundle.framing}, augment=None, protocol=Protocol(temporal_crops=2))
    framed = collate([clips[0, 0, v, 0] for v in range(2)]).clips["depth"]
    assert torch.equal(framed.float(), bundle.clips(path))
    with torch.no_grad():
        expected = bundle.network(framed).softmax(1).mean(0).numpy()
    np.testing.assert_allclose(bundle.predict(path).probabilities, expected, atol=1e-6)


@pytest.mark.parametrize(("change", "words"), [
    (lambda a: a[..., 0, 0], "channels last"),
    (lambda a: np.repeat(a, 3, 3), "channels last"),
    (lambda a: a[:0], "is not a recording"),
    (lambda a: a / 10000.0, "do not normalize"),
    (lambda a: a.astype(np.int64) - 1, "convert it"),
    (lambda a: a.astype(np.int64) * 100, "convert it"),
    (lambda a: np.where(a == 0, np.nan, a), "not finite"),
    (lambda a: a.astype(str), "is not a recording"),
    (lambda a: a.astype(complex), "is not a recording"),
])
def test_arrays_that_the_sensor_cannot_have_given(whole: Path, change: Callable[[np.ndarray], np.ndarray],
                                                 words: str) -> None:
    with pytest.raises(ModaliftError, match=words):
        ml.load(whole).predict(change(_depth()))


def test_an_unreadable_recording_does_not_affect_others(tmp_path: Path, whole: Path) -> None:
    np.save(tmp_path / "good [b].npy", _depth())
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.mkv").write_text("no video")
    clips = [tmp_path / "empty.npy", tmp_path / "good [b].npy", tmp_path / "none.mkv", tmp_path / "text.mkv"]
    found = predict_many(ml.load(whole), clips, top=2)
    assert [bool(a.error) for a in found] == [True, False, True, True]
    assert all(str(c) in a.error for c, a in zip(clips, found, strict=True) if a.error)
    assert exit_code(found) == 2
    assert exit_code(found[1:2]) == 0
    assert [set(d) >= {"clip", "error"} for d in json.loads(json.dumps(as_json(found)))] == [True, False, True, True]
    from rich.console import Console

    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(found))
    text = console.export_text()
    assert "good [b].npy" in text, "brackets in names are no markup"
    assert found[1].prediction is not None
    assert found[1].prediction.label in text
    assert text.count("error") == 3
    with pytest.raises(ModaliftError, match="no recordings"):
        predict_many(ml.load(whole), [])


def test_an_output_that_is_not_finite() -> None:
    with pytest.raises(ModaliftError, match="not finite"):
        Prediction.of("x", np.array([np.nan, 1.0], np.float32), ["a", "b"])


# ---- what must not be saved -----------------------------------------------------------------------------------------


def test_training_only_modules_do_not_ship(tmp_path: Path, framing: Framing) -> None:
    net = small_net()
    net.projection = nn.Linear(3, 3)
    with pytest.raises(ModaliftError, match="projection"):
        save_model(tmp_path / "x.modalift", net, framing=framing, classes=NAMES)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_saved(tmp_path: Path, framing: Framing) -> None:
    path, net = tmp_path / "x.modalift", small_net()
    with pytest.raises(ModaliftError, match="5 classes"):
        save_model(path, net, framing=framing, classes=NAMES[:2])
    with pytest.raises(ModaliftError, match="no model can be made of a Linear"):
        model_of(nn.Linear(2, 2), {"depth": framing}, NAMES)
    with pytest.raises(ModaliftError, match="temporal_crops"):
        save_model(path, net, framing=framing, classes=NAMES, protocol={"temporal_crops": 0})
    with pytest.raises(ModaliftError, match=r"protocol\.views"):
        save_model(path, net, framing=framing, classes=NAMES, protocol={"views": 3})
    with torch.no_grad():
        net.head.fc.bias[1] = float("nan")
    with pytest.raises(ModaliftError, match=r"head\.fc\.bias"):
        save_model(path, net, framing=framing, classes=NAMES)
    assert not list(tmp_path.iterdir())


# ---- undamaged files with wrong contents ----------------------------------------------------------------------------


def _resealed(whole: Path, to: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> Path:
    contents = container.read(whole)
    document, tensors = dict(contents.document), dict(contents.tensors)
    change(document, tensors)
    container.write(to, tensors, document)
    return to


@pytest.mark.parametrize(("change", "words"), [
    (lambda d, t: d["network"].update(name="os.system"), "os.system"),
    (lambda d, t: d["network"].update(name=7), "names no network"),
    (lambda d, t: d.update(network=[]), "'network'"),
    (lambda d, t: d.update(kind="oracle"), "'oracle', which is not registered here"),
    (lambda d, t: d.update(kind="fusion"), "has no networks or no head"),
    (lambda d, t: d["network"].update(evil=1), "unknown key 'network.evil'"),
    (lambda d, t: d["network"].update(prepare=1), "unknown key 'network.prepare'"),
    (lambda d, t: d["network"].update(width={"a": 1}), "not a plain value"),
    (lambda d, t: d["network"].update(width=[[1]]), "not a plain value"),
    (lambda d, t: d["network"].update(width=10**9), "not a plain value"),
    (lambda d, t: d["network"].update(width="wide"), "network.width = 'wide'"),
    (lambda d, t: d["network"].update(width=8), "its configuration says"),
    (lambda d, t: d["network"].update(classes=1_000_000), "its configuration says"),
    (lambda d, t: d["network"].update(width=100_000), "its configuration says"),
    (lambda d, t: t.pop("head.fc.bias"), "'head.fc.bias' is missing"),
    (lambda d, t: t.update(more=torch.ones(1)), "'more'"),
    (lambda d, t: t.update({"head.fc.bias": torch.ones(5).double()}), "float64"),
    (lambda d, t: d["framings"]["depth"].update(sampler="exec"), "sampler"),
    (lambda d, t: d["framings"]["depth"].update(frames="6"), "framings.depth.frames"),
    (lambda d, t: d["framings"]["depth"].update(frames=True), "framings.depth.frames"),
    (lambda d, t: d["framings"]["depth"].update(size=900_000), "larger than any network"),
    (lambda d, t: d["framings"]["depth"].update(color=1), "framings.depth.color"),
    (lambda d, t: d["framings"]["depth"].pop("frames"), "lacks frames or size"),
    (lambda d, t: d.update(framings=None), "'framings'"),
    (lambda d, t: d["protocol"].update(temporal_crops=-1), "protocol.temporal_crops"),
    (lambda d, t: d.update(protocol=3), "'protocol'"),
    (lambda d, t: d.update(classes=["a"]), "1 class names for a network of 5"),
    (lambda d, t: d.update(classes="abcde"), "class names"),
    (lambda d, t: d.update(classes=[1, 2, 3, 4, 5]), "class names"),
    (lambda d, t: d.pop("provenance"), "'provenance'"),
    (lambda d, t: d.update(code="import os"), "'code'"),
    (lambda d, t: d["modalities"]["depth"].update(unit="m"), "unit"),
    (lambda d, t: d["modalities"]["depth"].update(name="rgb"), "does not name the modality"),
    (lambda d, t: (d["modalities"]["depth"].update(name="sonar"), d["network"].update(modality_name="sonar")), "'sonar'"),
])
def test_wrong_contents_in_an_undamaged_file(tmp_path: Path, whole: Path, words: str,
                                        change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> None:
    path = _resealed(whole, tmp_path / "x.modalift", change)
    with pytest.raises(ModaliftError) as caught:
        ml.load(path)
    line = str(caught.value)
    assert words in line
    assert str(path) in line
    assert "\n" not in line


def test_framing_of_an_older_file_takes_the_defaults(tmp_path: Path, whole: Path, framing: Framing) -> None:
    path = _resealed(whole, tmp_path / "x.modalift", lambda d, t: d["framings"]["depth"].pop("crop_ratio"))
    assert ml.load(path).framing == framing.replace(crop_ratio=1.0)


def test_repr_names_the_network(whole: Path) -> None:
    assert repr(ml.load(whole)).startswith("RecognizerModel(depth, 5 classes, sha256 ")
    assert "none yet" in repr(model_of(small_net(), {"depth": Framing(frames=6, size=24)}, NAMES))
