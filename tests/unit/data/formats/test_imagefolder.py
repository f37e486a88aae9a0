"""Hugging Face's image folder."""

import json

import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.layout import read_split, read_splits

CARD = """---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: objects
    sequence:
    - name: category
      dtype:
        class_label:
          names:
            '0': dog
            '1': cat
---
# Pets
"""


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.mark.parametrize("naming", ["card", "classes.txt", "none"])
def test_numbered_classes(tmp_path, write_image, naming):
    for split in ("train", "validation"):
        write_image(tmp_path / split / "0.png", 100, 80)
        write_image(tmp_path / split / "1.png", 100, 80)
        write(
            tmp_path / split / "metadata.jsonl",
            [
                {"file_name": "0.png", "image_id": 15, "width": 100, "height": 80,
                 "objects": {"id": [1, 2], "area": [50.5, 6], "bbox": [[1, 2, 30, 40], [5, 6, 7, 8]],
                             "categories": [1, 0]}},
                {"file_name": "1.png", "objects": {"bbox": [], "categories": []}},
            ],
        )  # fmt: skip
    if naming == "card":
        (tmp_path / "README.md").write_text(CARD)
    elif naming == "classes.txt":
        (tmp_path / "classes.txt").write_text("dog\ncat\n")
    splits = read_splits(tmp_path)
    names = ("0", "1") if naming == "none" else ("dog", "cat")
    assert (splits.layout, splits.train.names, splits.problems) == ("imagefolder", names, ())
    first, empty = splits.train.records
    assert first.boxes.tolist() == [[1, 2, 31, 42], [5, 6, 12, 14]]
    assert (first.labels.tolist(), first.areas.tolist(), first.image_id) == ([1, 0], [50.5, 6], 15)
    assert len(empty.labels) == 0


def test_what_would_fill_the_memory_is_refused(tmp_path, write_image):
    write_image(tmp_path / "train" / "0.png", 100, 80)
    row = {"file_name": "0.png", "objects": {"bbox": [[1, 2, 30, 40]], "categories": [10**12]}}
    write(tmp_path / "train" / "metadata.jsonl", [row])
    with pytest.raises(DataError, match=r"metadata.jsonl speaks of 1,000,000,000,001 classes and names none"):
        read_splits(tmp_path)
    (tmp_path / "README.md").write_text("---\na: " + "[" * 3000 + "\n---\n")
    with pytest.raises(DataError, match="speaks of"):
        read_splits(tmp_path)


def test_named_classes_and_an_object_each(tmp_path, write_image):
    write_image(tmp_path / "train" / "0.png", 100, 80)
    write_image(tmp_path / "test" / "0.png", 100, 80, seed=1)
    objects = [{"bbox": [1, 2, 30, 40], "category": "cat", "iscrowd": 1}, {"bbox": [5, 6, 7, 8], "category": "dog"}]
    write(
        tmp_path / "metadata.jsonl",
        [{"file_name": "train/0.png", "objects": objects}, {"file_name": "test/0.png", "objects": objects[1:]}],
    )
    splits = read_splits(tmp_path)
    assert splits.train.names == ("cat", "dog")
    assert splits.train.records[0].crowd.tolist() == [True, False]
    assert splits.val.records[0].path == tmp_path / "test" / "0.png"
    assert splits.val.records[0].labels.tolist() == [1]


def test_faults_of_lines(tmp_path, write_image):
    for name in "01":
        write_image(tmp_path / f"{name}.png", 100, 80)
    path = tmp_path / "metadata.jsonl"
    write(
        path,
        [
            {"file_name": "0.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": ["cat"], "pose": ["left"]}},
            {"objects": {}},
            {"file_name": "1.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": []}},
            {"file_name": "0.png", "objects": {"bbox": [[1, 2, 3]], "categories": ["cat"]}},
        ],
    )
    reading = read_split(tmp_path, "")
    assert [(p.kind, p.record) for p in reading.problems] == [("malformed line", f"line {n}") for n in (2, 3, 4)]
    assert reading.unkept == {"further fields of objects": 1}
    path.write_text(path.read_text() + "{")
    with pytest.raises(DataError, match=r"metadata\.jsonl, line 5 is no JSON: .*; correct the line"):
        read_split(tmp_path, "")
