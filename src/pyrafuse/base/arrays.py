"""What numpy arrays and torch tensors do under different names; torch itself is not imported."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = Any
"""A numpy array or a torch tensor; what is made from one is of the same kind."""


def is_tensor(value: object) -> bool:
    """Whether ``value`` is a torch tensor."""
    return type(value).__module__.partition(".")[0] == "torch" or any(
        kind.__module__ == "torch" and kind.__name__ == "Tensor" for kind in type(value).__mro__
    )


def to_numpy(values: Array) -> NDArray[Any]:
    """``values`` as a numpy array in main memory; without a copy where they lie there."""
    return values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()


def floats_like(array: Array, values: Any) -> Array:
    """Make a float array of the kind and on the device of ``array``, which holds floats."""
    return np.asarray(values, np.float32) if isinstance(array, np.ndarray) else array.new_tensor(values)


def like(array: Array, values: NDArray[Any]) -> Array:
    """``values`` in main memory, of the kind of ``array``, with a dtype of their own."""
    return sys.modules["torch"].from_numpy(values) if is_tensor(array) else values


def copy_array(array: Array) -> Array:
    """A copy of ``array``."""
    return array.copy() if isinstance(array, np.ndarray) else array.clone()
