"""What the operators of a graph read of their merge: whatever is not read does not change what the graph computes.

Operators that a user has registered are taken to read everything and to have parameters of their own.
"""

FREE_FUSIONS = frozenset({"sum", "concat", "global_attention"})
"""Fusions without parameters."""

SYMMETRIC_FUSIONS = frozenset({"sum", "fast_normalized", "softmax", "spatial_softmax"})
"""Fusions of which the order of the inputs does not matter."""

PLACELESS_FUSIONS = FREE_FUSIONS | {"fast_normalized", "softmax"}
"""Fusions that read neither ``weight_channels`` nor the activation of ``project``."""

FREE_UPS = frozenset({"nearest", "bilinear"})
"""Ways to a finer level without parameters."""

FREE_DOWNS = frozenset({"max_pool", "max_pool_same", "max_pool_floor", "max_pool_to_size", "bilinear", "subsample"})
"""Ways to a coarser level without parameters, which do not read ``project``."""
