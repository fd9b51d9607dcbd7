"""Weights from files: our own, and those that people already have."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.networks.recognizer import Recognizer
from modalift.networks.resnet import ResNet


@dataclass(frozen=True)
class Format:
    """How the keys of one kind of file become ours.

    Attributes:
        name: what the file is called in messages.
        sign: a regular expression that some key of such a file matches; the first format whose sign is found is taken.
        rules: (regular expression, replacement), applied in order to every key.
    """

    name: str
    sign: str
    rules: tuple[tuple[str, str], ...]


_TRUNK = (r"^(conv1|bn1|layer\d)\.", r"backbone.\1.")

#: The layouts of keys that are known, most particular first. Adding one is one entry.
FORMATS = (
    Format("mmaction2 TSM/TSN", r"^cls_head\.fc_cls\.|^backbone\.conv1\.conv\.", (
        (r"\.conv\.net\.", ".conv."),
        (r"\.conv(\d)\.conv\.", r".conv\1."),
        (r"\.conv(\d)\.bn\.", r".bn\1."),
        (r"\.downsample\.conv\.", ".downsample.0."),
        (r"\.downsample\.bn\.", ".downsample.1."),
        (r"^cls_head\.fc_cls\.", "head.fc."),
    )),
    Format("TSM/TSN", r"^base_model\.", (
        (r"^base_model\.", ""),
        (r"\.conv1\.net\.", ".conv1."),
        (r"^new_fc\.", "head.fc."),
        _TRUNK,
    )),
    Format("modalift", r"^prepare\.|^backbone\.", ()),
    Format("torchvision ResNet", r"^layer1\.0\.conv1\.weight$", (
        (r"^fc\.", "head.fc."),
        _TRUNK,
    )),
)


@dataclass(frozen=True)
class Loaded:
    """What came of loading a file, by the network's names.

    Attributes:
        format: the kind of file.
        loaded: names taken as they were.
        adapted: name -> what was changed to fit.
        left: name of the file -> why it was left out.
        missing: names that the file does not have; they keep what they had.
    """

    format: str
    loaded: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.format}: {len(self.loaded)} loaded, {len(self.adapted)} adapted, {len(self.left)} left out, "
                 f"{len(self.missing)} missing"]
        lines += [f"  adapted {k}: {v}" for k, v in self.adapted.items()]
        lines += [f"  left out {k}: {v}" for k, v in self.left.items()]
        lines += [f"  missing {k}" for k in self.missing]
        return "\n".join(lines)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a ``.safetensors`` or PyTorch file; never runs code that the file may hold.

    Raises:
        ModaliftError: no such file, a damaged one, one with code in it, or one without named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModaliftError(f"{path}: no such file of weights")
    if path.suffix == ".safetensors":
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
    except pickle.UnpicklingError:
        raise ModaliftError(f"{path}: holds more than tensors, so opening it could run code - save its "
                            "state_dict() alone, or as .safetensors") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise ModaliftError(f"{path}: not a readable PyTorch file ({_first(error)}) - fetch it again") from None
    for wrapping in ("state_dict", "model"):
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


def translate(state: Mapping[str, Tensor], path: str | Path = "the file") -> tuple[Format, dict[str, str]]:
    """The format of a file's keys, and key of the file -> our name."""
    bare = {k: re.sub(r"^(module\.)+", "", k) for k in state}
    for layout in FORMATS:
        if any(re.search(layout.sign, k) for k in bare.values()):
            names = {}
            for key, name in bare.items():
                for pattern, replacement in layout.rules:
                    name = re.sub(pattern, replacement, name)
                names[key] = name
            return layout, names
    shown = ", ".join(list(state)[:3])
    raise ModaliftError(f"{path}: unknown layout of keys ({shown}, ...) - known: {', '.join(f.name for f in FORMATS)}")


def _adapt_input(weight: Tensor, net: Recognizer, channels: int) -> tuple[Tensor, str]:
    """The first convolution's weights for another number of channels, and what was done.

    One channel gets the sum over the file's channels (a grey picture then gives what its copy in every channel gave);
    other numbers get their mean, repeated. Motion channels begin at zero, so that the network computes what the file
    did until training moves them.
    """
    plain = net.channels if channels > net.channels else channels
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
    return out.contiguous(), done


