"""What cameras record: color, infrared and depth."""

from __future__ import annotations

from modalift.modalities.modality import MODALITIES, Modality

# Mean and standard deviation of ImageNet in gray levels, which pretrained RGB weights expect.
_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_STD = (58.395, 57.12, 57.375)

MODALITIES.add("rgb", Modality("rgb", "video", 3, "gray level", 0.0, 255.0, "uint8", mean=_IMAGENET_MEAN, std=_IMAGENET_STD,
                               photometric=("brightness", "contrast", "saturation", "noise")))


def gray_levels(name: str, derived_from: str | None = None) -> Modality:
    """Registers a modality of 8-bit images of one channel: gray, near-infrared, thermal."""
    return MODALITIES.add(name, Modality(name, "video", 1, "gray level", 0.0, 255.0, "uint8", mean=(100.0,), std=(50.0,),
                                         photometric=("brightness", "contrast", "noise"), derived_from=derived_from))


for _name in ("gray", "nir", "thermal"):
    gray_levels(_name)
MODALITIES.add("depth", Modality("depth", "video", 1, "mm", 1.0, 10000.0, "uint16", invalid=0.0, mean=(2500.0,), std=(800.0,),
                                 photometric=("range",)))
# Depth as 8-bit gray images, as in public gesture datasets: not in millimeters, and 0 is not an invalid value.
MODALITIES.add("depth_gray", Modality("depth_gray", "video", 1, "gray level", 0.0, 255.0, "uint8", mean=(128.0,), std=(64.0,)))
