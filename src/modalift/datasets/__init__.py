"""Datasets, one per file: functions from a folder to a :class:`~modalift.modalities.Table`."""

from modalift.datasets.registry import DATASETS, check_options, dataset, guess, open, options_of
from modalift.registry import discover

__all__ = ["DATASETS", "check_options", "dataset", "guess", "open", "options_of"]

discover(__name__)  # one file adds a dataset
