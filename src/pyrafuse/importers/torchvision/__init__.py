"""torchvision: seven detectors, told by keys, and by the name what their frozen norms add."""
