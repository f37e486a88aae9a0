"""Every origin of checkpoints that can be read: the one list that all doors use."""

from typing import Any

from pyrafuse.importers.asff import ASFF
from pyrafuse.importers.effdet.detectors import EFFDET
from pyrafuse.importers.engine import Importer, read_wrapped
from pyrafuse.importers.m2det import M2DET
from pyrafuse.importers.mmdetection.dense import DENSE
from pyrafuse.importers.mmdetection.ssd import SSD
from pyrafuse.importers.mmdetection.two_stage import TWO_STAGE
from pyrafuse.importers.mmdetection.yolov3 import YOLOV3
from pyrafuse.importers.torchvision.detectors import TORCHVISION

IMPORTERS = (ASFF, DENSE, TWO_STAGE, SSD, YOLOV3, M2DET, EFFDET, TORCHVISION)
"""Asked in this order."""


def find_importer(content: Any) -> Importer | None:
    """The importer that recognises ``content``, if any does."""
    readings = read_wrapped(content)
    return next((importer for reading in readings for importer in IMPORTERS if importer.recognizes(reading)), None)
