"""Loads weights from files: our own, and public ones.

Formats by the names that :func:`load_weights` reports (``modalift list networks`` shows which network reads which;
:data:`modalift.networks.weight_formats.FORMATS` holds their rules):

========================================= ============================================================================
format                                    what it is
========================================= ============================================================================
modalift                                  our own
torchvision ResNet, torchvision VGG       ImageNet networks; a 3D network inflates them
torchvision video ResNet                  ``r3d_18``
Res2Net                                   ImageNet ``res2net50_26w_4s``, with which TEA is initialized
TSN, TSM, TEA, ACTION-Net                 the published code's checkpoints (TEA also without its wrapper)
mmaction2 TSN, TSM, C3D                   checkpoints of mmaction2
mmaction2 3-D ResNet (I3D, SlowOnly)      mmaction2's ``i3d_r50``, ``slowonly_r50`` and similar
SlowFast 3-D ResNet                       ``I3D_8x8_R50`` as SlowFast's training writes it; not the ``.pkl`` files of
                                          its model zoo, which are Caffe2's
pytorch-i3d, hassony2 I3D                 Inception I3D, converted from TensorFlow: rgb, flow, Charades
mmpose MTUT I3D                           an rgb and a depth network in one file, chosen by the network's modality
3-D ResNet (kenshohara, okankop)          ResNet-18 to 50 and ResNeXt-101; also GesRec's
C3D, C3D (Caffe layers), GesRec C3D       jfzhang95's names, the converted Caffe file's, and the variant with BatchNorm
========================================= ============================================================================
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.files import is_file
from modalift.networks.recognizer import Network
from modalift.networks.weight_formats import FORMATS, WRAPPERS, WRAPPINGS, Format, formats_for, renamed

__all__ = ["FORMATS", "Format", "Loaded", "formats_for", "load_weights", "read_state", "to_torchvision"]


@dataclass(frozen=True)
class Loaded:
    """The result of loading a file, by the network's tensor names.

    Attributes:
        format: the file's format.
        loaded: names loaded unchanged.
        adapted: name -> what was changed to fit.
        left: name in the file -> why it was left out.
        missing: names that the file does not have; their values do not change.
        note: what else to know about such files.
    """

    format: str
    loaded: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    note: str = ""

    def __str__(self) -> str:
        lines = [f"{self.format}: {len(self.loaded)} loaded, {len(self.adapted)} adapted, {len(self.left)} left out, "
                 f"{len(self.missing)} missing"]
        lines += _grouped("adapted", self.adapted) + _grouped("left out", self.left)
        lines += [line.split(": ")[0] for line in _grouped("missing", {n: n.split(".")[0] for n in self.missing})]
        return "\n".join([*lines, f"  note: {self.note}"] if self.note else lines)


def _grouped(what: str, reasons: Mapping[str, str]) -> list[str]:
    """A line per name, or one for many names with one reason."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, reason in reasons.items():
        names[reason].append(name)
    lines = []
    for reason, group in names.items():
        if len(group) > 8:
            group = [f"{group[0]} and {len(group) - 1} more"]
        lines += [f"  {what} {name}: {reason}" for name in group]
    return lines


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The named tensors in a ``.modalift``, ``.safetensors`` or PyTorch file; never runs code that the file may contain.

    Raises:
        ModaliftError: a missing or damaged file, one that contains code, or one without named tensors.
    """
    path = Path(path)
    if not is_file(path):
        raise ModaliftError(f"{path}: no such weights file")
    if path.suffix in (".safetensors", ".modalift"):
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModaliftError(f"{path}: not a readable safetensors file ({_first(error)}) - download it again") from None
    with path.open("rb") as file:
        if not file.read(2).startswith((b"PK", b"\x80")):  # a zip archive, or a pickle as older versions wrote
            raise ModaliftError(f"{path}: not a PyTorch weights file - download it again")
    try:
        with warnings.catch_warnings(action="ignore"):
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", f"{error} {error.__context__}")
        what = f"a {found[1][:80]}" if found else "more than tensors, or damage"
        raise ModaliftError(f"{path}: holds {what}, so opening it could run code - save its state_dict() alone, or as "
                            ".safetensors") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise ModaliftError(f"{path}: not a readable PyTorch file ({_first(error)}) - download it again") from None
    for wrapping in WRAPPINGS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapping), Mapping):
            state = state[wrapping]
    if not isinstance(state, Mapping):
        raise ModaliftError(f"{path}: holds no named tensors but a {type(state).__name__} - save a state_dict()")
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ModaliftError(f"{path}: holds no named tensors - save a state_dict()")
    return tensors


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _trunk(names: Iterable[str]) -> list[str]:
    """Names of the trunk's tensors, without BatchNorm's counters."""
    return [n for n in names if not n.startswith(("head.", "neck.", "prepare.")) and not n.endswith("num_batches_tracked")]


@dataclass
class _Reading:
    """A file read in one format, for one network.

    Attributes:
        format: the format.
        taken: our name -> name in the file, of tensors that fit or can be adapted.
        left: name in the file -> why it is left out.
        wrong: our name -> name in the file, of tensors of the trunk that cannot be adapted.
        unmatched: translated names of the file's trunk tensors that this network does not have.
    """

    format: Format
    taken: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)

    @property
    def found(self) -> int:
        return len(_trunk(self.taken))


def _bare(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without trailing ones: a linear layer and a 1x1 convolution have the same matrix."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return tuple(shape)


def _fits(given: Tensor, wanted: Tensor, first: bool) -> bool:
    """Whether a tensor of the file fits one of the network's, adapted if needed; ``first``: the first convolution."""
    if wanted.is_floating_point() and _not_plain(given):
        return False
    shape = list(given.shape)
    if given.dim() == 4 and wanted.dim() == 5:
        shape.insert(2, wanted.shape[2])
    if first and len(shape) > 1:
        shape[1] = wanted.shape[1]
    return shape == list(wanted.shape) or _bare(given.shape) == _bare(wanted.shape)


