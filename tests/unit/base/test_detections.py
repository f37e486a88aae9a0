"""What was found, in every form it leaves in."""

import base64
import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import supervision
import torch
from PIL import Image

from pyrafuse.base.detections import Detection, Detections
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.detections import no_detections


@pytest.fixture
def found():
    return Detections(
        boxes=torch.tensor([[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 100.0, 80.0]]),
        scores=torch.tensor([0.75, 0.5]),
        labels=torch.tensor([1, 2]),
        levels=torch.tensor([0, 2]),
        names=("cat", "dog"),
        image_size=(80, 100),
        source="a.jpg",
        image=torch.full((3, 80, 100), 200, dtype=torch.uint8),
    )


OBJECTS = [
    {"label": 1, "name": "dog", "score": 0.75, "box_xyxy": [10, 20, 30, 60], "level": 0},
    {"label": 2, "name": "2", "score": 0.5, "box_xyxy": [0, 0, 100, 80], "level": 2},
]


def test_a_picture_larger_than_its_kind_of_file_is_refused(tmp_path):
    found = replace(no_detections(), image=torch.zeros(3, 1, 20000, dtype=torch.uint8), image_size=(1, 20000))
    with pytest.raises(PyrafuseError, match=r"a\.webp: 20000 x 1 pixels, and \.webp ends at 16383; save it as \.png"):
        found.save(tmp_path / "a.webp")
    found.save(tmp_path / "a.jpg")
    assert [p.name for p in tmp_path.iterdir()] == ["a.jpg"]


def test_plain_values(found):
    assert found.to_dict() == {"source": "a.jpg", "height": 80, "width": 100, "objects": OBJECTS}


def test_yolo_text(found):
    assert found.to_yolo() == (
        "1 0.200000 0.500000 0.200000 0.500000 0.750000\n2 0.500000 0.500000 1.000000 1.000000 0.500000\n"
    )
    assert found[:0].to_yolo() == ""


def test_supervision(found):
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert theirs.xyxy.tolist() == [[10, 20, 30, 60], [0, 0, 100, 80]]
    assert theirs.confidence is not None
    assert theirs.class_id is not None
    assert theirs.confidence.tolist() == [0.75, 0.5]
    assert theirs.class_id.tolist() == [1, 2]
    assert list(theirs.data["class_name"]) == ["dog", "2"]
    assert len(no_detections().to_supervision()) == 0


@pytest.mark.parametrize("rows", [slice(1, 2), torch.tensor([False, True]), torch.tensor([1]), [1]])
def test_rows(found, rows):
    part = found[rows]
    assert len(part) == 1
    assert part.to_dict()["objects"] == OBJECTS[1:]
    assert part.image is found.image


class TestPicture:
    def test_drawn_where_the_objects_are(self, found):
        picture = found[:1].draw()
        assert picture.shape == (3, 80, 100)
        changed = (picture != 200).any(0)
        assert changed[40, 10]
        assert changed[60, 20]
        assert not changed[40, 20]
        assert not changed[:, 90:].any()
        assert (found.image == 200).all()

    def test_a_crowd_stays_visible(self):
        x = torch.arange(40.0, 340, 18)
        boxes = torch.stack([x, torch.full_like(x, 250), x + 14, torch.full_like(x, 270)], dim=1)
        labels = torch.zeros(len(x)).long()
        crowd = Detections(boxes, torch.full_like(x, 0.9), labels, labels, ("penguin",))
        inner = crowd.draw(torch.full((3, 512, 384), 200, dtype=torch.uint8))[:, 252:269, 42:52]
        assert (inner == 200).all(0).float().mean() > 0.6

    def test_nothing_found_draws_nothing(self, found):
        assert torch.equal(found[:0].draw(), found.image)

    def test_boxes_past_the_border(self, found):
        outside = Detections(
            torch.tensor([[-50.0, -50.0, 500.0, 500.0]]), torch.ones(1), torch.zeros(1).long(), torch.zeros(1).long()
        )
        assert (outside.draw(found.image) != 200).any()

    def test_no_image(self, found):
        lone = Detections(found.boxes, found.scores, found.labels, found.levels)
        with pytest.raises(
            PyrafuseError, match=r"keep no image: give it to draw\(image\), or predict with keep_images=True"
        ):
            lone.draw()


