"""A trained model and its one file: one kind, one file."""

from modalift.models.container import is_bundle, is_whole, read_weights_hash
from modalift.models.model import KINDS, Model, SensorModel, kind_of, load, model_kind, model_of, read_document
from modalift.models.predictions import Predictions
from modalift.models.result import Column, Evaluation
from modalift.registry import discover

__all__ = ["KINDS", "Column", "Evaluation", "Model", "Predictions", "SensorModel", "is_bundle", "is_whole", "kind_of", "load",
           "model_kind", "model_of", "read_document", "read_weights_hash"]

discover(__name__)  # one file adds a kind
