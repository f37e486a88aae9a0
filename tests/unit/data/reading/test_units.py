"""What the numbers of a box are: told from sound data on both sides, and read as asked."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.data.formats.layout import read_splits
from pyrafuse.data.reading.rules import ORDERS, UNITS, BoxFormat, ReadingRules
from pyrafuse.data.reading.units import choose_format, suspect, to_pixels

WIDTH, HEIGHT = 160, 120
COCO, VOC = BoxFormat("pixels", "sizes"), BoxFormat("pixels", "corners", is_one_based=True)
YOLO = BoxFormat("shares", "centers")
FORMATS = [BoxFormat(unit, order) for unit in UNITS for order in ORDERS]


def spread_boxes(count, *, seed=0, size=(WIDTH, HEIGHT)):
    """(count, 4) xyxy boxes all over an image, a tenth to a third of its sides."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(0.1, 0.33, (count, 2))
    corners = rng.uniform(0, 1, (count, 2)) * (1 - sides)
    return np.concatenate([corners, corners + sides], axis=1) * np.tile(size, 2)


def write_as(boxes, form, size=(WIDTH, HEIGHT)):
    """The numbers that stand for xyxy pixels in ``form``, by its definition."""
    scale = {"pixels": np.ones(2), "shares": 1 / np.array(size), "percent": 100 / np.array(size)}[form.unit]
    x1, y1, x2, y2 = (boxes * np.tile(scale, 2)).T
    columns = {
        "corners": (x1, y1, x2, y2),
        "sizes": (x1, y1, x2 - x1, y2 - y1),
        "centers": ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1),
    }[form.order]
    values = np.stack(columns, axis=1)
    if form.is_one_based:
        values[:, :2] += 1
    return values


def look(values, form, size=(WIDTH, HEIGHT), words=()):
    count = len(values)
    return suspect(np.asarray(values, float), form, np.tile(size, (count, 1)), np.zeros(count, bool), words)


@pytest.mark.parametrize("form", [*FORMATS, VOC], ids=str)
def test_every_format_gives_the_same_pixels(form):
    boxes = spread_boxes(20)
    values = write_as(boxes, form)
    count = len(boxes)
    found = to_pixels(values, form, np.tile((WIDTH, HEIGHT), (count, 1)), np.zeros(count, bool))
    assert found == pytest.approx(boxes)
    outline = to_pixels(boxes, BoxFormat("pixels", form.order, form.is_one_based), np.ones((count, 2), int),
                        np.ones(count, bool))  # fmt: skip
    assert outline.tolist() == boxes.tolist()


@pytest.mark.parametrize("own", [COCO, VOC, YOLO], ids=["coco", "voc", "yolo"])
@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_other_formats_are_told_and_the_own_is_not(own, form, seed):
    """Boxes all over the images: what is told is right, and its words lead back to where nothing is told."""
    size = (640, 480) if form.unit == "percent" else (WIDTH, HEIGHT)
    values = write_as(spread_boxes(24, seed=seed, size=size), form, size)
    found = look(values, own, size)
    if (form.unit, form.order) == (own.unit, own.order):
        assert found is None
        return
    assert found is not None
    assert (found.format.unit, found.format.order) == (form.unit, form.order)
    words = tuple(found.words.split(","))
    chosen = choose_format(own, words)
    assert (chosen.unit, chosen.order) == (form.unit, form.order)
    assert look(values, chosen, size, words=words) is None
    assert look(values, own, size, words=(own.unit, own.order)) is None  # what is said is not put in question


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 60),
    size=st.tuples(st.integers(16, 4000), st.integers(16, 3000)),
    least=st.floats(0.01, 0.9),
    spread=st.floats(0, 0.1),
    beyond=st.floats(0, 0.015),
)
@pytest.mark.parametrize("own", [COCO, VOC, YOLO], ids=["coco", "voc", "yolo"])
def test_sound_boxes_are_never_doubted(own, seed, count, size, least, spread, beyond):
    """Few or many, small or large, near the border or a little over it."""
    rng = np.random.default_rng(seed)
    sides = np.clip(least + rng.uniform(0, spread, (count, 2)), 0.01, 1)
    corners = rng.uniform(0, 1, (count, 2)) * (1 - sides) * rng.choice([0.0, 0.5, 1.0])
    boxes = np.concatenate([corners - beyond, corners + sides + beyond], axis=1) * np.tile(size, 2)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1.5)
    if own.unit == "pixels" and (boxes[:, 2:].max(0) <= 101).all() and min(size) > 120:
        return  # a corner of 100 pixels, filled: what percent look like
    assert look(write_as(boxes, own, size), own, size) is None


