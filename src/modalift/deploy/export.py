"""A bundle as ONNX: one input, the clip in the sensor's unit; refused where it does not answer alike."""

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
from modalift.models.translator import TranslatorModel
from modalift.networks import Network

#: Batch sizes that the exported file must serve alike.
_BATCHES = (1, 2, 3)


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how well it agrees.

    Attributes:
        path, bytes: the file.
        opset: version of ONNX's operators.
        input: name and shape of the one input, ``batch`` free.
        output: name and shape of the output.
        clips: how many clips were compared.
        difference: largest difference of a logit, as a share of the largest logit (of a translator: of readings).
        tolerance: the largest that was allowed.
        sha256: the seal of the bundle that it was made from.
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
    r"""Writes a bundle's network, its normalization included, as an ONNX file.

    The file has exactly one input ``clip (batch, C, T, H, W)``, float32 in the sensor's unit, and one output ``logits
    (batch, K)``. What must happen before (framing, protocol) and what the logits mean (classes) stands in its
    metadata as JSON. It is written only if ONNX Runtime gives

    .. math:: \max |z - z'| \le \epsilon \max |z|

    for clips of noise and of the sensor's own range, holes and extremes included, and for batches of 1, 2 and 3.

    A translator's file takes frames, ``clip (batch, C, 1, H, W)``, and gives ``picture (batch, C', 1, H, W)`` in the unit of
    its target, whose facts the metadata have too. Pictures without any contrast are not compared: each normalization over a
    picture enlarges what rounding left of it some 300 times, so no two programs agree on them.

    Args:
        model: an opened bundle.
        out: the file, ``*.onnx``; an older one of that name is replaced whole.
        opset: version of ONNX's operators.
        tolerance: :math:`\epsilon`.
        seed: of the clips that are compared.

    Raises:
        ModaliftError: the extra ``export`` is not installed, the network cannot be exported, its export answers
            differently (nothing is written), or the file cannot be written.
    """
    out = Path(out)
    if out.suffix != ".onnx":
        raise ModaliftError(f"{out}: name the export *.onnx")
    if model.framing.sampler == "whole":
        raise ModaliftError(f"{model.path or 'bundle'}: its framing takes whole recordings of any length, an export"
                            " has a fixed number of frames - train with the sampler 'segments' or 'dense' to export")
    _need_onnx()
    clips, draws = probes(model, seed), isinstance(model, TranslatorModel)
    if draws:
        clips = clips[:3].transpose(1, 2).flatten(0, 1)[:, :, None]  # frames of noise, one a clip
    net = copy.deepcopy(model.network).cpu().eval()  # the bundle stays on its device
    gives = "picture" if draws else "logits"
    data = _to_onnx(model, net, clips[:2], opset, out, gives)
    names, difference = _compare(net, data, clips, tolerance, out, gives)
    write_beside(out, lambda beside: beside.write_bytes(data))
    return ExportReport(out, len(data), opset, names[0], names[1], len(clips), difference, tolerance, model.sha256)


def probes(model: SensorModel, seed: int = 0) -> Tensor:
    """Clips ``(6, C, T, H, W)`` that an export is compared on, in the sensor's unit.

    Noise about the usual reading, noise over the whole range, the same with holes, no reading at all (or zero), and
    both ends of the range.
    """
    framing, sensor = model.framing, model.modality
    shape = (model.network.channels, framing.frames, *(() if sensor.kind == "signal" else (framing.size, framing.size)))
    shape = shape if len(shape) == 4 else (*shape, 1, 1)
    rng = torch.Generator().manual_seed(seed)
    mean, std = (v.reshape(-1, 1, 1, 1).cpu() for v in (model.network.prepare.mean, model.network.prepare.std))
    usual = mean + std * torch.randn(shape, generator=rng)
    spread = sensor.low + (sensor.high - sensor.low) * torch.rand(shape, generator=rng)
    nothing = 0.0 if sensor.invalid is None else sensor.invalid
    holes = torch.where(torch.rand(shape, generator=rng) < 0.3, torch.tensor(nothing), _said(spread, sensor))
    ends = [torch.full(shape, v) for v in (nothing, sensor.low, sensor.high)]
    return torch.stack([_said(usual, sensor), _said(spread, sensor), holes, *ends])


