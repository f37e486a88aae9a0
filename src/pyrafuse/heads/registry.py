"""All heads by name."""

from torch import nn

from pyrafuse.core.registry import Registry

HEADS: Registry[nn.Module] = Registry("head", "pyrafuse.heads")
