"""All heads by name: dense heads, region proposal networks, and RoI heads."""

from torch import nn

from pyrafuse.base.registry import Registry

HEADS: Registry[nn.Module] = Registry("head", "pyrafuse.heads")
PROPOSAL_HEADS: Registry[nn.Module] = Registry("proposal head", "pyrafuse.heads")
ROI_HEADS: Registry[nn.Module] = Registry("RoI head", "pyrafuse.heads")
