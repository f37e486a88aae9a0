"""All necks by name, and chains of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pyrafuse.core.errors import PyrafuseError
from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.core.registry import Registry

NECKS: Registry[Neck] = Registry("neck", "pyrafuse.necks")


class NeckChain(Neck):
    """Several necks in a row, each reading the pyramid of the one before."""

    def __init__(self, necks: Sequence[Neck]) -> None:
        super().__init__()
        self.necks = nn.ModuleList(necks)
        self.features = necks[-1].features

    def forward(self, pyramid: Pyramid) -> Pyramid:
        for neck in self.necks:
            pyramid = neck(pyramid)
        return pyramid


def create_neck(
    names: str | Sequence[str], inputs: PyramidSpec, options: Mapping[str, Mapping[str, Any]] | None = None
) -> Neck:
    """Build the neck, or the chain of necks, called ``names`` on a pyramid of ``inputs``.

    Args:
        names: One registered name or several, first reads first.
        inputs: Channels and strides of what comes in.
        options: Keyword arguments of each neck's constructor, by its name.

    Raises:
        UnknownNameError: If there is no such neck.
        PyrafuseError: If ``options`` speak of a neck that is not among ``names``.
    """
    chain = [names] if isinstance(names, str) else list(names)
    options = options or {}
    if strangers := sorted(set(options) - set(chain)):
        raise PyrafuseError(f"options are given for {', '.join(strangers)}, but the necks are {', '.join(chain)}")
    if not chain:
        raise PyrafuseError(f"a neck is needed; choose from {', '.join(NECKS.names())}")
    necks: list[Neck] = []
    for name in chain:
        necks.append(NECKS.create(name, necks[-1].features if necks else inputs, **options.get(name, {})))
    return necks[0] if len(necks) == 1 else NeckChain(necks)
