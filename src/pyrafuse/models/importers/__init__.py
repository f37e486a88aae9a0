"""Checkpoints of other code bases -> ours, safely and exactly."""
