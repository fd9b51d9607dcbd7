"""Modalities (the meaning of sensor readings), tables of clips, and batches."""

from modalift.modalities.batch import Batch
from modalift.modalities.modality import MODALITIES, Modality, modality
from modalift.modalities.table import SPLITS, Row, Table, Track, build_table, is_known
from modalift.registry import discover

__all__ = ["MODALITIES", "SPLITS", "Batch", "Modality", "Row", "Table", "Track", "build_table", "is_known", "modality"]

discover(__name__)  # one file adds a modality
