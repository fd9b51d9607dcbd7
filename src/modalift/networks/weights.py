"""Weights from files: our own, and those that people already have.

Kinds of files, under the names that :func:`load_weights` tells (``modalift list networks`` says which network reads
which; :data:`modalift.networks.layouts.FORMATS` holds their rules):

========================================= ============================================================================
kind                                      what it is
========================================= ============================================================================
modalift                                  our own
torchvision ResNet, torchvision VGG       ImageNet networks; a 3-D network takes them inflated
torchvision video ResNet                  ``r3d_18``
Res2Net                                   ImageNet ``res2net50_26w_4s``, from which TEA begins
TSN, TSM, TEA, ACTION-Net                 the published code's checkpoints (TEA also bare of its wrapper)
mmaction2 TSN, TSM, C3D                   checkpoints of mmaction2
mmaction2 3-D ResNet (I3D, SlowOnly)      mmaction2's ``i3d_r50``, ``slowonly_r50`` and their like
SlowFast 3-D ResNet                       ``I3D_8x8_R50`` as SlowFast's own training writes it; not the ``.pkl`` of its
                                          model zoo, which are Caffe2's
pytorch-i3d, hassony2 I3D                 Inception I3D, converted from TensorFlow: rgb, flow, Charades
mmpose MTUT I3D                           an rgb and a depth network in one file; the network's modality chooses
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
from modalift.networks.layouts import FORMATS, WRAPPERS, WRAPPINGS, Format, formats_for, renamed
from modalift.networks.recognizer import Network

__all__ = ["FORMATS", "Format", "Loaded", "formats_for", "load_weights", "read_state", "to_torchvision"]


@dataclass(frozen=True)
class Loaded:
    """What came of loading a file, by the network's names.

    Attributes:
        format: the kind of file.
        loaded: names taken as they were.
        adapted: name -> what was changed to fit.
        left: name of the file -> why it was left out.
        missing: names that the file does not have; they keep what they had.
        note: what else to know of such files.
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
    """A line for every name, or one for many of one reason."""
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
    """The named tensors of a ``.modalift``, ``.safetensors`` or PyTorch file; never runs code that the file may hold.

    Raises:
        ModaliftError: no such file, a damaged one, one with code in it, or one without named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModaliftError(f"{path}: no such file of weights")
    if path.suffix in (".safetensors", ".modalift"):
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModaliftError(f"{path}: not a readable safetensors file ({_first(error)}) - fetch it again") from None
    with path.open("rb") as file:
        if not file.read(2).startswith((b"PK", b"\x80")):  # a zip archive, or a pickle as older versions wrote
            raise ModaliftError(f"{path}: not a PyTorch file of weights - fetch it again")
    try:
        with warnings.catch_warnings(action="ignore"):
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", f"{error} {error.__context__}")
        what = f"a {asked[1][:80]}" if asked else "more than tensors, or damage"
        raise ModaliftError(f"{path}: holds {what}, so opening it could run code - save its state_dict() alone, or as "
                            ".safetensors") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise ModaliftError(f"{path}: not a readable PyTorch file ({_first(error)}) - fetch it again") from None
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
    """Names of the trunk's tensors, counters left aside."""
    return [n for n in names if not n.startswith(("head.", "neck.", "prepare.")) and not n.endswith("num_batches_tracked")]


@dataclass
class _Reading:
    """A file read as one layout, for one network.

    Attributes:
        layout: the layout.
        taken: our name -> name in the file, of tensors that fit as they are or can be changed to fit.
        left: name in the file -> why it finds no place.
        wrong: our name -> name in the file, of tensors of the trunk that cannot be made to fit.
        homeless: names, ours where there are rules, of tensors of no head that this network lacks.
    """

    layout: Format
    taken: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    homeless: list[str] = field(default_factory=list)

    @property
    def found(self) -> int:
        return len(_trunk(self.taken))


def _bare(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without its last ones: a linear layer and a convolution of one pixel hold the same matrix."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return tuple(shape)


def _fits(given: Tensor, wanted: Tensor, first: bool) -> bool:
    """Whether a tensor of the file can fill one of the network's; ``first`` for the first convolution."""
    if wanted.is_floating_point() and _odd(given):
        return False
    shape = list(given.shape)
    if given.dim() == 4 and wanted.dim() == 5:
        shape.insert(2, wanted.shape[2])
    if first and len(shape) > 1:
        shape[1] = wanted.shape[1]
    return shape == list(wanted.shape) or _bare(given.shape) == _bare(wanted.shape)


def _odd(tensor: Tensor) -> str:
    """What keeps a tensor from being a plain one of real numbers, if anything."""
    if tensor.layout != torch.strided or tensor.is_meta:
        return " without values" if tensor.is_meta else " and sparse"
    return "" if tensor.is_floating_point() and tensor.numel() else f" of {str(tensor.dtype).removeprefix('torch.')}"


def _inputs(net: Network) -> set[str]:
    """The weights that read the clip: those of the first convolution."""
    names = (n for n, m in net.named_modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d)))
    return {f"{n}.weight" for n in list(names)[:1]}


