"""Export to ONNX: one input, the clip in the sensor's unit; refused where its outputs differ from PyTorch's."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalift.errors import ModaliftError
from modalift.files import write_beside
from modalift.modalities import Modality
from modalift.models import SensorModel
from modalift.networks import Network

#: Batch sizes for which the outputs are compared.
_BATCHES = (1, 2, 3)


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how closely its outputs agree.

    Attributes:
        path, bytes: the file and its size.
        opset: version of ONNX's operators.
        input, output: name and shape; the dimension ``batch`` is dynamic.
        clips: number of clips that were compared.
        difference: largest absolute difference of an output, as a share of the largest absolute output.
        tolerance: largest allowed difference.
        sha256: the seal of the exported bundle.
    """

    path: Path
    bytes: int
    opset: int
    input: tuple[str, tuple[Any, ...]]
    output: tuple[str, tuple[Any, ...]]
    clips: int
    difference: float
    tolerance: float
    sha256: str


def export_onnx(model: SensorModel, out: str | Path, *, opset: int = 18, tolerance: float = 1e-4,
                seed: int = 0) -> ExportReport:
    r"""Exports a model's network, with its normalization, to an ONNX file.

    The file has exactly one input ``clip (batch, C, T, H, W)``, float32 in the sensor's unit, and one output ``logits
    (batch, K)``. Its metadata hold the preprocessing (framing, protocol) and the class names as JSON. It is written only
    if ONNX Runtime gives

    .. math:: \max |z - z'| \le \epsilon \max |z|

    where :math:`z` are the network's outputs and :math:`z'` those of the file, for the clips of :func:`comparison_clips`
    and batches of 1, 2 and 3.

    A translator's file takes frames, ``clip (batch, C, 1, H, W)``, and gives ``image (batch, C', 1, H, W)`` in the unit of
    its target modality, which the metadata describe. Constant images are not compared: instance normalization amplifies
    their rounding errors some 300 times, so no two implementations agree on them.

    Args:
        model: a model of one sensor.
        out: the file, ``*.onnx``; an older one is replaced.
        opset: version of ONNX's operators.
        tolerance: :math:`\epsilon`.
        seed: seed of the compared clips.

    Raises:
        ModaliftError: the extra ``export`` is not installed, the network cannot be exported, the outputs differ
            (nothing is written), or the file cannot be written.
    """
    out = Path(out)
    if out.suffix != ".onnx":
        raise ModaliftError(f"{out}: name the export *.onnx")
    if not model.deployable:
        raise ModaliftError(f"{model.name}: a {model.kind} reads several sensors, an export has one input - {model.advice}")
    if model.framing.sampler == "whole":
        raise ModaliftError(f"{model.name}: its framing takes whole recordings of any length, but an export"
                            " has a fixed number of frames - train with the sampler 'segments' or 'dense' to export")
    _require_onnx()
    clips = comparison_clips(model, seed)
    if model.frame_by_frame:
        clips = clips[:3].transpose(1, 2).flatten(0, 1)[:, :, None]  # frames of noise, one per clip
    net = copy.deepcopy(model.network).cpu().eval()  # the model stays on its device
    data = _to_onnx(model, net, clips[:2], opset, out)
    names, difference = _compare(net, data, clips, tolerance, out, model.output)
    write_beside(out, lambda beside: beside.write_bytes(data))
    return ExportReport(out, len(data), opset, names[0], names[1], len(clips), difference, tolerance, model.sha256)


def comparison_clips(model: SensorModel, seed: int = 0) -> Tensor:
    """The clips ``(6, C, T, H, W)`` on which an export is compared, in the sensor's unit.

    Noise around the normalization's mean, noise over the whole range, the same with invalid readings, no valid reading
    (or zero), and both ends of the range.
    """
    framing, sensor = model.framing, model.modality
    shape = (model.network.channels, framing.frames, *(() if sensor.kind == "signal" else (framing.size, framing.size)))
    shape = shape if len(shape) == 4 else (*shape, 1, 1)
    rng = torch.Generator().manual_seed(seed)
    mean, std = (v.reshape(-1, 1, 1, 1).cpu() for v in (model.network.prepare.mean, model.network.prepare.std))
    usual = mean + std * torch.randn(shape, generator=rng)
    spread = sensor.low + (sensor.high - sensor.low) * torch.rand(shape, generator=rng)
    invalid = 0.0 if sensor.invalid is None else sensor.invalid
    holes = torch.where(torch.rand(shape, generator=rng) < 0.3, torch.tensor(invalid), _as_readings(spread, sensor))
    ends = [torch.full(shape, v) for v in (invalid, sensor.low, sensor.high)]
    return torch.stack([_as_readings(usual, sensor), _as_readings(spread, sensor), holes, *ends])


