"""Objects that are there twice, against a comparison of every pair."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrafuse.data.checks.checking import check
from pyrafuse.data.formats.layout import read_split, read_splits
from pyrafuse.data.reading.repeats import SAME_PX, find_repeats


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40), st.floats(0, 1.5))
def test_repeats_are_those_of_a_comparison_of_all_pairs(seed, count, jitter):
    rng = np.random.default_rng(seed)
    places = np.tile(rng.uniform(0, 50, (6, 2)), 2) + np.array([0, 0, 5, 9])
    boxes = (places[rng.integers(0, 6, count)] + rng.uniform(0, jitter, (count, 4))).astype(np.float32)
    rows, labels = rng.integers(0, 2, count), rng.integers(0, 2, count)
    crowd = rng.random(count) < 0.2
    copies, doubles = find_repeats(rows, boxes, labels, crowd)

    def same(i, j):
        return rows[i] == rows[j] and bool((np.abs(boxes[i] - boxes[j]) < SAME_PX).all())

    is_copy = [any(same(i, j) and labels[i] == labels[j] and crowd[i] == crowd[j] for j in range(i))
               for i in range(count)]  # fmt: skip
    is_double = [not is_copy[i] and any(not is_copy[j] and same(i, j) and labels[i] != labels[j] for j in range(i))
                 for i in range(count)]  # fmt: skip
    assert copies[:, 0].tolist() == np.flatnonzero(is_copy).tolist()
    assert doubles[:, 0].tolist() == np.flatnonzero(is_double).tolist()
    assert all(j < i and same(i, j) for i, j in [*copies.tolist(), *doubles.tolist()])


def test_many_alike_objects_take_no_time_each():
    """A grid of boxes on one left edge, one of them twice; and a heap of a thousand copies."""
    tops = np.arange(3000) * 4.0
    grid = np.stack([np.full(3000, 7.0), tops, np.full(3000, 20.0), tops + 3], axis=1)
    boxes = np.concatenate([grid, grid[1500:1501] + 0.2]).astype(np.float32)
    none = np.zeros(3001, np.int64)
    copies, doubles = find_repeats(none, boxes, none, none.astype(bool))
    assert (copies.tolist(), len(doubles)) == ([[3000, 1500]], 0)
    heap = np.tile(np.float32([1, 2, 30, 40]), (1000, 1))
    copies, _ = find_repeats(none[:1000], heap, none[:1000], none[:1000].astype(bool))
    assert copies[:, 0].tolist() == list(range(1, 1000))


@pytest.fixture
def write_set(tmp_path, write_image):
    """Writes the same objects, (class, xyxy) an image, in a layout; gives the folder."""

    def write(layout, objects):
        for i, own in enumerate(objects):
            write_image(tmp_path / f"{i}.png", 100, 80)
            if layout == "yolo":
                rows = [(label, (a + c) / 200, (b + d) / 160, (c - a) / 100, (d - b) / 80)
                        for label, (a, b, c, d) in own]  # fmt: skip
                (tmp_path / f"{i}.txt").write_text("\n".join(" ".join(f"{v:.6g}" for v in row) for row in rows))
            if layout == "voc":
                items = "".join(
                    f"<object><name>{['cat', 'dog'][label]}</name><bndbox><xmin>{a + 1}</xmin><ymin>{b + 1}</ymin>"
                    f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
                    for label, (a, b, c, d) in own
                )
                (tmp_path / f"{i}.xml").write_text(f"<annotation>{items}</annotation>")
        if layout == "yolo":
            (tmp_path / "classes.txt").write_text("cat\ndog\n")
        if layout == "coco":
            flat = [(i, label, box) for i, own in enumerate(objects) for label, box in own]
            content = {
                "images": [{"id": i, "file_name": f"{i}.png"} for i in range(len(objects))],
                "annotations": [
                    {"id": n, "image_id": i, "category_id": label, "bbox": [a, b, c - a, d - b]}
                    for n, (i, label, (a, b, c, d)) in enumerate(flat)
                ],
                "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
            }
            (tmp_path / "all.json").write_text(json.dumps(content))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("layout", "copy", "original"),
    [
        ("coco", "annotation 2", "annotation 0"),
        ("voc", "object 2 (cat)", "object 0 (cat)"),
        ("yolo", "line 3", "line 1"),
    ],
)
def test_copies_are_left_out_and_boxes_of_two_classes_are_kept(write_set, layout, copy, original):
    a, b, c = (10, 10, 30, 40), (50, 20, 90, 60), (12, 45, 40, 70)
    folder = write_set(layout, [[(0, a), (1, b), (0, a)], [(0, b), (1, b), (1, c)], [(0, a)], [(0, a)]])
    splits = read_splits(folder)
    records = sorted((r for data in (splits.train, splits.val) for r in data.records), key=lambda r: r.path)
    assert records[0].boxes == pytest.approx(np.array([a, b]), abs=1e-3)
    assert records[0].labels.tolist() == [0, 1]
    assert records[1].labels.tolist() == [0, 1, 1]
    twice, double = splits.problems
    assert (twice.severity, twice.kind, twice.record) == ("warning", "object annotated twice", f"{copy} of 0.png")
    assert twice.message == f"box [10, 10, 30, 40] (xyxy) is that of {original} too"
    assert twice.remedy == "left out; delete the copy"
    assert (double.severity, double.kind) == ("warning", "one box in two classes")
    assert "both are kept" in double.remedy


def test_a_rounded_copy_is_one_and_a_neighbour_is_none(write_set):
    folder = write_set("coco", [[(0, (10, 10, 30, 40)), (0, (10.4, 9.7, 30.3, 40))], [(0, (10, 10, 30, 40)),
                                (0, (10.6, 10, 30, 40))], [], []])  # fmt: skip
    splits = read_splits(folder)
    counts = {r.image_id: len(r.labels) for data in (splits.train, splits.val) for r in data.records}
    assert counts == {0: 1, 1: 2, 2: 0, 3: 0}


def test_objects_of_an_image_that_is_listed_twice_are_put_together(tmp_path, write_image):
    for name in "ab":
        write_image(tmp_path / f"{name}.png", 100, 80)
    images = [(1, "a.png"), (2, "b.png"), (3, "a.png")]
    boxes = [(1, [10, 10, 20, 30]), (3, [10, 10, 20, 30]), (3, [50, 5, 9, 9]), (2, [1, 1, 9, 9])]
    content = {
        "images": [{"id": i, "file_name": name, "width": 100, "height": 80} for i, name in images],
        "annotations": [{"id": n, "image_id": i, "category_id": 1, "bbox": box} for n, (i, box) in enumerate(boxes)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    reading = read_split(tmp_path, "val")
    assert [record.image_id for record in reading.data.records] == [1, 2]
    assert reading.data.records[0].boxes.tolist() == [[10, 10, 30, 40], [50, 5, 59, 14]]
    listed, copied = reading.problems
    assert (listed.kind, listed.record) == ("image listed twice", "image 3 (a.png)")
    assert listed.message == "a.png is listed before, as image 1 (a.png)"
    assert (copied.kind, copied.record) == ("object annotated twice", "annotation 1 of a.png")


def test_the_report_counts_copies(write_set):
    a = (10, 10, 30, 40)
    report = check(read_splits(write_set("yolo", [[(0, a), (0, a), (0, a)], [(0, a)], [(1, a)]])))
    assert "warning: object annotated twice (2): left out; delete the copy\n" in report.text()
    assert report.sizes[-1].num_objects == 3
