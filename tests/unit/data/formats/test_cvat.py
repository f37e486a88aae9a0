"""CVAT's XML, of images and of videos."""

import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.layout import read_split, read_splits

META = """<version>1.1</version><meta><task><id>7</id><size>9</size><mode>{mode}</mode><start_frame>0</start_frame>
<stop_frame>8</stop_frame><frame_filter>{filter}</frame_filter><labels>
<label><name>dog</name><type>any</type><attributes/></label><label><name>cat</name><type>rectangle</type></label>
<label><name>indoors</name><type>tag</type></label><label><name>body</name><type>skeleton</type></label>
<label><name>nose</name><type>points</type><parent>body</parent></label></labels></task></meta>"""


def document(inside, mode="annotation", step=""):
    head = '<?xml version="1.0" encoding="utf-8"?>'
    return f"{head}\n<annotations>{META.format(mode=mode, filter=step)}{inside}</annotations>"


def test_every_shape_of_images(tmp_path, write_image):
    write_image(tmp_path / "images" / "a.png", 100, 80)
    write_image(tmp_path / "images" / "b.png", 100, 80)
    (tmp_path / "annotations.xml").write_text(
        document(
            '<image id="3" name="a.png" width="100" height="80">'
            '<box label="cat" source="manual" occluded="0" xtl="10.5" ytl="20" xbr="30" ybr="40.25" z_order="0">'
            '<attribute name="age">old</attribute></box>'
            '<box label="dog" occluded="0" xtl="40" ytl="30" xbr="60" ybr="40" rotation="90.0" z_order="0"></box>'
            '<polygon label="dog" occluded="0" points="1.00,2.00;9.00,2.00;5.00,30.00" z_order="0"></polygon>'
            '<ellipse label="cat" cx="70" cy="50" rx="10" ry="5" z_order="0"></ellipse>'
            '<mask label="dog" rle="3, 5" left="50" top="60" width="4" height="2" z_order="0"></mask>'
            '<cuboid label="cat" xtl1="80" ytl1="10" xbl1="80" ybl1="20" xtr1="90" ytr1="12" xbr1="91" ybr1="22"/>'
            '<points label="nose" points="1,2"></points><polyline label="dog" points="1,2;3,4"></polyline>'
            '<tag label="indoors"></tag></image><image id="4" name="b.png" width="100" height="80"></image>'
        )
    )
    reading = read_split(tmp_path, "")
    assert reading.data.names == ("dog", "cat", "body")
    first, second = reading.data.records
    assert first.boxes.tolist() == [
        [10.5, 20, 30, 40.25], [45, 25, 55, 45], [1, 2, 9, 30], [60, 45, 80, 55], [50, 60, 54, 62], [80, 10, 91, 22],
    ]  # fmt: skip
    assert first.labels.tolist() == [1, 0, 0, 1, 0, 1]
    assert (second.path, len(second.labels)) == (tmp_path / "images" / "b.png", 0)
    told = {problem.kind: problem.message for problem in reading.problems}
    assert told["annotations without a box"] == "1 points, 1 polyline"
    assert "1 of 6 boxes are rotated" in told["rotated boxes"]
    assert set(told) == {"annotations without a box", "rotated boxes", "outlines"}
    assert reading.unkept == {
        "attributes of objects": 1, "rotated boxes": 1, "outlines": 4, "tags of images": 1,
    }  # fmt: skip


def test_subsets_of_a_project_are_splits(tmp_path, write_image):
    for folder in ("Train", "Validation"):
        write_image(tmp_path / "images" / folder / "0.png", 100, 80, seed=len(folder))
    box = '<box label="{}" xtl="{}" ytl="1" xbr="30" ybr="40"/>'
    (tmp_path / "annotations.xml").write_text(
        document(
            f'<image id="0" name="0.png" subset="Train" width="100" height="80">{box.format("cat", 5)}</image>'
            f'<image id="0" name="0.png" subset="Validation" width="100" height="80">{box.format("dog", 6)}</image>'
        )
    )
    splits = read_splits(tmp_path)
    assert splits.finding.startswith("CVAT XML: 1 training and 1 validation images, 3 classes: dog, cat, body")
    assert [record.path.parent.name for record in (*splits.train.records, *splits.val.records)] == [
        "Train",
        "Validation",
    ]
    assert splits.val.records[0].boxes.tolist() == [[6, 1, 30, 40]]
    assert splits.problems == ()