def _as_readings(clip: Tensor, sensor: Modality) -> Tensor:
    """A clip clamped to the sensor's range, and rounded for integer sensors."""
    clip = clip.clamp(sensor.low, sensor.high)
    return clip if sensor.dtype == "float32" else clip.round()


def what_is_missing() -> str:
    """What an export needs and does not find, with the command that installs it; empty if it finds all."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        return f"export needs {error.name} - pip install \"modalift[export]\""
    return ""


def _require_onnx() -> None:
    if missing := what_is_missing():
        raise ModaliftError(missing)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's progress output and internal warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _to_onnx(model: SensorModel, net: Network, example: Tensor, opset: int, out: Path) -> bytes:
    """Exports the network to the bytes of an ONNX file, and validates it."""
    import onnx

    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(net, (example,), dynamo=True, opset_version=opset, verbose=False,
                                        input_names=["clip"], output_names=[model.output],
                                        dynamic_shapes=({0: torch.export.Dim("batch")},))
        assert program is not None
        proto = program.model_proto
    except Exception as error:  # the exporter raises many types, all of them about the network
        line = next(iter(str(error).strip().splitlines()), "")[:200]
        raise ModaliftError(f"{out}: the network '{net.config['name']}' cannot be exported with opset {opset}"
                            f" ({type(error).__name__}: {line})") from None
    _strip(proto)
    proto.producer_name = "modalift"
    metadata = {"classes": list(model.classes), "framing": model.framing.model_dump(), "protocol": model.protocol.model_dump(),
             "modality": asdict(model.modality), "provenance": model.provenance, "bundle_sha256": model.sha256,
             **model.output_metadata}
    onnx.helper.set_model_props(proto, {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()})
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModaliftError(f"{out}: the export is not valid ONNX ({str(error).splitlines()[0][:200]}); it was not"
                            " written") from None
    return bytes(proto.SerializeToString())


def _strip(model: Any) -> None:
    """Removes the exporter's debug information: source lines and paths of this machine."""
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        del graph.metadata_props[:]
        graph.doc_string = ""
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""


def _compare(net: Network, data: bytes, clips: Tensor, tolerance: float, out: Path,
             output_name: str) -> tuple[list[tuple[str, tuple[Any, ...]]], float]:
    """Compares outputs; returns names and shapes of input and output, and the largest relative difference.

    Raises:
        ModaliftError: the difference is larger than the tolerance.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if [i.name for i in inputs] != ["clip"] or [o.name for o in outputs] != [output_name]:
            raise ModaliftError(f"{out}: the export has inputs {[i.name for i in inputs]} and outputs"
                                f" {[o.name for o in outputs]}, not clip and {output_name}; it was not written")
        difference, largest = 0.0, 0.0
        for batch in _BATCHES:
            for piece in clips.split(batch):
                with torch.inference_mode():
                    ours = net(piece).numpy()
                theirs = session.run([output_name], {"clip": piece.numpy()})[0]
                if ours.shape != theirs.shape or not np.isfinite(ours).all() or not np.isfinite(theirs).all():
                    raise ModaliftError(f"{out}: the export's output is {theirs.shape}, the network's {ours.shape}, or"
                                        " one of them is not finite (NaN or Inf); it was not written")
                difference = max(difference, float(np.abs(ours - theirs).max()))
                largest = max(largest, float(np.abs(ours).max()))
    except ModaliftError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no common public base class
        line = next(iter(str(error).strip().splitlines()), "")[:200]
        raise ModaliftError(f"{out}: ONNX Runtime cannot run the export ({line}); it was not written") from None
    share = difference / max(largest, 1e-12)
    if not share <= tolerance:
        what = "logit" if output_name == "logits" else "reading"
        raise ModaliftError(f"{out}: the export differs from the network by {share:.1e} of the largest {what}, more than"
                            f" {tolerance:.1e}; it was not written")
    return [(v.name, tuple(v.shape)) for v in (inputs[0], outputs[0])], share
