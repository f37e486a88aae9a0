"""Every kind of foreign checkpoint that can be read, as (recognise, build) pairs: the one list that all doors use.

content of a file -> the first importer that recognises it -> detector
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pyrafuse.core.errors import CheckpointError
from pyrafuse.models.detector import Detector
from pyrafuse.models.importers.asff import LAYOUTS, import_asff, looks_like_asff
from pyrafuse.models.importers.effdet import import_effdet, looks_like_effdet
from pyrafuse.models.importers.m2det import import_m2det, looks_like_m2det
from pyrafuse.models.importers.mmdetection import looks_like_mmdetection
from pyrafuse.models.importers.mmdetection_files import LAYOUTS as MMDETECTION_LAYOUTS
from pyrafuse.models.importers.mmdetection_files import TWO_STAGE_LAYOUTS as MMDETECTION_TWO_STAGE_LAYOUTS
from pyrafuse.models.importers.mmdetection_files import import_mmdetection_file, import_mmdetection_two_stage_file
from pyrafuse.models.importers.mmdetection_ssd import import_mmdetection_ssd, looks_like_mmdetection_ssd
from pyrafuse.models.importers.mmdetection_two_stage import looks_like_mmdetection_two_stage
from pyrafuse.models.importers.torchvision import FAMILIES as TORCHVISION
from pyrafuse.models.importers.torchvision import import_torchvision, looks_like_torchvision


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
        name: Of the origin, for people.
        layouts: What can be read of it, a line each.
        recognizes: Whether the content of a file, as `read_tensors` gives it, is of this origin.
        build: Makes a detector of it; `tells_all` makes it of a `Build`.
    """

    name: str
    layouts: tuple[str, ...]
    recognizes: Callable[[Any], bool]
    build: BuildAs


IMPORTERS = (
    Importer(
        name="official ASFF (arXiv:1911.09516)",
        layouts=(
            *(layout.name for layout in LAYOUTS.values()),
            f"{LAYOUTS[False, True].name}, RFB (ASFF*)",
        ),
        recognizes=looks_like_asff,
        build=tells_all(import_asff),
    ),
    Importer(
        name="mmdetection 2.x and 3.x (file name or settings in it tell how it is used, else --as NAME)",
        layouts=MMDETECTION_LAYOUTS,
        recognizes=looks_like_mmdetection,
        build=import_mmdetection_file,
    ),
    Importer(
        name="mmdetection 2.x and 3.x, two-stage (likewise)",
        layouts=MMDETECTION_TWO_STAGE_LAYOUTS,
        recognizes=looks_like_mmdetection_two_stage,
        build=import_mmdetection_two_stage_file,
    ),
    Importer(
        name="mmdetection's SSD",
        layouts=("SSD300 and SSD512 on VGG-16, COCO and Pascal VOC, of any version",),
        recognizes=looks_like_mmdetection_ssd,
        build=import_mmdetection_ssd,
    ),
    Importer(
        name="official M2Det (arXiv:1811.04533; the file's name tells the size of the input, else --as m2det512)",
        layouts=("320, 512, 704 and 800 px on VGG-16 and ResNets, with and without SFAM's attention",),
        recognizes=looks_like_m2det,
        build=import_m2det,
    ),
    Importer(
        name="effdet, EfficientDet in PyTorch",
        layouts=(
            "efficientdet_d0 to d5",
            "tf_efficientdet_d0 to d5, trained with TensorFlow",
            "these with PAN or QuFPN, and with plain sums",
        ),
        recognizes=looks_like_effdet,
        build=tells_all(import_effdet),
    ),
    Importer(
        name="torchvision's detectors",
        layouts=tuple(TORCHVISION),
        recognizes=looks_like_torchvision,
        build=tells_all(import_torchvision),
    ),
)
"""Asked in this order."""


def find_importer(content: Any) -> Importer | None:
    """The importer that recognises ``content``, if any does."""
    return next((importer for importer in IMPORTERS if importer.recognizes(content)), None)
