"""Formats of weights files: how each names its tensors, and the rules that translate them to our names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

Rules = tuple[tuple[str, str], ...]


def renamed(name: str, rules: Rules) -> str:
    """A name after applying rules, in order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


@dataclass(frozen=True)
class Format:
    """How the tensor names of one kind of file become ours.

    Attributes:
        name: the format's name in messages.
        marker: a regular expression that some name in such a file matches.
        rules: (regular expression, replacement), applied in order to every name.
        families: networks that such files are for, in tables; loading only checks whether names and shapes fit.
        dims: number of dimensions of the tensor that matches the marker, if that distinguishes two formats; 0 for any.
        part: if one file holds several networks, a regular expression whose group is the sensor that a name belongs to;
            its match is removed before the rules.
        clip: the clips that its fully connected layers were made for, if they depend on them.
        note: what to know after loading such a file.
    """

    name: str
    marker: str
    rules: Rules = ()
    families: tuple[str, ...] = ()
    dims: int = 0
    part: str = ""
    clip: str = ""
    note: str = ""

    def matches(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a file with these tensors, wrappers' prefixes removed, may be of this format."""
        return any(re.search(self.marker, k) and self.dims in (0, v.dim()) for k, v in state.items())

    def sensors(self, names: Iterable[str]) -> list[str]:
        """The sensors whose networks the file holds, if its format can hold several."""
        found = (re.match(self.part, n) for n in names) if self.part else ()
        return sorted({m[1] for m in found if m})

    def translate(self, name: str, sensor: str = "") -> str | None:
        """Our name for a name in the file; None for a name of another sensor's network."""
        if self.part and (m := re.match(self.part, name)):
            if m[1] != sensor:
                return None
            name = name[m.end():]
        return renamed(name, self.rules)


#: Prefixes that wrappers add to names: DataParallel and torch.compile.
WRAPPERS = r"^(module\.|_orig_mod\.)+"

#: Keys under which checkpoints hold their named tensors (SlowFast: ``model_state``).
WRAPPINGS = ("state_dict", "model_state", "model")

_TRUNK: Rules = ((r"^(conv1|bn1|layer\d)\.", r"backbone.\1."),)
_TSN: Rules = (
    (r"^base_model\.", ""),
    (r"\.conv1\.net\.", ".conv1."),
    (r"\.conv1\.action_", ".action.action_"),
    (r"^(new_fc|fc)\.", "head.fc."),
    *_TRUNK,
)
_RESNET: Rules = ((r"^fc\.", "head.fc."), *_TRUNK)
_MMACTION: Rules = (
    (r"\.conv\.net\.", ".conv."),
    (r"\.conv(\d)\.conv\.", r".conv\1."),
    (r"\.conv(\d)\.bn\.", r".bn\1."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
    (r"^cls_head\.fc_cls\.", "head.fc."),
)
_INCEPTION: Rules = ((r"^(Conv3d_|Mixed_)", r"backbone.\1"), (r"^logits\.(conv3d\.)?", "head.fc."))
_HASSONY: Rules = (
    (r"^conv3d_0c_1x1\.", "logits."),
    (r"^conv3d_", "Conv3d_"),
    (r"^mixed_", "Mixed_"),
    (r"\.branch_0\.", ".b0."),
    (r"\.branch_(\d)\.0\.", r".b\1a."),
    (r"\.branch_(\d)\.1\.", r".b\1b."),
    (r"\.batch3d\.", ".bn."),
    *_INCEPTION,
)
_C3D: Rules = ((r"^(conv\d[ab]?)\.", r"backbone.\1."), (r"^(fc[67])\.", r"head.\1."), (r"^fc8\.", "head.fc."))
_C3D_LAYERS = {"features.0": "conv1", "features.3": "conv2", "features.6": "conv3a", "features.8": "conv3b",
               "features.11": "conv4a", "features.13": "conv4b", "features.16": "conv5a", "features.18": "conv5b",
               "classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}
_C3D_CLIP = "16 frames of 112 x 112"
_SHIFTED = "trained with temporal shift, which the weights do not show"
_RESNETS = ("tsm", "tsn", "two_stream", "action_net", "cnn_lstm", "r3d", "i3d_resnet50")  # the last two inflate 2D weights

#: The known formats. A file is read in the format in which most of its tensors fit the network, the first of several; the
#: most specific ones come first.
FORMATS = (
    Format("ACTION-Net", r"\.conv1\.action_shift\.", _TSN, ("action_net",)),
    Format("TEA", r"^(base_model\.)?layer1\.0\.me\.conv1\.weight$", _TSN, ("tea",)),
    Format("TSM", r"^base_model\.layer1\.0\.conv1\.net\.weight$", _TSN, _RESNETS, note=_SHIFTED),
    Format("TSN", r"^base_model\.layer1\.0\.conv1\.weight$", _TSN, _RESNETS),
    Format("mmaction2 TSM", r"^backbone\.layer1\.0\.conv1\.conv\.net\.weight$", _MMACTION, _RESNETS,
           note=_SHIFTED),
    Format("mmaction2 TSN", r"^backbone\.layer1\.0\.conv1\.conv\.weight$", _MMACTION, _RESNETS, dims=4),
    Format("mmaction2 3-D ResNet (I3D, SlowOnly)", r"^backbone\.layer1\.0\.conv1\.conv\.weight$", _MMACTION,
           ("i3d_resnet50",), dims=5, note="mmaction2 trains its I3D with strides='mmaction2'"),
    Format("mmaction2 C3D", r"^backbone\.conv1a\.conv\.weight$", (
        (r"^backbone\.conv([12])a\.", r"backbone.conv\1."),
        (r"\.(conv\d[ab]?)\.conv\.", r".\1."),
        (r"^backbone\.(fc[67])\.", r"head.\1."),
        (r"^cls_head\.fc_cls\.", "head.fc."),
    ), ("c3d",), clip=_C3D_CLIP),
    Format("SlowFast 3-D ResNet", r"^s1\.pathway0_stem\.conv\.weight$", (
        (r"^s1\.pathway0_stem\.conv\.", "backbone.conv1."),
        (r"^s1\.pathway0_stem\.bn\.", "backbone.bn1."),
        *((rf"^s{i + 1}\.pathway0_res(\d+)\.", rf"backbone.layer{i}.\1.") for i in range(1, 5)),
        (r"\.branch1\.", ".downsample.0."),
        (r"\.branch1_bn\.", ".downsample.1."),
        *((rf"\.branch2\.{letter}\.", f".conv{i}.") for i, letter in enumerate("abc", 1)),
        *((rf"\.branch2\.{letter}_bn\.", f".bn{i}.") for i, letter in enumerate("abc", 1)),
        (r"^head\.projection\.", "head.fc."),
    ), ("i3d_resnet50",), note="SlowFast trains its I3D with strides='slowfast'"),
    Format("pytorch-i3d", r"^Conv3d_1a_7x7\.conv3d\.weight$", _INCEPTION, ("i3d",)),
    Format("hassony2 I3D", r"^conv3d_1a_7x7\.conv3d\.weight$", _HASSONY, ("i3d",)),
    Format("mmpose MTUT I3D", r"^backbone\.\w+\.conv3d_1a_7x7\.conv3d\.weight$",
           ((r"^(weight|bias)$", r"logits.\1"), *_HASSONY), ("i3d",),
           part=r"^(?:backbone|cls_head\.output_conv)\.(\w+)\.(?=conv3d_|mixed_|weight$|bias$)",
           note="made for padding='symmetric', and those of 112 pixels for window=(1, 2, 2)"),
    Format("C3D", r"^conv3a\.weight$", _C3D, ("c3d",), clip=_C3D_CLIP),
    Format("C3D (Caffe layers)", r"^features\.18\.weight$", (
        *((rf"^{re.escape(theirs)}\.", f"{ours}.") for theirs, ours in _C3D_LAYERS.items()), *_C3D,
    ), ("c3d",), dims=5, clip=_C3D_CLIP),
    Format("GesRec C3D", r"^group1\.0\.weight$", (
        (r"^group", "backbone.group"),
        (r"^(fc[12])\.", r"head.\1."),
        (r"^fc\.0\.", "head.fc."),
    ), ("c3d",), clip="32 frames of 112 x 112 where it has 16384 inputs, of 16 where it has 8192"),
    Format("modalift", r"^prepare\.|^backbone\."),
    Format("torchvision VGG", r"^features\.28\.weight$", (
        (r"^features\.", "backbone.layers."),
        (r"^classifier\.6\.", "head.fc."),
        (r"^(classifier\.[03])\.", r"head.\1."),
    ), ("vgg16",), dims=4),
    Format("torchvision video ResNet", r"^stem\.0\.weight$", (
        (r"^stem\.0\.", "conv1."),
        (r"^stem\.1\.", "bn1."),
        (r"\.conv(\d)\.0\.", r".conv\1."),
        (r"\.conv(\d)\.1\.", r".bn\1."),
        *_RESNET,
    ), ("r3d",), dims=5),
    Format("Res2Net", r"^layer1\.0\.convs\.0\.weight$", _RESNET, ("tea",), dims=4),
    Format("3-D ResNet (kenshohara, okankop)", r"^layer1\.0\.conv1\.weight$", _RESNET, ("r3d", "resnext101_3d"), dims=5),
    Format("torchvision ResNet", r"^layer1\.0\.conv1\.weight$", _RESNET, _RESNETS, dims=4),
)


def formats_for(family: str) -> list[str]:
    """Names of the formats that a family of networks loads, our own first.

    Example:
        >>> formats_for("vgg16")
        ['modalift', 'torchvision VGG']
    """
    return ["modalift", *(f.name for f in FORMATS if family in f.families)]
