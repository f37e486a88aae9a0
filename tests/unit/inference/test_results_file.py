"""Files of COCO results: matched by ids, what is passed over is counted, what cannot be a detection is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from coco_cases import data_of, random_case, record
from pyrafuse.base.errors import DataError
from pyrafuse.evaluation.coco import CocoEvaluator, to_coco_results
from pyrafuse.inference.results_file import read_results

BOX = [10, 10, 40, 40]


def data(*ids, category_ids=(3, 7)):
    made = data_of([record([BOX], [0], image_id=i) for i in ids or (5, 9)], ["cat", "dog"])
    return replace(made, category_ids=category_ids)


def row(**changes):
    return {"image_id": 5, "category_id": 3, "bbox": [10, 10, 30, 30], "score": 0.5, **changes}


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "found.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_what_an_evaluator_wrote_is_judged_alike(file):
    cases, detections = random_case(2)
    evaluator = CocoEvaluator(cases)
    evaluator.update(range(len(detections)), detections)
    read = read_results(file(to_coco_results(evaluator)), cases)
    assert read.notes == ()
    np.testing.assert_allclose(read.evaluator.rows()[:, :7], evaluator.rows()[:, :7], rtol=0, atol=1e-9)
    assert (read.evaluator.rows()[:, 7] == -1).all()
    assert read.evaluator.compute().figures() == pytest.approx(evaluator.compute().figures(), nan_ok=True)


def test_boxes_are_corners_from_then_on_and_ids_find_rows_and_labels(file):
    read = read_results(file([row(image_id=9, category_id=7, bbox=[1, 2, 3, 4.5], score=1)]), data())
    assert read.evaluator.rows().tolist() == [[1, 1, 2, 4, 6.5, 1, 1, -1]]


def test_ids_may_be_texts_and_whole_numbers_with_a_point(file):
    read = read_results(file([row(image_id="a", category_id="3"), row(image_id=5.0)]), data("a", 5))
    assert read.evaluator.rows()[:, 0].tolist() == [0, 1]


def test_what_is_of_other_images_and_classes_is_counted_with_the_first_record(file):
    rows = [row(), row(image_id=77), row(category_id=2), row(image_id=78, category_id=4), row(category_id=[1])]
    read = read_results(file(rows), data())
    assert len(read.evaluator.rows()) == 1
    images, classes, ids = read.notes
    assert "2 detections of images that the val split does not have, passed over; the first is record 2" in images
    assert images.endswith("with image_id 77")
    assert "2 detections of classes that the data do not have, passed over; the first is record 3" in classes
    assert ids.startswith("the data have the category ids 3 cat, 7 dog; the file has 2, 3, 4, None. Where both count")


def test_a_file_of_another_data_set_is_refused_with_the_ids_of_both(file):
    with pytest.raises(
        DataError, match=r"no detection .* is of an image and class of the val split.*image_id 1\b.*5, 9"
    ):
        read_results(file([row(image_id=1), row(image_id=2)]), data())
    with pytest.raises(DataError, match=r"category_id 1\b.*the category ids 3, 7"):
        read_results(file([row(category_id=1)]), data())


def test_records_of_predict_are_matched_by_the_name_of_the_file(file):
    rows = [row(image_id=0, file_name="images/9.jpg"), row(image_id=1, file_name="images/5.jpg")]
    read = read_results(file(rows), data())
    assert read.evaluator.rows()[:, 0].tolist() == [0, 1]
    assert sorted(read.evaluator.rows()[:, 0]) == [0, 1]
    unknown = read_results(file([*rows, row(file_name="images/6.jpg")]), data())
    assert unknown.notes[0].endswith("the first is record 3 with file_name 'images/6.jpg'")


def test_records_with_the_names_of_their_classes_are_matched_by_them(file):
    rows = [row(category_id=7, category_name="cat"), row(category_id=3, category_name="dog")]
    read = read_results(file([*rows, row(category_name="bird")]), data())
    assert read.evaluator.rows()[:, 6].tolist() == [0, 1]
    absent, shifted = read.notes
    assert "1 detection of classes that the data do not have" in absent
    assert absent.endswith("the first is record 3 with category_name 'bird'")
    assert "2 detections with a category_id of another name in the data; the first is record 1: 7 is 'cat'" in shifted
    assert shifted.endswith("'dog' in the data. category_name decides")
    right = [row(category_name="cat"), row(category_id=7, category_name="dog")]
    assert read_results(file(right), data()).notes == ()


@pytest.mark.parametrize(
    ("name", "told"), [("kitten", "3 is 'kitten' in the file and 'cat' in the data. category_id decides"), (5, "")]
)
def test_ids_decide_where_the_data_have_no_class_of_that_name(file, name, told):
    read = read_results(file([row(category_name=name), row(category_id=7)]), data())
    assert read.evaluator.rows()[:, 6].tolist() == [0, 1]
    assert "".join(read.notes).endswith(told)
    assert bool(read.notes) == bool(told)


def test_low_scores_can_be_left_out(file):
    rows = file([row(score=0.2), row(score=0.7), row(image_id=9, score=0.4)])
    assert read_results(rows, data(), score=0.4).evaluator.rows()[:, 5].tolist() == [0.7, 0.4]
    assert read_results(rows, data(), max_detections=7).evaluator.max_detections == 7


def test_no_detection_at_all_is_an_ap_of_nothing(file):
    read = read_results(file([]), data())
    assert "holds no detection" in read.notes[0]
    result = read.evaluator.compute()
    assert (result.ap, result.num_detections, result.classes[0].best.f1) == pytest.approx(
        (0, 0, float("nan")), nan_ok=True
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("{", "is no complete JSON"),
        ("found: nothing", "is no complete JSON"),
        ("[" * 200_000 + "]" * 200_000, "nests lists or objects too deep"),
        ({"images": [], "annotations": []}, "holds an object with images, annotations, and no list of results"),
        ("3", "holds 3, and no list of results"),
        ([row(), 5], "record 2 is no object: 5"),
        ([{key: value for key, value in row().items() if key != "score"}], "record 1 is without score"),
        ([row(bbox=[1, 2, 3])], r"record 1: bbox \[1, 2, 3\] and score 0.5; a box is four numbers"),
        ([row(bbox={"x": 1})], "record 1: bbox"),
        ([row(), row(bbox=[1, 2, "3", 4])], "record 2: bbox"),
        ([row(score=None)], "record 1: .* and score None"),
        ([row(score=True)], "record 1: .* and score True"),
        ("[" + json.dumps(row()).replace("0.5", "NaN") + "]", "score nan: values are not finite.*1 such record"),
        ([row(), row(bbox=[0, 0, float("inf"), 1])], "record 2: .*values are not finite"),
        ("[" + json.dumps(row()).replace("30", "1" + "0" * 400, 1) + "]", "whole number that no coordinate can be"),
        ([row(bbox=[1e9, 0, 1, 1])], "record 1: .*no image has more than 1e.07 pixels"),
        ([row(), row(bbox=[9, 9, -3, 4]), row(bbox=[9, 9, 3, -4])], r"record 2: .*negative.*\(2 such records\)"),
        ([row(score=87.5)], "record 1: .*score 87.5: a score lies in 0..1; divide percents by 100"),
    ],
)  # fmt: skip
def test_what_cannot_be_detections_is_refused_with_the_record(file, content, message):
    with pytest.raises(DataError, match=message):
        read_results(file(content), data())


def test_boxes_that_no_detector_finds_count_as_they_are_and_are_told(file):
    empty, far = read_results(
        file([row(), row(bbox=[10, 10, 0, 5]), row(bbox=[150, 150, 190, 190]), row(bbox=[180, 10, 190, 20])]), data()
    ).notes
    assert "1 box without area; the first is record 2. They count as false detections" in empty
    assert "2 boxes that reach far beyond their image; the first is record 3" in far
    assert far.endswith("are these corners, x1, y1, x2, y2, in place of x, y, width, height?")


def test_data_without_objects_are_refused_before_the_file_is_read(file):
    with pytest.raises(DataError, match="none of the 1 images has an annotated object"):
        read_results(file("no JSON"), data_of([record([], [])], ["cat"]))
    with pytest.raises(DataError, match="all 1 objects are crowds"):
        read_results(file("no JSON"), data_of([record([BOX], [0], crowd=[True])], ["cat"]))


def test_a_folder_of_results_is_read_as_one_file(tmp_path):
    for number, image_id in enumerate((7, 9)):
        rows = [row(image_id=image_id, category_id=7, bbox=[1, 2, 3, 4], score=0.5)]
        (tmp_path / f"{number}.json").write_text(json.dumps(rows))
    assert len(read_results(tmp_path, data(7, 9)).evaluator.rows()) == 2
    (tmp_path / "2.json").write_text("{}")
    with pytest.raises(DataError, match=r"2\.json holds an object with"):
        read_results(tmp_path, data(7, 9))
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"none is a folder without \.json: name a file of results"):
        read_results(tmp_path / "none", data())
