"""Exported detectors, run without PyTorch: `load` gives an `ExportedDetector` of a file."""

from pyrafuse.runtime.detector import ExportedDetector
from pyrafuse.runtime.loading import load

__all__ = ["ExportedDetector", "load"]
