"""All criteria by name, and the weights of levels that they take."""

from typing import Any

from torch import nn

from pyrafuse.base.registry import Registry

CRITERIA: Registry[nn.Module] = Registry("criterion", "pyrafuse.criteria")
LEVEL_WEIGHTS: Registry[Any] = Registry("level weights", "pyrafuse.criteria")
