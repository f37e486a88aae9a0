"""Published classifier checkpoints -> the backbone's own parameters."""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pyrafuse.core.errors import CheckpointError
from pyrafuse.core.storage import read_tensors

WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "net")


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the parameters of a checkpoint, whatever wraps them, without ``module.`` in front of the keys.

    Raises:
        CheckpointError: If the file cannot be read safely, or holds no parameters.
    """
    content: Any = read_tensors(path)
    while isinstance(content, Mapping) and not any(isinstance(v, Tensor) for v in content.values()):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no state_dict: found {type(content).__name__}")
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], *, source: str | os.PathLike[str]) -> None:
    """Load ``state`` into ``module``; every key must be there, fit, and be used.

    Raises:
        CheckpointError: Naming the keys that are missing, extra or of another shape.
    """
    own = module.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in own]
    misfits = [
        f"{k} is {tuple(state[k].shape)}, needs {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    if missing or extra or misfits:
        findings = [
            f"{what}: {', '.join(keys[:8])}{f' and {len(keys) - 8} more' if len(keys) > 8 else ''}"
            for what, keys in (("missing", missing), ("extra", extra), ("of another shape", misfits))
            if keys
        ]
        raise CheckpointError(f"{source} does not fit {type(module).__name__}; {'; '.join(findings)}")
    module.load_state_dict(dict(state), strict=False)
