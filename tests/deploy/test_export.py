"""An export computes what the network computes, or is not written."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modalift as ml
from modalift import networks
from modalift.deploy.export import comparison_clips, export_onnx
from modalift.errors import ModaliftError
from modalift.loading.framing import Framing
from modalift.models.recognizer import RecognizerModel
from modalift.networks import Recognizer
from small_models import NAMES, lively, small_net

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize(("name", "options", "size"), [
    ("small", {"view": "depth", "motion": "clip", "width": 4}, 24),
    ("small", {"view": "depth", "motion": "running", "causal": True, "width": 4}, 24),
    ("tsm", {"view": "rgb", "backbone": "resnet18", "width": 0.125}, 32),
    ("tcn", {"view": "pose", "channels": 12, "width": 16}, 1),
])
def test_parity(tmp_path: Path, name: str, options: dict[str, Any], size: int) -> None:
    net = lively(networks.build(name, classes=5, frames=6, size=size, **options))
    bundle = RecognizerModel(net, {net.view: Framing(frames=6, size=size)}, NAMES, provenance={"run": "r1"})
    report = export_onnx(bundle, tmp_path / "x.onnx")
    shape = (net.channels, 6, size, size)
    assert report.input == ("clip", ("batch", *shape))
    assert report.output == ("logits", ("batch", 5))
    assert report.difference <= 1e-4
    session = ort.InferenceSession(str(report.path), providers=["CPUExecutionProvider"])
    for batch in (1, 4):
        clip = torch.rand((batch, *shape), generator=torch.Generator().manual_seed(batch)) * 250
        theirs = session.run(None, {"clip": clip.numpy()})
        assert len(theirs) == 1
        ours = bundle.logits(clip).numpy()
        np.testing.assert_allclose(theirs[0], ours, rtol=0, atol=1e-4 * np.abs(ours).max())


def test_the_file_holds_its_preprocessing_and_nothing_of_this_machine(tmp_path: Path, whole: Path) -> None:
    bundle = ml.load(whole)
    report = export_onnx(bundle, tmp_path / "x.onnx")
    model = onnx.load(report.path)
    metadata = {p.key: p.value for p in model.metadata_props}
    assert json.loads(metadata["classes"]) == list(NAMES)
    assert json.loads(metadata["framing"])["size"] == 24
    assert json.loads(metadata["protocol"]) == {"temporal_crops": 2, "spatial_crops": 1}
    assert json.loads(metadata["modality"])["unit"] == "mm"
    assert metadata["bundle_sha256"] == report.sha256 == bundle.sha256
    data = report.path.read_bytes()
    assert len(data) == report.bytes
    assert b"site-packages" not in data
    assert str(Path(ml.__file__).parent).encode() not in data
    assert [p.name for p in tmp_path.iterdir()] == ["x.onnx"], "one file, no external weights"


def test_comparison_clips_are_readings_of_the_sensor() -> None:
    clips = comparison_clips(RecognizerModel(small_net(), {"depth": Framing(frames=6, size=24)}, NAMES))
    assert clips.shape == (6, 1, 6, 24, 24)
    assert torch.equal(clips, clips.round())
    assert float(clips.min()) == 0.0
    assert float(clips.max()) == 10000.0
    assert 0.2 < float((clips[2] == 0).float().mean()) < 0.4


class Differs(Recognizer):
    """Gives other logits while it is exported."""

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        logits = super().forward(clip)
        return logits * 1.01 if torch.compiler.is_compiling() or torch.compiler.is_exporting() else logits


class Branches(Recognizer):
    """Cannot be exported: its control flow depends on the values of the clip."""

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return super().forward(clip) * (2.0 if clip.sum().item() > 0 else 1.0)


@pytest.mark.parametrize(("kind", "words"), [(Differs, "differs from the network by 1.0e-02"),
                                             (Branches, "cannot be exported")])
def test_a_wrong_export_is_not_written(tmp_path: Path, kind: type[Recognizer], words: str) -> None:
    net = small_net()
    net.__class__ = kind
    (tmp_path / "x.onnx").write_bytes(b"older")
    with pytest.raises(ModaliftError, match=words) as caught:
        export_onnx(RecognizerModel(net, {net.view: Framing(frames=6, size=24)}, NAMES), tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x.onnx"]
    assert (tmp_path / "x.onnx").read_bytes() == b"older"


def test_invalid_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = RecognizerModel(small_net(), {"depth": Framing(frames=6, size=24)}, NAMES)
    with pytest.raises(ModaliftError, match=r"\*\.onnx"):
        export_onnx(bundle, tmp_path / "x.mp4")
    whole = RecognizerModel(small_net(), {"depth": Framing(frames=6, size=24, sampler="whole")}, NAMES)
    with pytest.raises(ModaliftError, match="whole recordings"):
        export_onnx(whole, tmp_path / "x.onnx")
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'", name="onnxruntime")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModaliftError, match=r"onnxruntime - pip install \"modalift\[export\]\""):
        export_onnx(bundle, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
