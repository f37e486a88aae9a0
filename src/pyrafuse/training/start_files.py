"""Files of weights to start from: found, or refused with the nearest.

Free of torch, so that the answer comes at once.
"""

import os
from pathlib import Path

from pyrafuse.backbones.published import TIMM, TORCHVISION, name_published
from pyrafuse.core.errors import CheckpointError, nearest
from pyrafuse.training.settings import ModelSettings

SUFFIXES = frozenset({".ckpt", ".pth", ".pt", ".bin", ".safetensors"})
"""Of checkpoints."""

PUBLISHED = ("timm/", "torchvision/")
"""How the names of weights begin that are fetched."""

RUN_CHECKPOINTS = ("best.ckpt", "last.ckpt")
"""What a training leaves in its folder; the first one is preferred."""


def is_published(text: str) -> bool:
    """Whether ``text`` names weights that a library fetches."""
    return text.startswith(PUBLISHED) and not os.path.exists(text)


def looks_like_file(text: str) -> bool:
    """Whether ``text`` is meant as a file or folder, there or not, and not as a registered name."""
    path = Path(text)
    is_run = any((path / name).is_file() for name in RUN_CHECKPOINTS)
    return path.suffix.lower() in SUFFIXES or len(path.parts) > 1 or path.is_file() or is_run


def find_checkpoint(path: str | os.PathLike[str]) -> str:
    """``path``, or the best checkpoint in the folder of a run.

    Raises:
        CheckpointError: If there is no such file, with the nearest one.
    """
    path = Path(path)
    if path.is_dir():
        found = next((path / name for name in RUN_CHECKPOINTS if (path / name).is_file()), None)
        if found is None:
            inside = _checkpoints_in(path)
            hint = f"name a file in it, {inside[0]} say" if inside else "there is no checkpoint in it"
            raise CheckpointError(f"{path} is a folder without {' or '.join(RUN_CHECKPOINTS)}; {hint}")
        return str(found)
    if not path.is_file():
        raise CheckpointError(f"no such checkpoint: {path}; {_suggest(path)}")
    return str(path)


def check_start_files(model: ModelSettings) -> None:
    """Refuse files to start from that are not there.

    Raises:
        CheckpointError: With the nearest one, or the words that were meant.
    """
    if model.start_from is not None:
        find_checkpoint(model.start_from)
    weights = model.backbone_weights
    if weights is None or is_published(weights) or os.path.isfile(weights):
        return
    if os.path.isdir(weights) or looks_like_file(weights):
        find_checkpoint(weights)
        raise CheckpointError(f"{weights} is a folder; name a file of weights in it")
    published = name_published(weights)
    hint = "give --weights FILE, torchvision/NAME or timm/NAME"
    if published is not None:
        hint = f"--weights {published} fetches ImageNet's"
    elif near := nearest(weights, [*TORCHVISION, *TIMM]):
        hint = f"did you mean --weights {name_published(near)}, which fetches ImageNet's?"
    raise CheckpointError(f"no such file of weights: {weights}; {hint}")


def _suggest(path: Path) -> str:
    near = nearest(path.name, (p.name for p in _checkpoints_in(path.parent)))
    if near:
        return f"did you mean {path.parent / near}?"
    runs = sorted(Path("runs").glob(f"*/{path.name}"), key=lambda p: p.stat().st_mtime)
    if path.suffix == ".ckpt" and runs:
        return f"did you mean {runs[-1]}?"
    inside = _checkpoints_in(path.parent)
    if inside:
        return f"beside it lie {', '.join(p.name for p in inside[:5])}"
    return "a training leaves best.ckpt in its folder"


def _checkpoints_in(folder: Path) -> list[Path]:
    """Sorted by name; none if there is no such folder, or it may not be read."""
    try:
        return sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and not p.name.startswith("."))
    except OSError:
        return []
