"""Detectors from files, of our own or of others.

file -> content -> ours, or the importer that recognises it -> detector
"""

import os
from collections.abc import Mapping
from typing import Any

import torch

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.paths import find_checkpoint
from pyrafuse.base.printable import list_names
from pyrafuse.core.devices import choose_device
from pyrafuse.core.storage import read_tensors
from pyrafuse.importers.engine import name_is_needless
from pyrafuse.importers.origins import ORIGINS
from pyrafuse.importers.registry import find_importer
from pyrafuse.models.checkpoint import build_own, is_own
from pyrafuse.models.detector import Detector


def load(path: str | os.PathLike[str], *, device: torch.device | str = "cpu", source: str | None = None) -> Detector:
    """Read a detector: a checkpoint of a training here, of `save`, or a foreign one of `ORIGINS`.

    Nothing in the file is executed. The detector comes in evaluation mode.

    Args:
        path: The file, as a rule it is enough; the folder of a run; or ``torchvision/NAME`` or the address of a
            published detector, which is fetched once.
        device: Device to compute on: ``cpu``, ``cuda``, ``cuda:1``, ``auto``.
        source: The published name of the model, for a foreign file that neither tells by itself nor by its name how
            it is used, such as ``"retinanet_r50_fpn_1x_coco"``.

    Raises:
        CheckpointError: If the file cannot be read or fetched, is of an unknown layout, or does not fit its own
            description.
        PyrafuseError: If there is no such device here, or no detector is published by that name.
    """
    path = find_checkpoint(path)
    return build(read_tensors(path), source=path, published=source).to(choose_device(device)).eval()


def build(content: Any, *, source: str | os.PathLike[str], published: str | None = None) -> Detector:
    """Make a detector of the content of a file, as `read_tensors` gives it.

    Args:
        content: Content of one of our own checkpoints, or of one that an importer recognises.
        source: Name of the file, for messages.
        published: The ``source`` of `load`.

    Raises:
        CheckpointError: If the layout is unknown, or it does not fit its own description.
    """
    if is_own(content):
        if published is not None:
            raise name_is_needless(source, published)
        return build_own(content, source=source)
    if importer := find_importer(content):
        return importer.build(content, source=source, published=published)
    found = f"keys {list_names(content, most=5)}" if isinstance(content, Mapping) else type(content).__name__
    tail = (
        ""
        if published is None
        else (
            f"; the name {published!r} does not tell it either: names are such as retinanet_r50_fpn_1x_coco or m2det512"
        )
    )
    raise CheckpointError(
        f"{source} is no checkpoint of pyrafuse and of no layout that is known here (found {found}); what can be "
        f"read besides: {', '.join(origin.name for origin in ORIGINS)} (see pyrafuse import --list){tail}"
    )


def holds_detector(content: Any) -> bool:
    """Whether ``content``, as read from a file, is something that `build` makes a detector of."""
    return is_own(content) or find_importer(content) is not None
