"""Records without files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyrafuse.base.records import DetectionData, ImageRecord


@pytest.fixture
def make_data() -> Callable[..., DetectionData]:
    """Makes a split: for each image its objects as (label, xyxy) or (label, xyxy, is_crowd), in 1000 x 500 px."""

    def make(
        images: Sequence[Sequence[tuple[Any, ...]]], *, names: Sequence[str] = ("cat", "dog"), split: str = "train"
    ) -> DetectionData:
        records = []
        for row, objects in enumerate(images):
            boxes = np.array([each[1] for each in objects], np.float32).reshape(-1, 4)
            labels = np.array([each[0] for each in objects], np.int64)
            crowd = np.array([len(each) > 2 and each[2] for each in objects], np.bool_)
            areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
            records.append(ImageRecord(Path(f"{split}/{row}.jpg"), row, 1000, 500, boxes, labels, crowd, areas))
        return DetectionData(tuple(records), tuple(names), tuple(range(len(names))), "coco", split)

    return make
