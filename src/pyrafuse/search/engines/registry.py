"""Names of the engines."""

from contextlib import AbstractContextManager

from pyrafuse.base.registry import Registry
from pyrafuse.search.running import Engine

ENGINES: Registry[AbstractContextManager[Engine]] = Registry("engine", "pyrafuse.search.engines")
"""Built of a `Proxy`, a function that is told sentences, and what ``--import`` named; used within its context. Keyword
arguments are options of its own."""
