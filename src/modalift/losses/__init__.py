"""What is compared: pure functions of tensors, one equation each."""

from modalift.losses.attention_transfer import attention, attention_transfer
from modalift.losses.channel_correlation import channel_correlation, selective_weight
from modalift.losses.contrastive_representation import contrastive_representation
from modalift.losses.correlation_congruence import congruence_kernel, correlation_congruence
from modalift.losses.decoupled import decoupled, decoupled_parts
from modalift.losses.depth_reconstruction import depth_reconstruction
from modalift.losses.feature_distance import feature_distance
from modalift.losses.graph_attention import batch_graph, cross_attention, cross_graphs, fused_difference, graph_attention
from modalift.losses.relational import relational_angle, relational_distance
from modalift.losses.semantic_alignment import correlation, focal_weight, semantic_alignment
from modalift.losses.similarity_preserving import similarity_preserving
from modalift.losses.soft_target import soft_target
from modalift.losses.translation import adversarial, cycle_consistency, identity_mapping
from modalift.losses.triplet import batch_hard_triplet, relation_consistency

__all__ = [
    "adversarial", "attention", "attention_transfer", "batch_graph", "batch_hard_triplet", "channel_correlation",
    "congruence_kernel", "contrastive_representation", "correlation", "correlation_congruence", "cross_attention",
    "cross_graphs", "cycle_consistency", "decoupled", "decoupled_parts", "depth_reconstruction", "feature_distance",
    "focal_weight", "fused_difference", "graph_attention", "identity_mapping", "relation_consistency", "relational_angle",
    "relational_distance", "selective_weight", "semantic_alignment", "similarity_preserving", "soft_target",
]
