"""All detectors by name."""

from pyrafuse.base.registry import Registry
from pyrafuse.models.detector import Detector

MODELS: Registry[Detector] = Registry("model", "pyrafuse.models")
