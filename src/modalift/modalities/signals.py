"""Signals, which are no images: joints, and inertial sensors."""

from __future__ import annotations

from modalift.modalities.modality import MODALITIES, Modality

MODALITIES.add("pose", Modality("pose", "signal", 0, "m", -20.0, 20.0, "float32", mirror="never"))
MODALITIES.add("imu", Modality("imu", "signal", 0, "g and °/s", -4000.0, 4000.0, "float32", mirror="never"))
