"""The generated data set: the same each time, well-formed, whole or not at all."""

import json
import time

import numpy as np
import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.shapes import (
    ShapesSettings,
    cached_shapes,
    draw_shapes,
    is_shapes,
    parse_shapes,
    write_shapes,
)


def test_seed_index_and_split_decide_the_image():
    image, boxes, labels = draw_shapes(3, size=96, seed=5)
    again = draw_shapes(3, size=96, seed=5)
    assert np.array_equal(image, again[0])
    assert np.array_equal(boxes, again[1])
    assert np.array_equal(labels, again[2])
    assert (image.shape, image.dtype, boxes.dtype, labels.dtype) == ((96, 96, 3), np.uint8, np.float32, np.int64)
    others = [
        draw_shapes(4, size=96, seed=5),
        draw_shapes(3, size=96, seed=6),
        draw_shapes(3, size=96, seed=5, split="val"),
    ]
    assert not any(np.array_equal(image, other[0]) for other in others)


def test_boxes_lie_inside_and_hardly_cover_each_other():
    drawn = [draw_shapes(i) for i in range(30)]
    for _, boxes, labels in drawn:
        assert len(boxes) == len(labels) >= 1
        assert boxes.min() >= 0
        assert boxes.max() <= 256
        size = boxes[:, 2:] - boxes[:, :2]
        assert size.min() >= 6
        overlap = np.clip(
            np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2]),
            0,
            None,
        )
        shared = overlap.prod(-1) / np.minimum(size.prod(1)[:, None], size.prod(1)[None])
        assert shared[~np.eye(len(boxes), dtype=bool)].max(initial=0) <= 0.051
    sides = np.concatenate([np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) for _, boxes, _ in drawn])
    assert (sides < 32).mean() > 0.4
    assert (sides > 64).mean() > 0.05
    assert set(np.concatenate([labels for *_, labels in drawn])) == {0, 1, 2, 3, 4}


def test_boxes_fit_the_drawn_shapes():
    size = 256
    for index in range(5):
        image, boxes, _ = draw_shapes(index, size=size)
        saturation = image.max(-1).astype(int) - image.min(-1)
        for x1, y1, x2, y2 in boxes:
            left, top, right, bottom = np.round([x1, y1, x2, y2]).astype(int)
            patch = saturation[max(top - 6, 0) : bottom + 6, max(left - 6, 0) : right + 6] > 85
            ys, xs = np.nonzero(patch)
            # the middle of what stands out is the middle of the box, but for the asymmetry of stars and triangles
            centre = xs.mean() + max(left - 6, 0), ys.mean() + max(top - 6, 0)
            assert abs(centre[0] - (x1 + x2) / 2) < 0.15 * (x2 - x1) + 2
            assert abs(centre[1] - (y1 + y2) / 2) < 0.15 * (y2 - y1) + 2


def test_drawing_is_fast():
    begin = time.process_time()
    for index in range(20):
        draw_shapes(index)
    assert (time.process_time() - begin) / 20 < 0.02  # three thousand a minute on one core


def test_what_is_asked_for():
    assert [is_shapes(text) for text in ("shapes", "shapes:seed=1", "./shapes", "shapes2")] == [
        True,
        True,
        False,
        False,
    ]
    assert parse_shapes("shapes") == ShapesSettings(400, 100, 256, 0)
    assert parse_shapes("shapes: size=64, train=7") == ShapesSettings(train=7, size=64)
    with pytest.raises(ValueError, match="unknown option of shapes 'sise'; did you mean 'size'"):
        parse_shapes("shapes:sise=3")
    with pytest.raises(DataError, match="size is 'big', not a whole number"):
        parse_shapes("shapes:size=big")
    with pytest.raises(DataError, match="shapes:size=8: size must lie within 32 and 4096"):
        parse_shapes("shapes:size=8")


def test_written_whole_and_reused(tmp_path):
    folder = write_shapes(tmp_path / "set", num_train=3, num_val=2, size=64, seed=1)
    assert sorted(path.name for path in folder.iterdir()) == [
        "images", "instances_train.json", "instances_val.json", "shapes.json",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    content = json.loads((folder / "instances_train.json").read_text())
    boxes = draw_shapes(0, size=64, seed=1)[1]
    own = [a["bbox"] for a in content["annotations"] if a["image_id"] == 1]
    assert np.allclose(own, np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1), atol=0.011)
    assert [category["name"] for category in content["categories"]] == ["circle", "square", "triangle", "star", "cross"]

    (folder / "mark").touch()
    write_shapes(folder, num_train=3, num_val=2, size=64, seed=1)
    assert (folder / "mark").exists()
    write_shapes(folder, num_train=4, num_val=2, size=64, seed=1)
    assert not (folder / "mark").exists()
    assert len(list((folder / "images").iterdir())) == 6


def test_an_interrupted_run_leaves_nothing_and_is_redone(tmp_path, monkeypatch):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setenv("PYRAFUSE_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setattr("pyrafuse.data.formats.shapes.draw_shapes", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cached_shapes("shapes:train=2,val=1,size=32")
    assert list((tmp_path / "cache").iterdir()) == []
    folder = cached_shapes("shapes:train=2,val=1,size=32")
    assert folder == tmp_path / "cache" / "shapes-v1-2-1-32px-seed0"
    assert len(list((folder / "images").iterdir())) == 3


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="holds something else already"):
        write_shapes(tmp_path, num_train=1, num_val=1, size=32)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_rare_class_is_rare_in_training_alone():
    def share(split, rare):
        labels = np.concatenate([draw_shapes(i, size=64, split=split, rare=rare)[2] for i in range(60)])
        return (labels == 4).mean(), len(labels)

    training, count = share("train", 20)
    assert 0 < training < 0.03 < 0.1 < share("val", 20)[0]
    assert count > 200
    assert parse_shapes("shapes:rare=20,smaller=4") == ShapesSettings(rare=20, smaller=4)


def test_smaller_objects_are_as_many_times_more():
    sizes, counts = {}, {}
    for smaller in (1, 4):
        drawn = [draw_shapes(i, size=256, smaller=smaller)[1] for i in range(12)]
        boxes = np.concatenate(drawn)
        sizes[smaller], counts[smaller] = (boxes[:, 2:] - boxes[:, :2]).max(), len(boxes)
    assert sizes[4] < sizes[1] / 3
    assert 3 * counts[1] < counts[4] < 5 * counts[1]


def test_what_was_drawn_before_an_option_is_kept(tmp_path):
    folder = write_shapes(tmp_path / "set", num_train=1, num_val=1, size=32)
    assert set(json.loads((folder / "shapes.json").read_text())) == {"version", "train", "val", "size", "seed"}
    write_shapes(folder, num_train=1, num_val=1, size=32, rare=2)
    assert json.loads((folder / "shapes.json").read_text())["rare"] == 2
