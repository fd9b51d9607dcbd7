"""The same small models as in the tests of models."""

from models_fixtures import framing, whole

__all__ = ["framing", "whole"]
