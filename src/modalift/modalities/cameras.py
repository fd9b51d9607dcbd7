"""What cameras record: color, infrared and depth."""

from __future__ import annotations

from modalift.modalities.modality import MODALITIES, Modality

# Mean and deviation of ImageNet's photographs, in gray levels: what pretrained RGB weights expect.
_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_STD = (58.395, 57.12, 57.375)

MODALITIES.add("rgb", Modality("rgb", "video", 3, "gray level", 0.0, 255.0, "uint8", mean=_IMAGENET_MEAN, std=_IMAGENET_STD,
                               photometric=("brightness", "contrast", "saturation", "noise")))


def gray_levels(name: str, derived_from: str | None = None) -> Modality:
    """Registers pictures of one channel of 8 bits: gray ones, near infrared, thermal."""
    return MODALITIES.add(name, Modality(name, "video", 1, "gray level", 0.0, 255.0, "uint8", mean=(100.0,), std=(50.0,),
                                         photometric=("brightness", "contrast", "noise"), derived_from=derived_from))


for _name in ("gray", "nir", "thermal"):
    gray_levels(_name)
MODALITIES.add("depth", Modality("depth", "video", 1, "mm", 1.0, 10000.0, "uint16", invalid=0.0, mean=(2500.0,), std=(800.0,),
                                 photometric=("range",)))
# Depth as a gray picture of 8 bits, as public gesture sets ship it: no millimeters, and 0 is a gray like any other.
MODALITIES.add("depth_gray", Modality("depth_gray", "video", 1, "gray level", 0.0, 255.0, "uint8", mean=(128.0,), std=(64.0,)))