@pytest.mark.parametrize(
    ("values", "own"),
    [
        ([[0, 0, 1, 1]] * 20, COCO),  # stand-ins for no box
        ([[0, 0, 0, 0]] * 20, COCO),
        ([[10.5, 10.5, 0.4, 0.6]] * 20, COCO),  # smaller than a pixel
        ([[0, 0, 160, 120]] * 20, COCO),  # the whole image
        ([[1, 1, 160, 120]] * 20, VOC),
        ([[0.5, 0.5, 1, 1]] * 20, YOLO),
        ([[10 + i, 5 + i, 40, 40] for i in range(20)], COCO),  # one corner of the image
        ([[5, 5, 90, 90]] * 30, COCO),
        ([[140, 100, 40, 40]] * 2 + [[10, 10, 9, 9]] * 20, COCO),  # a few leave the image
        ([[0.9, 0.9, 0.3, 0.3]] * 3 + [[0.1, 0.1, 0.05, 0.05]] * 20, YOLO),
        ([[30, 20, 10, 10]] * 5, VOC),  # turned inside out, all over: no other reading fits better
        ([[np.nan] * 4] * 5, COCO),
        ([[0.2, 0.3, 0.1, 0.1]] * 3 + [[20, 30, 10, 10]] * 9, COCO),  # a few: told of as tiny
    ],
)
def test_odd_but_sound(values, own):
    found = look(values, own)
    if own is VOC and values[0] == [30, 20, 10, 10]:
        assert found is not None  # x, y, width and height fit all of them
        assert found.words == "sizes"
    else:
        assert found is None


def test_percent_need_evidence():
    boxes = write_as(spread_boxes(24), BoxFormat("percent", "sizes"))
    assert look(boxes, COCO).words == "percent"
    assert look(boxes[:7], COCO) is None  # few boxes of an image that is not much larger
    assert look(boxes[:7], COCO, size=(1600, 1200)).words == "percent"
    assert look(np.tile(boxes[:5], (50, 1)), COCO) is None  # the same ones again
    assert look(boxes, COCO, size=(105, 105)) is None  # percent and pixels are nearly alike
    assert look(boxes * 0.5, COCO) is None  # nothing beyond the half
    assert look(np.concatenate([boxes, [[120, 10, 30, 30]]]), COCO) is None


@pytest.mark.parametrize("boxes", ["shares", "percent,corners", "centers", "rotated", "shares,rotated"])
def test_words_that_are_taken(boxes):
    assert ReadingRules(boxes=boxes).box_words == tuple(boxes.split(","))
    assert ReadingRules().box_words == ()


@pytest.mark.parametrize("boxes", ["share", "", "shares,pixels", "corners,corners", "auto,shares", None, 3])
def test_words_that_are_none(boxes):
    with pytest.raises(PyrafuseError, match="boxes must be auto, or one of pixels, shares, percent, one of corners"):
        ReadingRules(boxes=boxes)