def _read_as(layout: Format, state: Mapping[str, Tensor], net: Network) -> _Reading:
    """A file, its names bare of wrappers' prefixes, as one layout."""
    own = net.state_dict()
    inputs = _inputs(net)
    sensors = layout.sensors(state)
    sensor = net.modality if net.modality in sensors else net.view
    reading = _Reading(layout)
    for key, tensor in state.items():
        name = layout.translate(key, sensor)
        if name is None:
            reading.left[key] = "of another sensor's network in the file"
        elif name not in own:
            reading.left[key] = "the network has no such layer"
            reading.homeless += _trunk([name])
        elif name in reading.taken:
            reading.left[key] = f"'{reading.taken[name]}' is the same layer"
        elif _fits(tensor, own[name], name in inputs):
            reading.taken[name] = key
        elif name.startswith(("head.", "prepare.")):
            reading.left[key] = f"{_why(name, layout)}: {tuple(tensor.shape)} in the file, {tuple(own[name].shape)} here"
        else:
            reading.wrong[name] = key
    return reading


def _why(name: str, layout: Format) -> str:
    """Why a tensor of the head or of the constants does not fit."""
    if name.startswith("prepare."):
        return "other channels"
    if name.startswith("head.fc.") or not layout.clip:
        return "other classes or another head"
    return f"made for clips of {layout.clip}"


def _refuse_another(net: Network, reading: _Reading, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise where the file is of another trunk, also one with which names and shapes agree by chance."""
    layout = reading.layout
    what, advice = f"{path}: a file of {layout.name}", "these are weights of another network"
    if layout.families and net.config.get("name") not in layout.families:
        advice += f" ({', '.join(layout.families)})"
    else:
        advice = f"these are weights of another {'' if layout.families else 'network, '}backbone, width or pattern"
    own = net.state_dict()
    if (sensors := layout.sensors(state)) and net.modality not in sensors and net.view not in sensors:
        raise ModaliftError(f"{what} with a network each for {' and '.join(sensors)}, none for '{net.modality or net.view}' - "
                            f"build the network with modality_name {' or '.join(repr(s) for s in sensors)}")
    if reading.wrong:
        name, key = next(iter(reading.wrong.items()))
        tensor = state[key]
        held = f"{tuple(tensor.shape)}{_odd(tensor)}"
        raise ModaliftError(f"{path}: '{key}' is {held} but {tuple(own[name].shape)} in the network - {advice}")
    trunk = _trunk(own)
    if 2 * reading.found < len(trunk):
        raise ModaliftError(f"{what} with {reading.found} of the {len(trunk)} tensors of this network's trunk - {advice}")
    given = len(reading.homeless) + reading.found
    blocks, here = _blocks(trunk), _blocks(reading.taken)
    deeper = [n for n in reading.homeless if _blocks([n]) - blocks]
    if 10 * len(reading.homeless) > given or deeper:
        raise ModaliftError(f"{what} with {len(reading.homeless)} tensors that this network lacks, such as "
                            f"'{(deeper or reading.homeless)[0]}' - {advice}")
    for block in sorted(blocks - here):
        raise ModaliftError(f"{what} without '{block}' - {advice}")
    for name in trunk:
        if re.search(r"\.downsample\.0\.weight$", name) and name not in reading.taken:
            raise ModaliftError(f"{what} without '{name}' (shortcuts of type A, which have no weights) - "
                                "this network takes files with shortcuts of type B")


def _blocks(names: Iterable[str]) -> set[str]:
    """The numbered blocks of trunks that names belong to, such as ``backbone.layer3.5``."""
    return {m[0] for n in names if (m := re.match(r"backbone\.[^.]+\.\d+(?=\.[^.]+\.)", n))}


def _change(tensor: Tensor, wanted: Tensor, net: Network) -> tuple[Tensor, str]:
    """A tensor of the file as the network has it, and what was done, if anything, beside a change of shape."""
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

    One channel gets the sum over the file's channels (a gray picture then gives what its copy in every channel gave);
    other numbers, also those of stacked frames, get their mean, repeated. Motion channels begin at zero, so that the
    network computes what the file did until training moves them.
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
    """Load a file's weights into a network, and say what was loaded, adapted and left out.

    Reads our own network files and the kinds in the table above, as PyTorch files or safetensors. A file is read as the
    kind under which most of its tensors fit the network. Only three things are changed to fit: 2-D convolutions of a
    3-D network are inflated,

    .. math:: w'_{oityx} = w_{oiyx} / k_t, \\qquad t = 1 \\ldots k_t,

    so that a clip that stands still gives what its picture gave; the first convolution takes another number of
    channels (one gets the sum of the file's, other numbers their mean, motion channels start at zero); and a classifier
    of other classes is left out. ``adapted`` and ``left`` of the result say each.

    Args:
        net: the network; left as it was if an error is raised.
        path: the file.

    Raises:
        ModaliftError: a missing or damaged file, one that could run code, an unknown layout, a layer of another shape,
            or a trunk that is deeper or shallower than this one, or quite another.

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
    readings = [_read_as(layout, state, net) for layout in FORMATS if layout.signed(state)]
    if not readings:
        raise ModaliftError(f"{path}: unknown layout of keys ({', '.join(list(held)[:3])}, ...) - known: "
                            f"{', '.join(f.name for f in FORMATS)}")
    best = max(readings, key=lambda r: (r.found, -len(r.wrong)))
    _refuse_another(net, best, state, path)
    own = net.state_dict()
    result = Loaded(best.layout.name, left={whole[k]: why for k, why in best.left.items()}, note=best.layout.note)
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


#: What torchvision has: a weight that tells, its kernel, what all names look like, and how ours become them.
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
    """The weights of a network under torchvision's names, so that other programs can read them.

    ResNets over frames (``tsm``, ``tsn``) have a counterpart there, ``vgg16``, and ``r3d`` as ``res3d18``.

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
