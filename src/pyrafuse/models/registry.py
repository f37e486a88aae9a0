"""All detectors by name, as descriptions: free of torch."""

from pyrafuse.base.registry import Registry
from pyrafuse.base.spec import DetectorSpec

MODELS: Registry[DetectorSpec] = Registry("model", "pyrafuse.models.families")