@pytest.fixture
def write_set(tmp_path, write_image):
    """Writes a data set of eight images and 24 boxes, the numbers in ``form``; gives its folder."""

    def write(layout, form, boxes):
        values = write_as(boxes, form)
        names = [f"{i}.png" for i in range(8)]
        for name in names:
            write_image(tmp_path / "images" / name, WIDTH, HEIGHT)
        if layout == "coco":
            annotations = [
                {"id": i, "image_id": i % 8, "category_id": 1, "bbox": value, "area": 0.5}
                for i, value in enumerate(values.tolist())
            ]
            images = [{"id": i, "file_name": n, "width": WIDTH, "height": HEIGHT} for i, n in enumerate(names)]
            content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
            (tmp_path / "result.json").write_text(json.dumps(content))
        for i, name in enumerate(names if layout != "coco" else []):
            own = values[i::8].tolist()
            if layout == "yolo":
                lines = [" ".join(map(str, (0, *value))) for value in own]
                target = tmp_path / "labels" / name.replace("png", "txt")
                target.parent.mkdir(exist_ok=True)
                target.write_text("\n".join(lines))
            else:
                objects = "".join(
                    "<object><name>cat</name><bndbox>"
                    + "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), value, strict=True))
                    + "</bndbox></object>"
                    for value in own
                )
                target = tmp_path / "Annotations" / name.replace("png", "xml")
                target.parent.mkdir(exist_ok=True)
                target.write_text(f"<annotation><filename>{name}</filename>{objects}</annotation>")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("layout", "form", "words", "sentence"),
    [
        (
            "coco",
            BoxFormat("shares", "sizes"),
            "shares",
            "24 of 24 boxes have no number above 1: these look like shares",
        ),
        ("coco", BoxFormat("shares", "corners"), "shares,corners", "shares of the image, corners"),
        ("coco", BoxFormat("percent", "sizes"), "percent", "no number is above 100, and as pixels all boxes would lie"),
        ("coco", BoxFormat("pixels", "corners"), "corners", "24 of 24 boxes lie in it as corners"),
        ("coco", BoxFormat("pixels", "centers"), "centers", "24 of 24 boxes lie in it as centre x, centre y"),
        ("voc", BoxFormat("shares", "corners"), "shares", "24 of 24 boxes have no number above 1"),
        ("voc", BoxFormat("pixels", "sizes", is_one_based=True), "sizes", "24 of 24 boxes lie in it as x, y, width"),
        ("voc", BoxFormat("percent", "corners"), "percent", "these look like percent of the image, not like pixels"),
        (
            "yolo",
            BoxFormat("pixels", "centers"),
            "pixels",
            "24 of 24 boxes have numbers above 1.5: these look like",
        ),
        ("yolo", BoxFormat("pixels", "corners"), "pixels,corners", "these look like pixels, corners"),
        ("yolo", BoxFormat("shares", "corners"), "corners", "24 of 24 boxes lie in it as corners"),
        ("yolo", BoxFormat("shares", "sizes"), "sizes", "24 of 24 boxes lie in it as x, y, width, height"),
        ("yolo", BoxFormat("percent", "centers"), "percent", "these look like percent of the image, not like shares"),
    ],
)
def test_a_whole_set_is_refused_and_read_as_asked(write_set, layout, form, words, sentence):
    boxes = spread_boxes(24, seed=5)
    folder = write_set(layout, form, boxes)
    with pytest.raises(DataError) as raised:
        read_splits(folder)
    message = str(raised.value)
    assert sentence in message
    assert f"--boxes {words} reads them so" in message
    assert "in an image of 160 x 120" in message
    assert str(folder) in message
    splits = read_splits(folder, rules=ReadingRules(boxes=words))
    assert splits.problems == ()
    found = np.concatenate([r.boxes for data in (splits.train, splits.val) for r in data.records])
    assert np.sort(found, axis=0) == pytest.approx(np.sort(boxes, axis=0), abs=1e-3)
    areas = np.concatenate([r.areas for data in (splits.train, splits.val) for r in data.records])
    if form.unit != "pixels":  # an own area has another unit then
        assert areas == pytest.approx((found[:, 2:] - found[:, :2]).prod(1), rel=1e-4)


def test_shares_are_read_in_the_frame_they_were_annotated_in(tmp_path, write_image, write_coco):
    write_image(tmp_path / "a.jpg", 50, 40, orientation=6)  # upright 40 x 50
    write_coco(tmp_path / "train.json", [(1, "a.jpg", 50, 40)], [(1, 1, [0.0, 0.5, 0.2, 0.5])])
    write_coco(tmp_path / "val.json", [(1, "a.jpg", 40, 50)], [(1, 1, [0.0, 0.5, 0.2, 0.5])])
    splits = read_splits(tmp_path, rules=ReadingRules(boxes="shares"))
    assert splits.train.records[0].boxes.tolist() == [[0, 0, 20, 10]]
    assert splits.val.records[0].boxes.tolist() == [[0, 25, 8, 50]]


def test_few_numbers_that_may_be_percent_or_pixels_name_both():
    found = look([[50, 50, 30, 20], [20, 90, 10, 15]], YOLO, (640, 480))
    assert found is not None
    assert found.words == "pixels"
    assert found.evidence.endswith("if they are percent, --boxes percent")
    found = look([[250, 150, 30, 20], [120, 90, 10, 15]], YOLO, (640, 480))
    assert found is not None
    assert "percent" not in found.evidence
