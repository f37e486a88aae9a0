"""Detectors leave: one file that runs elsewhere, checked against the detector before it gets its name."""