def _not_plain(tensor: Tensor) -> str:
    """Why a tensor is not a dense one of floating-point numbers; empty if it is."""
    if tensor.layout != torch.strided or tensor.is_meta:
        return " without values" if tensor.is_meta else " and sparse"
    return "" if tensor.is_floating_point() and tensor.numel() else f" of {str(tensor.dtype).removeprefix('torch.')}"


def _inputs(net: Network) -> set[str]:
    """The weights that read the clip: those of the first convolution."""
    names = (n for n, m in net.named_modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d)))
    return {f"{n}.weight" for n in list(names)[:1]}


def _read_as(kind: Format, state: Mapping[str, Tensor], net: Network) -> _Reading:
    """A file, wrappers' prefixes removed, read in one format."""
    own = net.state_dict()
    inputs = _inputs(net)
    sensors = kind.sensors(state)
    sensor = net.modality if net.modality in sensors else net.view
    reading = _Reading(kind)
    for key, tensor in state.items():
        name = kind.translate(key, sensor)
        if name is None:
            reading.left[key] = "of another sensor's network in the file"
        elif name not in own:
            reading.left[key] = "the network has no such layer"
            reading.unmatched += _trunk([name])
        elif name in reading.taken:
            reading.left[key] = f"'{reading.taken[name]}' is the same layer"
        elif _fits(tensor, own[name], name in inputs):
            reading.taken[name] = key
        elif name.startswith(("head.", "prepare.")):
            reading.left[key] = f"{_why(name, kind)}: {tuple(tensor.shape)} in the file, {tuple(own[name].shape)} here"
        else:
            reading.wrong[name] = key
    return reading


def _why(name: str, kind: Format) -> str:
    """Why a tensor of the head or of the constants does not fit."""
    if name.startswith("prepare."):
        return "other channels"
    if name.startswith("head.fc.") or not kind.clip:
        return "other classes or another head"
    return f"made for clips of {kind.clip}"


