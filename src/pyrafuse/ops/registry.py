"""All box coders by name."""

from pyrafuse.base.registry import Registry
from pyrafuse.ops.coders import BoxCoder, DeltaCoder, DistanceCoder

CODERS: Registry[BoxCoder] = Registry("box coder", "pyrafuse.ops")
CODERS.add("delta", DeltaCoder)
CODERS.add("distance", DistanceCoder)
