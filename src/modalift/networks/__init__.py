"""Who learns: networks of one sensor, one family per file."""

from modalift.networks.cost import Cost, cost
from modalift.networks.prepare import Prepare
from modalift.networks.recognizer import Backbone, Network, Observation, Recognizer, Stage
from modalift.networks.registry import (
    COMMON_OPTIONS,
    FAMILIES,
    NETWORKS,
    FamilyInfo,
    build,
    check_options,
    has_classes,
    network,
    options_of,
)
from modalift.networks.spec import NetworkSpec
from modalift.networks.translator import Translator
from modalift.networks.weights import load_weights
from modalift.registry import discover

__all__ = ["COMMON_OPTIONS", "FAMILIES", "NETWORKS", "Backbone", "Cost", "FamilyInfo", "Network", "NetworkSpec", "Observation",
           "Prepare", "Recognizer", "Stage", "Translator", "build", "check_options", "cost", "has_classes", "load_weights",
           "network", "options_of"]

discover(__name__)  # one file adds a family
