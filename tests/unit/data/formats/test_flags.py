"""Flags as tools spell them: set, or not."""

import json
import math

import pytest

from pyrafuse.data.formats.layout import read_split
from pyrafuse.data.reading.tables import is_set

SET = (1, True, 1.0, 2, "1", " 1 ", "true", "True", "yes")
NOT_SET = (0, False, 0.0, None, "0", "0.0", "", "false", "no", "Unspecified", math.nan, "nan", [1])


@pytest.mark.parametrize(("value", "expected"), [*((v, True) for v in SET), *((v, False) for v in NOT_SET)])
def test_spellings(value, expected):
    assert is_set(value) is expected


def test_crowds_and_difficult_objects_in_every_spelling(tmp_path, write_image):
    values = ["1", "0", "true", "false", math.nan, None]
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": [10 * i, 1, 9, 9], "iscrowd": value}
            for i, value in enumerate(values)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    write_image(tmp_path / "coco" / "a.png")
    (tmp_path / "coco" / "train.json").write_text(json.dumps(content))
    write_image(tmp_path / "voc" / "a.png")
    items = "".join(
        f"<object><name>cat</name><difficult>{value}</difficult><bndbox><xmin>{10 * i + 1}</xmin><ymin>1</ymin>"
        f"<xmax>{10 * i + 9}</xmax><ymax>9</ymax></bndbox></object>"
        for i, value in enumerate(values)
    )
    (tmp_path / "voc" / "a.xml").write_text(f"<annotation>{items}</annotation>")
    for layout, split in (("coco", "train"), ("voc", "")):
        (record,) = read_split(tmp_path / layout, split).data.records
        assert record.crowd.tolist() == [True, False, True, False, False, False], layout
