"""All heads by name: what predicts on a pyramid, what proposes regions on it, and what looks into these."""

from torch import nn

from pyrafuse.base.registry import Registry

HEADS: Registry[nn.Module] = Registry("head", "pyrafuse.heads")
PROPOSAL_HEADS: Registry[nn.Module] = Registry("proposal head", "pyrafuse.heads")
ROI_HEADS: Registry[nn.Module] = Registry("RoI head", "pyrafuse.heads")
