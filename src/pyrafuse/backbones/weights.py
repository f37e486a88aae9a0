"""Published classifier checkpoints -> the backbone's own parameters."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import timm
import torchvision
from torch import Tensor, nn

from pyrafuse.core.errors import CheckpointError, unknown_name
from pyrafuse.core.storage import read_tensors

WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "net")

Naming = Callable[[str], str]
"""Our key -> the published key."""


def read_published(weights: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The parameters of a classifier or detector that is published by name, or lies in a file.

    Args:
        weights: A file; or ``timm/NAME`` or ``torchvision/NAME``, which these libraries fetch. A file comes first.
            Of a file of mmdetection or mmpretrain (``backbone.`` in front of the keys) the backbone is taken, and a
            classifier's last layer.

    Raises:
        CheckpointError: If the file cannot be read safely, holds no parameters, or cannot be fetched.
        UnknownNameError: If timm or torchvision has no such model.
    """
    library, _, name = os.fspath(weights).partition("/")
    is_named = library in _FETCHERS and not os.path.exists(weights)
    state = _fetch(library, name) if is_named else read_state_dict(weights)
    if not any(key.startswith("backbone.") for key in state):
        return state
    prefixes = ("backbone.", "head.fc.")
    return {
        key.removeprefix("backbone.").removeprefix("head."): v for key, v in state.items() if key.startswith(prefixes)
    }


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


def load_exactly(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str | os.PathLike[str],
    naming: Naming = str,
    unused: Iterable[str] = (),
    model: str = "",
) -> None:
    """Load ``state`` into ``module``; every key must be there, fit, and be used.

    Args:
        module: What to fill.
        state: The values.
        source: Where they are from, for messages.
        naming: Our key -> the key in ``state``; by default they are the same.
        unused: Regular expressions of keys in ``state`` that are left aside; each must match from the key's start.
        model: What ``module`` is called, for messages; its class by default.

    Raises:
        CheckpointError: Naming the keys that are missing, extra or of another shape, as ``state`` names them.
    """
    own = {naming(key): (key, value) for key, value in module.state_dict().items()}
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    patterns = [re.compile(pattern) for pattern in unused]
    extra = [k for k in state if k not in own and not any(pattern.match(k) for pattern in patterns)]
    misfits = [
        f"{k} is {tuple(state[k].shape)}, needs {tuple(value.shape)}"
        for k, (_, value) in own.items()
        if k in state and state[k].shape != value.shape
    ]
    if missing or extra or misfits:
        findings = [
            f"{what}: {', '.join(keys[:8])}{f' and {len(keys) - 8} more' if len(keys) > 8 else ''}"
            for what, keys in (("missing", missing), ("extra", extra), ("of another shape", misfits))
            if keys
        ]
        raise CheckpointError(f"{source} does not fit {model or type(module).__name__}; {'; '.join(findings)}")
    module.load_state_dict({ours: state[k] for k, (ours, _) in own.items() if k in state}, strict=False)


def _fetch(library: str, name: str) -> dict[str, Tensor]:
    fetch, names = _FETCHERS[library]
    if name.partition(".")[0] not in names():
        raise unknown_name(f"{library} model", name, names())
    try:
        return dict(fetch(name))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot fetch the weights {library}/{name}: {error}; give a file, or check the connection"
        ) from error


def _fetch_from_timm(name: str) -> Mapping[str, Tensor]:
    return timm.create_model(name, pretrained=True).state_dict()


def _fetch_from_torchvision(name: str) -> Mapping[str, Tensor]:
    published: Any = torchvision.models.get_model_weights(name)
    return published.DEFAULT.get_state_dict(progress=False, check_hash=True)


_FETCHERS: Mapping[str, tuple[Callable[[str], Mapping[str, Tensor]], Callable[[], Sequence[str]]]] = {
    "timm": (_fetch_from_timm, timm.list_models),
    "torchvision": (_fetch_from_torchvision, torchvision.models.list_models),
}
