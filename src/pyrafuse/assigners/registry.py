"""All assigners by name."""

from typing import Any

from pyrafuse.base.registry import Registry

ASSIGNERS: Registry[Any] = Registry("assigner", "pyrafuse.assigners")
