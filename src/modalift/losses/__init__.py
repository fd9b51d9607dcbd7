"""What is compared: pure functions of tensors, one equation each."""

from modalift.losses.semantic_alignment import correlation, focal_weight, semantic_alignment
from modalift.losses.soft_target import soft_target

__all__ = ["correlation", "focal_weight", "semantic_alignment", "soft_target"]
