"""Every kind of foreign checkpoint that can be read, as (recognise, build) pairs: the one list that all doors use.

content of a file -> the first importer that recognises it -> detector
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pyrafuse.backbones.weights import check_entries
from pyrafuse.base.errors import CheckpointError
from pyrafuse.core.state_dicts import find_weights, without_common_prefix
from pyrafuse.importers import origins
from pyrafuse.importers.asff import import_asff, looks_like_asff
from pyrafuse.importers.effdet import import_effdet, looks_like_effdet
from pyrafuse.importers.m2det import import_m2det, looks_like_m2det
from pyrafuse.importers.mmdetection import looks_like_mmdetection
from pyrafuse.importers.mmdetection_files import import_mmdetection_file, import_mmdetection_two_stage_file
from pyrafuse.importers.mmdetection_ssd import import_mmdetection_ssd, looks_like_mmdetection_ssd
from pyrafuse.importers.mmdetection_two_stage import looks_like_mmdetection_two_stage
from pyrafuse.importers.mmdetection_yolov3 import import_mmdetection_yolov3, looks_like_mmdetection_yolov3
from pyrafuse.importers.origins import Origin
from pyrafuse.importers.torchvision import import_torchvision, looks_like_torchvision
from pyrafuse.models.detector import Detector

MOST_WRAPPERS = 3
"""Attributes around a detector whose names are not known."""


class Build(Protocol):
    """Content of a file -> detector with its card; ``source`` is for messages."""

    def __call__(self, content: Any, *, source: str | os.PathLike[str]) -> Detector: ...


class BuildAs(Protocol):
    """The same for origins whose files do not always tell all: ``published`` names the model in other words."""

    def __call__(self, content: Any, *, source: str | os.PathLike[str], published: str | None) -> Detector: ...


def tells_all(build: Build) -> BuildAs:
    """``build`` for an origin whose files need no other name; one that is given is refused."""

    def build_as(content: Any, *, source: str | os.PathLike[str], published: str | None) -> Detector:
        if published is not None:
            raise CheckpointError(f"{source} tells by itself what it is; leave out the name {published!r}")
        return build(content, source=source)

    return build_as


@dataclass(frozen=True)
class Importer:
    """One origin of checkpoints.

    Attributes:
        origin: In words.
        recognizes: Whether the content of a file, as `read_tensors` gives it, is of this origin.
        read: Makes a detector of it; `tells_all` makes it of a `Build`.
    """

    origin: Origin
    recognizes: Callable[[Any], bool]
    read: BuildAs

    def build(self, content: Any, *, source: str | os.PathLike[str], published: str | None) -> Detector:
        """The detector in ``content``.

        Raises:
            CheckpointError: As ``read`` does, or if there are other things than tensors among its parameters.
        """
        check_entries(content, source=source)
        content = next((reading for reading in _readings(content) if self.recognizes(reading)), content)
        return self.read(content, source=source, published=published)


IMPORTERS = (
    Importer(origins.ASFF, looks_like_asff, tells_all(import_asff)),
    Importer(origins.MMDETECTION, looks_like_mmdetection, import_mmdetection_file),
    Importer(origins.MMDETECTION_TWO_STAGE, looks_like_mmdetection_two_stage, import_mmdetection_two_stage_file),
    Importer(origins.MMDETECTION_SSD, looks_like_mmdetection_ssd, import_mmdetection_ssd),
    Importer(origins.MMDETECTION_YOLOV3, looks_like_mmdetection_yolov3, import_mmdetection_yolov3),
    Importer(origins.M2DET, looks_like_m2det, import_m2det),
    Importer(origins.EFFDET, looks_like_effdet, import_effdet),
    Importer(origins.TORCHVISION, looks_like_torchvision, import_torchvision),
)
"""Asked in this order."""


def find_importer(content: Any) -> Importer | None:
    """The importer that recognises ``content``, if any does."""
    readings = _readings(content)
    return next((importer for reading in readings for importer in IMPORTERS if importer.recognizes(reading)), None)


def _readings(content: Any) -> Iterator[Mapping[str, Any]]:
    """``content`` with the one state dict that was chosen, and then without the first part that all its names share.

    Whoever trains puts the detector into an attribute of any name: ``retinanet.backbone.body...``.
    """
    kept = {key: content[key] for key in ("meta", "message_hub") if isinstance(content, Mapping) and key in content}
    entries = find_weights(content).entries
    for _ in range(MOST_WRAPPERS + 1):
        yield {**kept, "state_dict": entries}
        shorter = without_common_prefix(entries)
        if shorter.keys() == entries.keys():
            return
        entries = shorter
