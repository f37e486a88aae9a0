"""All samplers by name, and the ways in which they draw."""

from typing import Any

from pyrafuse.base.registry import Registry

SAMPLERS: Registry[Any] = Registry("sampler", "pyrafuse.samplers", functions=True)
DRAWS: Registry[Any] = Registry("draw", "pyrafuse.samplers", functions=True)
