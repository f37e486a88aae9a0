"""Names of the engines."""

from pyrafuse.base.registry import Registry
from pyrafuse.search.running import Engine

ENGINES: Registry[Engine] = Registry("engine", "pyrafuse.search.engines")