def _fit(state: Mapping[str, Tensor], names: Mapping[str, str], net: Recognizer, path: str | Path,
         result: Loaded) -> dict[str, Tensor]:
    """The tensors that fit the network, by its names; fills ``result``."""
    own = net.state_dict()
    first = next((n + ".weight" for n, m in net.backbone.named_modules(prefix="backbone")
                  if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d))), "")
    fitting: dict[str, Tensor] = {}
    for key, name in names.items():
        tensor = state[key]
        if name not in own:
            result.left[key] = "the network has no such layer"
        elif tensor.shape == own[name].shape:
            fitting[name] = tensor
            result.loaded.append(name)
        elif name == first and tensor.shape[:1] + tensor.shape[2:] == own[name].shape[:1] + own[name].shape[2:]:
            fitting[name], result.adapted[name] = _adapt_input(tensor, net, own[name].shape[1])
        elif name.startswith(("head.", "prepare.")):
            what = "other classes or head" if name.startswith("head.") else "other channels"
            result.left[key] = f"{what}: {tuple(tensor.shape)} in the file, {tuple(own[name].shape)} here"
        else:
            raise ModaliftError(f"{path}: '{key}' is {tuple(tensor.shape)} but {tuple(own[name].shape)} in the network "
                                "- these are weights of another backbone or width")
    result.missing.extend(n for n in own if n not in fitting and not n.endswith("num_batches_tracked"))
    return fitting


def _refuse_another(net: Recognizer, fitting: Mapping[str, Tensor], names: Mapping[str, str], what: str) -> None:
    """Raise where names and shapes agree by chance: the file is of a deeper, a shallower or quite another trunk."""
    advice = "these are weights of another network"
    trunk = [n for n in net.state_dict() if n.startswith("backbone.") and not n.endswith("num_batches_tracked")]
    found = sum(n in fitting for n in trunk)
    if 2 * found < len(trunk):
        raise ModaliftError(f"{what} with {found} of the {len(trunk)} tensors of this network's trunk - {advice}")
    given = [n for n in names.values() if n.startswith("backbone.")]
    homeless = [n for n in given if n not in fitting]
    if 10 * len(homeless) > len(given):
        raise ModaliftError(f"{what} with {len(homeless)} tensors that this network lacks, such as "
                            f"'{homeless[0]}' - {advice}")
    blocks = {".".join(n.split(".")[:3]) for n in trunk if n.count(".") > 3}
    for block in sorted(blocks - {".".join(n.split(".")[:3]) for n in fitting}):
        raise ModaliftError(f"{what} without '{block}' - {advice}")


def load_weights(net: Recognizer, path: str | Path) -> Loaded:
    """Load a file's weights into a network, and say what was loaded, adapted and left out.

    Reads our own network files, and those of :data:`FORMATS`, as PyTorch files or safetensors. Only two things are
    changed to fit: the first convolution (see the result's ``adapted``; one channel gets the sum of the file's, other
    numbers their mean, motion channels start at zero), and a classifier of other classes, which is left out.

    Args:
        net: the network; left as it was if an error is raised.
        path: the file.

    Raises:
        ModaliftError: a missing or damaged file, one that could run code, an unknown layout, a layer of another shape,
            or a trunk that is deeper or shallower than this one, or quite another.

    Example:
        >>> import tempfile, torch, modalift.networks as networks
        >>> net = networks.build("tsm", backbone="resnet18", classes=5, channels=1, width=0.125)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(net.state_dict(), f"{folder}/net.pt")
        ...     print(load_weights(net, f"{folder}/net.pt"))
        modalift: 124 loaded, 0 adapted, 0 left out, 0 missing
    """
    state = read_state(path)
    layout, names = translate(state, path)
    result = Loaded(layout.name)
    fitting = _fit(state, names, net, path, result)
    _refuse_another(net, fitting, names, f"{path}: a {layout.name} file")
    net.load_state_dict(fitting, strict=False)
    return result


def to_torchvision(net: Recognizer) -> dict[str, Tensor]:
    """The weights of a ``tsm`` under the names of torchvision's ResNets, so that other programs can read them.

    Raises:
        ModaliftError: a network whose trunk or head has no counterpart there.
    """
    state = net.state_dict()
    if not isinstance(net.backbone, ResNet) or "head.fc.weight" not in state or net.backbone.maxpool is None:
        raise ModaliftError(f"network '{net.config.get('name', '?')}' has no torchvision counterpart - only tsm on "
                            "resnet18, resnet34 and resnet50 has")
    renamed = {re.sub(r"^backbone\.", "", re.sub(r"^head\.", "", k)): v for k, v in state.items()}
    return {k: v.clone() for k, v in renamed.items() if not k.startswith("prepare.")}
