"""Models that are built to be filled: no time is spent on random weights that a checkpoint replaces at once."""

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode


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