def _said(clip: Tensor, sensor: Modality) -> Tensor:
    """Readings as the sensor could have said them."""
    clip = clip.clamp(sensor.low, sensor.high)
    return clip if sensor.dtype == "float32" else clip.round()


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModaliftError(f"export needs {error.name} - pip install \"modalift[export]\"") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress and its warnings about its own workings are nobody's business."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _to_onnx(model: SensorModel, net: Network, example: Tensor, opset: int, out: Path, gives: str) -> bytes:
    """The network as a checked ONNX file, in memory."""
    import onnx

    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(net, (example,), dynamo=True, opset_version=opset, verbose=False,
                                        input_names=["clip"], output_names=[gives],
                                        dynamic_shapes=({0: torch.export.Dim("batch")},))
        assert program is not None
        proto = program.model_proto
    except Exception as error:  # the exporter raises many kinds, all of them about the network
        line = next(iter(str(error).strip().splitlines()), "")[:200]
        raise ModaliftError(f"{out}: the network '{net.config['name']}' cannot be exported with opset {opset}"
                            f" ({type(error).__name__}: {line})") from None
    _strip(proto)
    proto.producer_name = "modalift"
    metadata = {"classes": list(model.classes), "framing": model.framing.model_dump(), "protocol": model.protocol.model_dump(),
             "modality": asdict(model.modality), "provenance": model.provenance, "bundle_sha256": model.sha256}
    if isinstance(model, TranslatorModel):
        metadata["target"] = asdict(model.network.given)
    onnx.helper.set_model_props(proto, {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()})
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModaliftError(f"{out}: the export is no valid ONNX ({str(error).splitlines()[0][:200]}); it was not"
                            " written") from None
    return bytes(proto.SerializeToString())


def _strip(model: Any) -> None:
    """Removes what the exporter notes down for debugging: source lines and paths of the machine that exports."""
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
             gives: str) -> tuple[list[tuple[str, tuple[Any, ...]]], float]:
    """Names and shapes of input and output, and the largest difference; an error where it is too large."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if [i.name for i in inputs] != ["clip"] or [o.name for o in outputs] != [gives]:
            raise ModaliftError(f"{out}: the export has inputs {[i.name for i in inputs]} and outputs"
                                f" {[o.name for o in outputs]}, not clip and {gives}; it was not written")
        difference, largest = 0.0, 0.0
        for batch in _BATCHES:
            for piece in clips.split(batch):
                with torch.inference_mode():
                    ours = net(piece).numpy()
                theirs = session.run([gives], {"clip": piece.numpy()})[0]
                if ours.shape != theirs.shape or not np.isfinite(ours).all() or not np.isfinite(theirs).all():
                    raise ModaliftError(f"{out}: the export answers {theirs.shape} where the network answers"
                                        f" {ours.shape}, or values that are not finite; it was not written")
                difference = max(difference, float(np.abs(ours - theirs).max()))
                largest = max(largest, float(np.abs(ours).max()))
    except ModaliftError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no common public base
        line = next(iter(str(error).strip().splitlines()), "")[:200]
        raise ModaliftError(f"{out}: ONNX Runtime refuses the export ({line}); it was not written") from None
    share = difference / max(largest, 1e-12)
    if not share <= tolerance:
        what = "logit" if gives == "logits" else "reading"
        raise ModaliftError(f"{out}: the export differs from the network by {share:.1e} of the largest {what}, more than"
                            f" {tolerance:.1e}; it was not written")
    return [(v.name, tuple(v.shape)) for v in (inputs[0], outputs[0])], share
