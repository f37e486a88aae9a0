"""The words every other room speaks: pyramids, targets, predictions, detections, registries, errors."""
