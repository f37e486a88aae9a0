"""All recipes by name, and where each comes from; free of torch, so that the command line starts fast."""

from collections.abc import Callable
from dataclasses import dataclass

from pyrafuse.base.registry import Registry
from pyrafuse.training.settings import Recipe

RECIPES: Registry[Recipe] = Registry("recipe", "pyrafuse.recipes")
"""`RECIPES.create("small")` is a `Recipe`."""


@dataclass(frozen=True)
class Source:
    """Where a recipe comes from.

    Attributes:
        paper: Its arXiv number; empty for a recipe of our own.
        published: What the authors report for it; not what was measured here.
        hardware: What they trained it on.
        arguments: What its command needs besides the name.
    """

    paper: str = ""
    published: str = ""
    hardware: str = ""
    arguments: str = ""


SOURCES: dict[str, Source] = {}
"""Name of a recipe -> its source."""


def recipe(
    *, paper: str = "", published: str = "", hardware: str = "", arguments: str = ""
) -> Callable[[Callable[[], Recipe]], Callable[[], Recipe]]:
    """Register the decorated function under its own name; its docstring is what `pyrafuse recipes` shows."""

    def decorate(function: Callable[[], Recipe]) -> Callable[[], Recipe]:
        RECIPES.add(function.__name__, function)
        SOURCES[function.__name__] = Source(paper, published, hardware, arguments)
        return function

    return decorate