def _refuse_another(net: Network, reading: _Reading, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raises if the file is of another trunk, also if names and shapes agree by chance."""
    kind = reading.format
    what, advice = f"{path}: a file of {kind.name}", "these are weights of another network"
    if kind.families and net.config.get("name") not in kind.families:
        advice += f" ({', '.join(kind.families)})"
    else:
        advice = f"these are weights of another {'' if kind.families else 'network, '}backbone, width or pattern"
    own = net.state_dict()
    if (sensors := kind.sensors(state)) and net.modality not in sensors and net.view not in sensors:
        raise ModaliftError(f"{what} with a network each for {' and '.join(sensors)}, none for '{net.modality or net.view}' - "
                            f"build the network with modality_name {' or '.join(repr(s) for s in sensors)}")
    if reading.wrong:
        name, key = next(iter(reading.wrong.items()))
        tensor = state[key]
        held = f"{tuple(tensor.shape)}{_not_plain(tensor)}"
        raise ModaliftError(f"{path}: '{key}' is {held} but {tuple(own[name].shape)} in the network - {advice}")
    trunk = _trunk(own)
    if 2 * reading.found < len(trunk):
        raise ModaliftError(f"{what} with {reading.found} of the {len(trunk)} tensors of this network's trunk - {advice}")
    given = len(reading.unmatched) + reading.found
    blocks, here = _blocks(trunk), _blocks(reading.taken)
    deeper = [n for n in reading.unmatched if _blocks([n]) - blocks]
    if 10 * len(reading.unmatched) > given or deeper:
        raise ModaliftError(f"{what} with {len(reading.unmatched)} tensors that this network lacks, such as "
                            f"'{(deeper or reading.unmatched)[0]}' - {advice}")
    for block in sorted(blocks - here):
        raise ModaliftError(f"{what} without '{block}' - {advice}")
    for name in trunk:
        if re.search(r"\.downsample\.0\.weight$", name) and name not in reading.taken:
            raise ModaliftError(f"{what} without '{name}' (shortcuts of type A, which have no weights) - "
                                "this network takes files with shortcuts of type B")


def _blocks(names: Iterable[str]) -> set[str]:
    """The numbered blocks that names belong to, such as ``backbone.layer3.5``."""
    return {m[0] for n in names if (m := re.match(r"backbone\.[^.]+\.\d+(?=\.[^.]+\.)", n))}


def _change(tensor: Tensor, wanted: Tensor, net: Network) -> tuple[Tensor, str]:
    """A tensor of the file adapted to the network, and what was done beyond a reshape, or an empty string."""
    if _bare(tensor.shape) == _bare(wanted.shape):
        return tensor.reshape(wanted.shape), ""
    done = []
    if tensor.dim() == 4 and wanted.dim() == 5:
        frames = wanted.shape[2]
        tensor = (tensor / frames).unsqueeze(2).expand(-1, -1, frames, -1, -1)
        if frames > 1:  # a time axis of one frame changes no value
            done.append(f"inflated: repeated over {frames} frames and divided by {frames}")
    if tensor.shape[1] != wanted.shape[1]:
        tensor, what = _adapt_input(tensor, net, wanted.shape[1])
        done.append(what)
    return tensor.contiguous(), "; ".join(done)


def _adapt_input(weight: Tensor, net: Network, channels: int) -> tuple[Tensor, str]:
    """The first convolution's weights for another number of channels, and what was done.

    One channel gets the sum over the file's channels (so that a gray image gives the same output as the image repeated in
    every channel); other numbers, also those of stacked frames, get their mean, repeated. Motion channels start at zero,
    so that the network first computes what the file's network did.
    """
    moving = net.spec.prepared_channels - net.channels  # motion channels follow the plain ones
    plain = channels - moving if channels == net.spec.prepared_channels else channels
    given = weight.shape[1]
    if plain == given:
        out, done = weight, "kept"
    elif plain == 1:
        out, done = weight.sum(1, keepdim=True), f"sum over {given} channels"
    else:
        out = weight.mean(1, keepdim=True).expand(-1, plain, *weight.shape[2:])
        done = f"mean of {given} channels, repeated {plain} times"
    if channels > plain:
        out = torch.cat([out, out.new_zeros((out.shape[0], channels - plain, *out.shape[2:]))], 1)
        done += f", {channels - plain} motion channels at zero"
    return out, done


def load_weights(net: Network, path: str | Path) -> Loaded:
    """Loads a file's weights into a network, and reports what was loaded, adapted and left out.

    Reads the formats in the table above, as PyTorch files or safetensors. A file is read in the format in which most of
    its tensors fit the network. Three adaptations are made: 2D convolutions are inflated for a 3D network,

    .. math:: w'_{oityx} = w_{oiyx} / k_t, \\qquad t = 1 \\ldots k_t,

    so that a static clip gives the output of its image; the first convolution is adapted to the number of channels (one
    gets the sum of the file's, other numbers their mean, motion channels start at zero); and a classifier of other classes
    is left out. ``adapted`` and ``left`` of the result list them.

    Args:
        net: the network; not changed if an error is raised.
        path: the file.

    Raises:
        ModaliftError: a missing or damaged file, one that could run code, an unknown format, a layer of another shape,
            or a trunk of another depth or kind.

    Source: inflation is that of Carreira and Zisserman, "Quo vadis, action recognition?", CVPR 2017, section 2.4; the
    mean over channels that of Wang et al., "Temporal segment networks", ECCV 2016, section 3.2.

    Example:
        >>> import tempfile, torch, modalift.networks as networks
        >>> net = networks.build("tsm", backbone="resnet18", classes=5, channels=1, width=0.125)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(net.state_dict(), f"{folder}/net.pt")
        ...     print(load_weights(net, f"{folder}/net.pt"))
        modalift: 124 loaded, 0 adapted, 0 left out, 0 missing
    """
    held = read_state(path)
    whole = {re.sub(WRAPPERS, "", k): k for k in held}
    if len(whole) < len(held):
        twice = next(k for k in held if whole[re.sub(WRAPPERS, "", k)] != k)
        raise ModaliftError(f"{path}: holds '{re.sub(WRAPPERS, '', twice)}' twice, with and without a wrapper's prefix - "
                            "save one state_dict()")
    state = {bare: held[k] for bare, k in whole.items()}
    readings = [_read_as(kind, state, net) for kind in FORMATS if kind.matches(state)]
    if not readings:
        raise ModaliftError(f"{path}: unknown tensor names ({', '.join(list(held)[:3])}, ...) - known: "
                            f"{', '.join(f.name for f in FORMATS)}")
    best = max(readings, key=lambda r: (r.found, -len(r.wrong)))
    _refuse_another(net, best, state, path)
    own = net.state_dict()
    result = Loaded(best.format.name, left={whole[k]: why for k, why in best.left.items()}, note=best.format.note)
    fitting = {}
    for name, key in best.taken.items():
        fitting[name], done = _change(state[key], own[name], net)
        if done:
            result.adapted[name] = done
        else:
            result.loaded.append(name)
    result.missing.extend(n for n in own if n not in fitting and not n.endswith("num_batches_tracked"))
    net.load_state_dict(fitting, strict=False)
    return result


#: torchvision's networks: a characteristic weight, its kernel, a pattern of all names, and the rules from our names.
_TORCHVISION = (
    ("conv1.weight", (7, 7), r"(conv1|bn1|layer[1-4]\.\d+\.((conv|bn)[123]|downsample\.[01])|fc)\.\w+",
     ((r"^(backbone|head)\.", ""),)),
    ("features.28.weight", (3, 3), r"(features\.\d+|classifier\.[036])\.\w+",
     ((r"^backbone\.layers\.", "features."), (r"^head\.fc\.", "classifier.6."), (r"^head\.", ""))),
    ("stem.0.weight", (3, 7, 7), r"(stem\.[01]|layer[1-4]\.\d+\.(conv[12]|downsample)\.[01]|fc)\.\w+",
     ((r"^(backbone|head)\.", ""), (r"^conv1\.", "stem.0."), (r"^bn1\.", "stem.1."), (r"\.conv(\d)\.", r".conv\1.0."),
      (r"\.bn(\d)\.", r".conv\1.1."))),
)


def to_torchvision(net: Network) -> dict[str, Tensor]:
    """The weights of a network under torchvision's names, for other programs.

    ResNets over frames (``tsm``, ``tsn``), ``vgg16`` and ``r3d`` with ``res3d18`` have a counterpart there.

    Raises:
        ModaliftError: a network whose trunk or head has no counterpart there.

    Example:
        >>> import modalift.networks as networks
        >>> list(to_torchvision(networks.build("tsm", backbone="resnet18", classes=5, width=0.125)))[-1]
        'fc.bias'
    """
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("prepare.")}
    for sign, kernel, names, rules in _TORCHVISION:
        theirs = {renamed(k, rules): v for k, v in state.items()}
        if sign in theirs and theirs[sign].shape[2:] == kernel and all(re.fullmatch(names, k) for k in theirs):
            return {k: v.clone() for k, v in theirs.items()}
    raise ModaliftError(f"network '{net.config.get('name', '?')}' has no torchvision counterpart - tsm and tsn on resnet18, "
                        "resnet34 and resnet50, vgg16, and r3d on res3d18 have")
