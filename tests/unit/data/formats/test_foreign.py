"""Other tools' files are named for what they are, and never taken for COCO, VOC or YOLO."""

import json
import shutil

import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.foreign import recognise
from pyrafuse.data.formats.layout import read_splits

LABEL_STUDIO = [
    {
        "id": 0,
        "annotations": [{"id": 0, "result": [{"type": "rectanglelabels", "value": {"x": 1, "rotation": 0}}]}],
        "data": {"image": "/data/upload/1/0.jpg"},
    }
]
CREATE_ML = [{"image": "0.png", "annotations": [{"label": "cat", "coordinates": {"x": 9, "y": 9, "width": 5}}]}]
LABEL_ME = {"version": "5.0", "shapes": [{"label": "cat", "points": [[1, 2], [30, 40]]}], "imagePath": "0.png"}
VIA = {"_via_settings": {}, "_via_img_metadata": {"0.png1": {"filename": "0.png", "regions": []}}}
VIA_ANNOTATIONS = {"0.png1": {"filename": "0.png", "size": 1, "regions": [{"shape_attributes": {"name": "rect"}}]}}
DATUMARO = {"info": {}, "categories": {"label": {"labels": []}}, "items": [{"id": "0", "annotations": [{"id": 1}]}]}
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
SUPERVISELY = {"size": {"height": 9}, "objects": [{"classTitle": "cat", "points": {"exterior": [[1, 2], [3, 4]]}}]}

FILES = [
    ("via.json", json.dumps(VIA), "VIA's own JSON", "COCO format"),
    ("via.json", json.dumps(VIA_ANNOTATIONS), "VIA's own JSON", "COCO format"),
    ("a.createml.json", json.dumps(CREATE_ML), "CreateML JSON", "export COCO"),
    ("default.json", json.dumps(DATUMARO), "Datumaro's JSON", "datum convert -f coco"),
    ("results.json", json.dumps(RESULTS), "COCO results and no annotations", "annotation file"),
    ("0.png.json", json.dumps(SUPERVISELY), "Supervisely's JSON", "COCO"),
    ("labels.json", json.dumps([{"name": "a", "labels": [{"box2d": {"x1": 1}}]}]), "BDD100K's", "to_coco"),
    ("a.ndjson", json.dumps({"data_row": {"id": 1}}), "a Labelbox export", "COCO"),
    ("a.csv", "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes\n", "VIA's", "COCO"),
    ("train.tfrecord", "x", "TFRecords", "COCO JSON"),
    ("out.manifest", '{"source-ref": "s3://0.png"}', "SageMaker", "COCO"),
    ("a.csv", 'image_id,width,height,bbox,source\nb6,9,9,"[1.0, 2.0, 3.0, 4.0]",x\n', "a CSV with boxes", "filename"),
    ("gt.txt", "00000.ppm;774;411;815;446;11\n", "semicolons", "YOLO lines"),
    ("gt.txt", "1,1,912,484,97,109,0,7,1\n", "MOT Challenge", "COCO"),
    ("labels.json", json.dumps({"labels": {"0": [{"bounding_box": [0.1, 0.2, 0.3, 0.4]}]}}), "FiftyOne", "COCO"),
    ("export.zip", "PK", "packed files", "unpack it"),
    ("Label/0.txt", "Adhesive tape 110.000000 48.000000 140.000000 88.000000\n", "OIDv4", "YOLO lines"),
    ("label_2/0.txt", "Car 0.00 0 -1.57 599.41 156.40 629.75 189.25 2.85 2.63 12.34 0.47 1.49 69.44 -1.56\n", "KITTI",
     "datum"),
    ("labelTxt/0.txt", "2753.0 2408.0 2861.0 2385.0 2888.0 2468.0 2805.0 2502.0 plane 0\n", "DOTA", "YOLO OBB"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "kind", "remedy"), FILES, ids=lambda value: str(value)[:24])
def test_files_of_other_tools_are_named(tmp_path, write_image, name, text, kind, remedy):
    write_image(tmp_path / "0.png")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    sentence = recognise(path)
    assert sentence is not None
    assert kind in sentence
    assert remedy in sentence
    with pytest.raises(DataError) as raised:
        read_splits(tmp_path)
    assert f"{path} {sentence}" in str(raised.value)
    with pytest.raises(DataError) as raised:
        read_splits(path)
    assert str(raised.value) == f"{path} {sentence}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("0.txt", "0 0.5 0.5 0.1 0.2\n"), ("0.txt", ""), ("notes.txt", "taken on 3 May\n"), ("0.txt", "\0\xff"),
        ("a.xml", "<annotation><object/></annotation>"), ("a.csv", "time,value\n1,2\n"), ("a.json", "{}"),
        ("a.json", "[]"), ("a.json", '{"images": [], "annotations": [], "categories": []}'), ("a.png", "x"),
        ("classes.txt", "cat\ndog\n"), ("train.txt", "images/a 1.png\n"),
        ("0.txt", "0 0.1 0.2 0.5 0.25 0.45 0.75 0.05 0.5"),
    ],
)  # fmt: skip
def test_other_files_are_not(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert recognise(tmp_path / name) is None
    assert recognise(tmp_path / "nothing.json") is None


@pytest.mark.parametrize("other", [LABEL_STUDIO, CREATE_ML, LABEL_ME, VIA, DATUMARO, RESULTS, {"images": [{"a": 1}]}])
@pytest.mark.parametrize("name", ["a.json", "z.json"])
def test_a_second_json_beside_coco_does_not_disturb(tmp_path, write_image, write_coco, other, name):
    for i in range(3):
        write_image(tmp_path / f"{i}.png")
    write_coco(tmp_path / "result.json", [(i, f"{i}.png", 100, 80) for i in range(3)], [(1, 1, [1, 1, 30, 30])])
    alone = read_splits(tmp_path)
    (tmp_path / name).write_text(json.dumps(other))
    splits = read_splits(tmp_path)
    assert (splits.finding, splits.problems) == (alone.finding, alone.problems)


def test_two_coco_files_are_still_refused(tmp_path, write_image, write_coco):
    write_image(tmp_path / "0.png")
    path = write_coco(tmp_path / "a.json", [(0, "0.png", 100, 80)], [(0, 1, [1, 1, 30, 30])])
    shutil.copy(path, tmp_path / "b.json")
    with pytest.raises(DataError, match="2 COCO files for the split without a name"):
        read_splits(tmp_path)


def test_labels_of_another_tool_beside_the_images(tmp_path, write_image):
    for i in range(2):
        write_image(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("Adhesive tape 10 20 30 40\n")
    with pytest.raises(DataError, match="OIDv4 ToolKit"):
        read_splits(tmp_path)


def test_a_known_file_is_named_before_an_archive(tmp_path, write_image):
    write_image(tmp_path / "0.png")
    (tmp_path / "a.zip").write_text("PK")
    (tmp_path / "via.json").write_text(json.dumps(VIA))
    with pytest.raises(DataError, match="VIA's own JSON"):
        read_splits(tmp_path)
