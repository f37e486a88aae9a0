"""Whole detectors: start reading at `yolov3`."""
