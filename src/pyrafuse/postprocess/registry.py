"""All decoders by name, what selects from their candidates, and what proposes regions."""

from typing import Any

from pyrafuse.base.registry import Registry

DECODERS: Registry[Any] = Registry("decoder", "pyrafuse.postprocess", functions=True)
SELECTIONS: Registry[Any] = Registry("selection", "pyrafuse.postprocess")
PROPOSALS: Registry[Any] = Registry("proposals", "pyrafuse.postprocess")