TRACK = (
    '<track id="0" label="cat"><box frame="0" outside="0" keyframe="1" xtl="10" ytl="10" xbr="20" ybr="20"/>'
    '<box frame="4" outside="0" occluded="0" keyframe="1" xtl="50" ytl="30" xbr="60" ybr="40"/>'
    '<box frame="6" outside="1" occluded="0" keyframe="1" xtl="50" ytl="30" xbr="60" ybr="40"/></track>'
)


def test_tracks_are_boxes_of_frames(tmp_path, write_image):
    for frame in range(0, 10, 2):
        write_image(tmp_path / "images" / f"frame_{frame:06d}.PNG", 100, 80)
    (tmp_path / "annotations.xml").write_text(document(TRACK, "interpolation", "step=2"))
    reading = read_split(tmp_path / "annotations.xml", "")
    boxes = {record.path.stem: record.boxes.tolist() for record in reading.data.records}
    assert boxes == {
        "frame_000000": [[10, 10, 20, 20]],
        "frame_000002": [[30, 20, 40, 30]],  # half of the way
        "frame_000004": [[50, 30, 60, 40]],
        "frame_000006": [],
        "frame_000008": [],
    }
    (note,) = reading.problems
    assert (note.severity, note.kind) == ("note", "boxes between the frames of a track")
    assert note.message == "1 boxes of frames that a track leaves out"
    assert reading.unkept == {"tracks": 1}


def test_frames_without_pictures_are_missing_images(tmp_path, write_image):
    write_image(tmp_path / "frame_000000.png", 100, 80)
    (tmp_path / "annotations.xml").write_text(document(TRACK, "interpolation"))
    kinds = [(p.kind, p.record) for p in read_split(tmp_path, "").problems if p.severity == "error"]
    assert kinds == [("missing image", f"image frame_00000{n}") for n in (1, 2, 3, 4, 5)]


def test_a_track_across_millions_of_frames_is_refused(tmp_path, write_image):
    write_image(tmp_path / "frame_000000.png", 100, 80)
    (tmp_path / "annotations.xml").write_text(
        document(TRACK.replace('frame="6"', 'frame="300000000"'), "interpolation")
    )
    with pytest.raises(DataError, match="comes a box of frame 300000000, and more than 1,000,000 boxes would lie"):
        read_split(tmp_path, "")


def test_tracks_of_two_tasks_are_refused(tmp_path, write_image):
    write_image(tmp_path / "frame_000000.png")
    two = TRACK.replace("<track", '<track task_id="1"') + TRACK.replace("<track", '<track task_id="2"')
    (tmp_path / "annotations.xml").write_text(document(two, "interpolation"))
    with pytest.raises(DataError, match="tracks of 2 tasks, whose frames have the same numbers; export each task"):
        read_splits(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations><version>1.1</version><image", "is no complete XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations><version>&b;</version></annotations>', "delete <!DOCTYPE"),
        ("<annotations><version>" + "<a>" * 200, "more than 100 elements lie within one another"),
    ],
)
def test_damaged_and_hostile_files(tmp_path, write_image, text, message):
    write_image(tmp_path / "a.png")
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_splits(tmp_path)


def test_an_unknown_label_is_told_with_its_place(tmp_path, write_image):
    write_image(tmp_path / "a.png", 100, 80)
    (tmp_path / "annotations.xml").write_text(
        document('<image id="0" name="a.png"><box label="Cat" xtl="1" ytl="1" xbr="9" ybr="9"/>'
                 '<box label="cat" xtl="x" ytl="1" xbr="9" ybr="9"/></image>')
    )  # fmt: skip
    unknown, no_number = read_split(tmp_path, "").problems
    assert (unknown.kind, unknown.record) == ("unknown class", "box 0 of image 0")
    assert "did you mean 'cat' for 'Cat'?" in unknown.message
    assert (no_number.kind, no_number.record) == ("box that is no number", "box 1 of image 0 of a.png")
