"""All heads by name."""

from torch import nn

from pyrafuse.base.registry import Registry

HEADS: Registry[nn.Module] = Registry("head", "pyrafuse.heads")
