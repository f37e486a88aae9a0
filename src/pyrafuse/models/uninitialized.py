"""How much is made while a model is built: no more than a limit, and no random weights that a checkpoint replaces."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

MOST_VALUES = 2**30
"""Largest number of weights and buffers of a detector; timm's largest pyramid has 9.4 * 10^8."""

MOST_TENSORS = 20_000
"""Largest number of tensors that are made for a detector; EfficientDet-D7x needs some 5,000."""

SIZED = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})


class Bounded(TorchFunctionMode):
    """Within ``with Bounded():`` a description of absurd size fails before memory is taken for it.

    What is too much is a `MemoryError`, which the part's registry tells under the part's name.

    Args:
        most: Largest number of values that are made.
    """

    def __init__(self, most: int = MOST_VALUES) -> None:
        super().__init__()
        self._most = most
        self._values = self._tensors = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, and count first what it makes of nothing."""
        kwargs = kwargs or {}
        if func in SIZED:
            size = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
            self._values += math.prod(size)
            self._tensors += 1
            if self._values > self._most or self._tensors > MOST_TENSORS:
                raise MemoryError(
                    f"the detector would have more than {self._most:,} values or {MOST_TENSORS:,} tensors; lower the "
                    "channels, classes or repeats"
                )
        return func(*args, **kwargs)


class Uninitialized(TorchFunctionMode):
    """Within ``with Uninitialized():`` random fills do nothing: what they would fill keeps the memory's content.

    Buffers and constants are what they always are, unlike on the ``meta`` device. Every parameter must be loaded
    afterwards.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, unless it is one of `torch.nn.init`'s random fills or a tensor's own."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith(("normal_", "uniform_")):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
