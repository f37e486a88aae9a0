"""What becomes of boxes and images: turned, clipped, left out, and always told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyrafuse.base.images.reading import read_image
from pyrafuse.data.reading.assembling import assemble, turn_boxes
from pyrafuse.data.reading.listed import ListedImage
from pyrafuse.data.reading.rules import BoxFormat, ReadingRules
from pyrafuse.data.reading.tables import ObjectTable


def table(boxes, rows=None, areas=None) -> ObjectTable:
    count = len(boxes)
    return ObjectTable(
        rows=np.array([0] * count if rows is None else rows, np.int64),
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        labels=np.arange(count),
        crowd=np.zeros(count, bool),
        areas=np.full(count, np.nan) if areas is None else np.array(areas, np.float64),
        record_of=lambda row: f"object {row}",
    )


def relative(shares) -> ObjectTable:
    return replace(table(shares), written=BoxFormat("shares", "corners"))


def listed(path: Path, width: int = 0, height: int = 0, image_id: int = 0) -> ListedImage:
    return ListedImage(path, image_id, width, height, Path("list.json"), f"image {image_id}")


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_boxes_turn_with_the_picture(tmp_path, orientation):
    stored = np.zeros((30, 50, 3), np.uint8)
    stored[4:10, 7:27] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    upright = read_image(tmp_path / "a.png")
    ys, xs = np.nonzero(upright[..., 0])
    expected = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    size = [50, 30] if orientation < 5 else [30, 50]
    turned = turn_boxes(np.array([[7.0, 4.0, 27.0, 10.0]]), orientation, np.array([size]))
    assert turned.tolist() == [expected]
    # the same through reading: in pixels of the stored picture, and in shares of it
    stored_size = (50, 30) if orientation < 5 else (0, 0)
    image, rules = listed(tmp_path / "a.png", *stored_size), ReadingRules(exif="stored")
    (record,), problems = assemble([image], table([[7, 4, 27, 10]]), rules=rules)
    assert (record.boxes.tolist(), problems) == ([expected], [])
    shares = [[7 / 50, 4 / 30, 27 / 50, 10 / 30]]
    (record,), _ = assemble([listed(tmp_path / "a.png")], relative(shares), rules=rules)
    np.testing.assert_allclose(record.boxes, [expected], atol=1e-5)


def test_orientation_six_by_hand():
    # stored 50 x 30; the stored bottom-left corner becomes the upright top-left one
    turned = turn_boxes(np.array([[0.0, 20.0, 10.0, 30.0]]), 6, np.array([[30, 50]]))
    assert turned.tolist() == [[0, 0, 10, 10]]


@pytest.mark.parametrize(
    ("annotated", "expected"),
    [((50, 30), [0, 0, 10, 10]), ((30, 50), [0, 20, 10, 30]), ((0, 0), [0, 20, 10, 30])],
)
def test_annotated_size_tells_the_frame(tmp_path, write_image, annotated, expected):
    path = write_image(tmp_path / "a.jpg", 50, 30, orientation=6)
    records, problems = assemble([listed(path, *annotated)], table([[0, 20, 10, 30]]))
    assert (records[0].width, records[0].height) == (30, 50)
    assert records[0].boxes.tolist() == [expected]
    assert [problem.kind for problem in problems] == ([] if any(annotated) else ["images turned by EXIF"])


def test_a_frame_that_sides_cannot_tell_is_counted_and_can_be_settled(tmp_path, write_image):
    flipped = write_image(tmp_path / "flipped.jpg", 50, 30, orientation=3)
    square = write_image(tmp_path / "square.jpg", 40, 40, orientation=6)
    empty = write_image(tmp_path / "empty.jpg", 50, 30, orientation=3)
    told = write_image(tmp_path / "told.jpg", 50, 30, orientation=6)
    plain = write_image(tmp_path / "plain.jpg", 50, 30)
    images = [
        listed(flipped, 50, 30),
        listed(square, 40, 40),
        listed(empty, 50, 30),
        listed(told, 50, 30),
        listed(plain),
    ]
    objects = table([[0, 0, 10, 5]] * 4, rows=[0, 1, 3, 4])
    records, (problem,) = assemble(images, objects)
    assert [r.boxes.tolist() for r in records] == [
        [[0, 0, 10, 5]],
        [[0, 0, 10, 5]],
        [],
        [[25, 0, 30, 10]],
        [[0, 0, 10, 5]],
    ]
    assert (problem.severity, problem.kind) == ("warning", "images turned by EXIF")
    assert problem.message.startswith("2 of 5 images are turned by EXIF")
    assert str(flipped) in problem.message
    assert "boxes are taken in the frame of the upright image; --exif stored" in problem.remedy
    records, problems = assemble(images, objects, rules=ReadingRules(exif="stored"))
    assert [r.boxes.tolist() for r in records][:2] == [[[40, 25, 50, 30]], [[35, 0, 40, 10]]]
    assert [r.boxes.tolist() for r in records][3:] == [[[25, 0, 30, 10]], [[0, 0, 10, 5]]]
    assert problems == []
    records, problems = assemble(images, objects, rules=ReadingRules(exif="upright"))
    assert [r.boxes.tolist() for r in records][:2] == [[[0, 0, 10, 5]], [[0, 0, 10, 5]]]
    assert problems == []


def test_faulty_boxes_are_left_out_or_clipped_and_told(tmp_path, write_image):
    path = write_image(tmp_path / "a.png", 100, 80)
    boxes = [
        [10, 10, 20, 30],  # sound
        [np.nan, 0, 5, 5],
        [30, 30, 20, 40],
        [10, 10, 10, 20],
        [100, 0, 120, 20],
        [90, 70, 110, 85],
        [0.5, -0.9, 100.8, 20],  # within the tolerance
        [1e300, 0, 1e301, 5],
    ]
    records, problems = assemble([listed(path, 100, 80)], table(boxes))
    assert records[0].boxes.tolist() == [[10, 10, 20, 30], [90, 70, 100, 80], [0.5, 0, 100, 20]]
    assert records[0].labels.tolist() == [0, 5, 6]
    assert records[0].areas.tolist() == [200, 100, 1990]
    assert [(p.severity, p.kind, p.record) for p in problems] == [
        ("error", "box that is no number", "object 1 of a.png"),
        ("error", "box that is no number", "object 7 of a.png"),
        ("error", "inverted box", "object 2 of a.png"),
        ("warning", "box without size", "object 3 of a.png"),
        ("error", "box outside its image", "object 4 of a.png"),
        ("warning", "box partly outside its image", "object 5 of a.png"),
    ]
    assert problems[5].message == "box [90, 70, 110, 85] (xyxy) in an image of 100 x 80"
    assert problems[0].file == Path("list.json")


def test_own_area_is_kept_where_there_is_one(tmp_path, write_image):
    path = write_image(tmp_path / "a.png", 100, 80)
    records, _ = assemble([listed(path)], table([[0, 0, 10, 10]] * 3, areas=[42.5, np.nan, 0]))
    assert records[0].areas.tolist() == [42.5, 100, 100]


def test_objects_find_their_images_in_any_order(tmp_path, write_image):
    paths = [write_image(tmp_path / f"{i}.png", 100, 80) for i in range(3)]
    images = [listed(path, image_id=7 + i) for i, path in enumerate(paths)]
    records, _ = assemble(images, table([[i, 0, i + 5, 5] for i in range(4)], rows=[2, 0, 2, 0]))
    assert [record.image_id for record in records] == [7, 8, 9]
    assert [record.labels.tolist() for record in records] == [[1, 3], [], [0, 2]]
    assert records[1].boxes.shape == (0, 4)
    assert [record.boxes.dtype for record in records] == [np.float32] * 3


def test_images_that_cannot_be_used_are_left_out(tmp_path, write_image):
    good = write_image(tmp_path / "good.png", 100, 80)
    other = write_image(tmp_path / "other.png", 100, 80)
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    images = [listed(good), listed(tmp_path / "gone.png"), listed(tmp_path / "bad.jpg"), listed(other, 200, 160)]
    records, problems = assemble(images, table([[0, 0, 5, 5]] * 4, rows=[0, 1, 2, 3]))
    assert [record.path.name for record in records] == ["good.png"]
    assert [p.kind for p in problems] == ["missing image", "unreadable image", "image size differs from its annotation"]
    assert problems[2].message == "annotated 200 x 160, other.png is 100 x 80"
    assert all(p.severity == "error" for p in problems)


def test_an_image_listed_twice_is_told(tmp_path, write_image):
    path = write_image(tmp_path / "a.png")
    _, problems = assemble([listed(path, image_id=1), listed(path, image_id=2)], table([]))
    assert [(p.severity, p.kind, p.record) for p in problems] == [("warning", "image listed twice", "image 2")]


def test_shares_are_of_the_upright_image(tmp_path, write_image):
    path = write_image(tmp_path / "a.jpg", 50, 30, orientation=6)
    records, _ = assemble([listed(path)], relative([[0.1, 0.2, 0.5, 0.6]]))
    assert records[0].boxes[0].tolist() == pytest.approx([3, 10, 15, 30])


def test_objects_of_an_image_listed_in_both_frames_are_put_together_upright(tmp_path, write_image):
    path = write_image(tmp_path / "a.jpg", 50, 30, orientation=6)
    entries = [listed(path, 50, 30, image_id=1), listed(path, 30, 50, image_id=2)]
    (record,), problems = assemble(entries, table([[0, 0, 10, 5], [3, 7, 9, 20]], rows=[0, 1]))
    assert record.boxes.tolist() == [[25, 0, 30, 10], [3, 7, 9, 20]]
    assert [(p.kind, p.record) for p in problems] == [("image listed twice", "image 2")]
