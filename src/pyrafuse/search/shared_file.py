"""Shared weights on the disk: whole or not at all, and only of the search that they belong to.

progress, tensors by key -> shared-weights.safetensors -> checked -> the same
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.typed_values import create
from pyrafuse.base.writing import write_atomically

WEIGHT = "weight"
"""What the names of parameters begin with; those of the optimiser's numbers begin with its own names for them.

After a space comes the key, which ends with the shape.
"""


@dataclass(frozen=True)
class Progress:
    """How far shared weights are trained.

    Attributes:
        rounds: Rounds that are done.
        draws: Paths that were drawn in them.
        passed_over: Those of them over the budget.
        failed: Those that failed.
        dropped: Rounds whose gradients were no numbers, and moved nothing.
        seconds: Seconds that all this took.
    """

    rounds: int = 0
    draws: int = 0
    passed_over: int = 0
    failed: int = 0
    dropped: int = 0
    seconds: float = 0.0


def write_shared(path: Path, identity: str, progress: Progress, tensors: Mapping[str, Tensor]) -> str:
    """Write ``tensors``, float32 each, and return their digest.

    Raises:
        PyrafuseError: If the file system refuses; whatever lay at ``path`` is still there.
    """
    told = json.dumps(asdict(progress))
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digest = _digest(identity, told, content)
    with write_atomically(path) as stream:
        stream.write(save(content, {"identity": identity, "progress": told, "digest": digest}))
    return digest


def read_shared(path: Path, identity: str) -> tuple[Progress, dict[str, Tensor], str]:
    """What `write_shared` wrote, and its digest; nothing of the file runs.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, or belongs to another search.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        found, told, digest = (about[name] for name in ("identity", "progress", "digest"))
        progress = create(Progress, json.loads(told))
    except Exception as error:  # the reader's own exceptions, down to MemoryError for a header that lies
        raise CheckpointError(f"{path} is damaged, or holds no shared weights") from error
    if digest != _digest(found, told, tensors):
        raise CheckpointError(f"{path} is damaged: its numbers are not those that were written")
    if found != identity:
        raise CheckpointError(f"{path} holds the shared weights of another search, or of other settings")
    counts = [value for name, value in vars(progress).items() if name != "seconds"]
    if min(counts) < 0 or not (math.isfinite(progress.seconds) and progress.seconds >= 0):
        raise CheckpointError(f"{path} is damaged: {told} is no progress of a training")
    for name, tensor in tensors.items():
        kind, _, key = name.partition(" ")
        shape = "x".join(map(str, tensor.shape))
        if tensor.dtype != torch.float32 or not tensor.isfinite().all():
            raise CheckpointError(f"{path} is damaged: {name!r} holds other values than finite float32")
        if shape != key.rpartition(" ")[2] and (kind == WEIGHT or tensor.ndim):
            raise CheckpointError(f"{path} is damaged: {name!r} has the shape {shape or 'of one number'}")
    return progress, tensors, digest


def _digest(identity: str, told: str, tensors: Mapping[str, Tensor]) -> str:
    digest = blake2b(json.dumps([identity, told]).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
