"""Deterministic parameter and input values, so that a golden vector needs no stored weights.

`fill_state_dict(shapes)` gives every entry of a checkpoint a value that depends on
its key and shape alone; `image(seed, shape)` gives a reproducible input.
"""

import zlib

import numpy as np


def _rng(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def value(name: str, shape, gain: float = 1.0) -> np.ndarray:
    """float32 array for the parameter or buffer called `name`."""
    shape = tuple(int(s) for s in shape)
    rng = _rng(name)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("running_mean"):
        return (rng.standard_normal(shape) * 0.1).astype(np.float32)
    if len(shape) >= 2:
        fan_in = int(np.prod(shape[1:]))
        return (rng.standard_normal(shape) * gain * (2.0 / fan_in) ** 0.5).astype(np.float32)
    if name.endswith("weight"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (rng.standard_normal(shape) * 0.1).astype(np.float32)


def fill_state_dict(shapes: dict, gain: float = 1.0) -> dict:
    """{key: shape} -> {key: numpy array}."""
    return {k: value(k, s, gain) for k, s in shapes.items()}


def image(seed: int, shape) -> np.ndarray:
    """Standard-normal float32 input of the given shape."""
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)