class TestSave:
    def test_json(self, found, tmp_path):
        found.save(tmp_path / "new folder" / "a.json")
        assert json.loads((tmp_path / "new folder" / "a.json").read_text())["objects"] == OBJECTS

    def test_text(self, found, tmp_path):
        found.save(str(tmp_path / "a.TXT"))
        assert (tmp_path / "a.TXT").read_text() == found.to_yolo()

    @pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".webp", ".PNG"])
    def test_picture(self, found, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        found.save(path)
        with Image.open(path) as picture:
            assert picture.size == (100, 80)
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        expected = found.draw().permute(1, 2, 0).numpy().astype(int)
        assert np.abs(pixels - expected).mean() < (0.5 if "png" in suffix.lower() else 12)

    @pytest.mark.parametrize(("name", "said"), [("a.gif", r"\.gif"), ("a", "a file without suffix")])
    def test_other_suffixes(self, found, tmp_path, name, said):
        with pytest.raises(PyrafuseError, match=f"as {said}: .jpg, .png, .webp, .json or .txt"):
            found.save(tmp_path / name)
        assert not list(tmp_path.iterdir())

    def test_where_a_folder_is(self, found, tmp_path):
        (tmp_path / "a.json").mkdir()
        with pytest.raises(PyrafuseError, match=r"cannot write .*a\.json: Is a directory"):
            found.save(tmp_path / "a.json")
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("num_bytes", [0, 100, 600])
def test_a_full_disk_keeps_the_former_picture(found, tmp_path, full_disk, suffix, num_bytes):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    noise = np.random.default_rng(0).integers(0, 255, (3, 80, 100), np.uint8)
    with full_disk(num_bytes), pytest.raises(PyrafuseError, match=rf"cannot write .*a\{suffix}: File too large; free"):
        replace(found, image=torch.from_numpy(noise)).save(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_boxes_are_cut_at_the_edges_and_dropped_without_area(found):
    boxes = torch.tensor([[-3.0, 70, 20, 83.5], [100, 0, 120, 80], [50, -9, 101, -1], [10, 20, 30, 60]])
    every = torch.arange(4)
    seen = replace(found, boxes=boxes, scores=every / 4, labels=every, levels=every).clip()
    assert seen.boxes.tolist() == [[0, 70, 20, 80], [10, 20, 30, 60]]
    assert seen.labels.tolist() == [0, 3]
    assert len(no_detections().clip()) == 0


def test_one_after_the_other(found):
    first, second = found
    assert first == Detection(name="dog", score=0.75, box=(10.0, 20.0, 30.0, 60.0), label=1, level=0)
    assert second.name == "2"
    assert found.class_names == ("dog", "2")
    assert found.xyxy is found.boxes
    assert found.count() == {"dog": 1, "2": 1}
    assert list(found[:0]) == []
    assert found[:0].count() == {}


def test_rows_by_number_mask_and_array(found):
    assert found[1].class_names == found[-1].class_names == found[torch.tensor([False, True])].class_names == ("2",)
    assert found[found.scores > 0.6].class_names == ("dog",)
    assert found[np.array([True, False])].boxes.tolist() == [[10, 20, 30, 60]]
    assert found[[1, 0]].labels.tolist() == [2, 1]
    with pytest.raises(IndexError, match="no detection 2: there are 2"):
        found[2]


def test_numpy(found):
    boxes, scores, labels, levels = found.numpy()
    assert isinstance(boxes, np.ndarray)
    assert (boxes.tolist(), scores.tolist()) == ([[10, 20, 30, 60], [0, 0, 100, 80]], [0.75, 0.5])
    assert (labels.tolist(), levels.tolist()) == ([1, 2], [0, 2])
    assert found[:0].numpy().boxes.shape == (0, 4)


def test_crops_are_whole_pixels_within_the_image():
    image = torch.arange(80 * 100).reshape(1, 80, 100).expand(3, -1, -1)
    boxes = torch.tensor([[10.4, 20.0, 30.2, 60.0], [-5.0, 70.5, 4.0, 99.0], [120.0, 90.0, 130.0, 95.0]])
    rows = torch.zeros(3)
    crops = Detections(boxes, rows, rows.long(), rows.long(), image_size=(80, 100)).crop(image)
    assert [tuple(crop.shape) for crop in crops] == [(3, 40, 21), (3, 10, 4), (3, 1, 1)]
    assert crops[0][0, 0, 0] == 20 * 100 + 10
    wide = Detections(boxes, rows, rows.long(), rows.long(), image_size=(80, 100)).crop(image, margin=0.5)
    assert tuple(wide[0].shape) == (3, 80, 41)


def test_without_pixels_nothing_is_cut(found):
    bare = replace(found, image=None)
    for use in (bare.crop, bare.draw):
        with pytest.raises(PyrafuseError, match="predict with keep_images=True"):
            use()


def test_a_notebook_shows_picture_and_table(found):
    shown = found._repr_html_()
    assert "<td>dog</td><td>0.750</td><td>10, 20, 30, 60</td>" in shown
    encoded = shown.partition("base64,")[2].partition('"')[0]
    assert Image.open(BytesIO(base64.b64decode(encoded))).size == (100, 80)
    assert "<img" not in replace(found, image=None)._repr_html_()
    assert "and 5 more" in replace(found, image=None)[[0] * 25]._repr_html_()
    assert repr(found) == "<2 detections: 1 dog, 1 2 in a.jpg>"


def test_a_hostile_name_is_harmless_in_a_notebook(found):
    hostile = replace(found, names=("x", "<script>alert(1)</script>\x1b[2J\u202e"), source="<b>\n")
    shown = hostile._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[2J\\u202e" in shown
    assert "<b>" not in shown
    assert "\n" not in repr(hostile)
