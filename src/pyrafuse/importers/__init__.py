"""Checkpoints of other projects, read as detectors: a file an origin."""
