"""Datasets, one per file: functions from a folder to a :class:`~modalift.modalities.Table`."""

from modalift.datasets.registry import (
    DATASETS,
    check_options,
    compare_with_release,
    dataset,
    guess,
    open,
    options_of,
    release_of,
)
from modalift.datasets.release import Comparison, Release
from modalift.registry import discover

__all__ = ["DATASETS", "Comparison", "Release", "check_options", "compare_with_release", "dataset", "guess", "open",
           "options_of", "release_of"]

discover(__name__)  # one file adds a dataset
