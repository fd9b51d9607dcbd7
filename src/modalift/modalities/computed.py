"""Modalities that are computed from another sensor's recordings (see :mod:`modalift.derive`)."""

from __future__ import annotations

from modalift.modalities.cameras import gray_levels
from modalift.modalities.modality import MODALITIES, Modality

gray_levels("pseudo_ir", derived_from="rgb")
MODALITIES.add("flow", Modality("flow", "video", 2, "pixel/frame", -64.0, 64.0, "float32", std=(4.0,), mirror="negate_x",
                                derived_from="rgb"))
MODALITIES.add("pose_map", Modality("pose_map", "video", 0, "gray level", 0.0, 255.0, "uint8", mean=(8.0,), std=(32.0,),
                                    mirror="never", derived_from="pose"))
