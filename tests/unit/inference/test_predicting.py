import json
import tracemalloc
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base import first_of
from pyrafuse.base.card import Card
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.images.reading import read_size
from pyrafuse.base.images.sources import Frame, Source, open_source
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.inference.predicting import predict_to
from pyrafuse.inference.writers.registry import RECORD_FILE, WRITERS, Destination, Finding, create_writers

NAMES = ("cat", "dog")


class BoxOfBrightness:
    """Finds in each frame one dog, left upper quarter, whose score is the brightness of the first pixel."""

    card = Card(names=NAMES, category_ids=(3, 17))

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.asked: dict[str, object] = {}

    def predict_frames(self, frames, *, batch_size=1, **asked):
        self.asked = asked
        readable = (frame for frame in frames if frame.image is not None)
        while batch := list(islice(readable, batch_size)):
            self.batches.append(len(batch))
            for frame in batch:
                height, width, _ = frame.image.shape
                yield Detections(
                    boxes=torch.tensor([[0.0, 0.0, width / 2, height / 2]]),
                    scores=torch.tensor([float(frame.image[0, 0, 0]) / 255]),
                    labels=torch.tensor([1]),
                    levels=torch.tensor([0]),
                    names=NAMES,
                    image_size=(height, width),
                    source=frame.name,
                    image=torch.from_numpy(frame.image).permute(2, 0, 1),
                )


def write_image(path: Path, level: int, size: tuple[int, int] = (200, 120)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Three images in two folders, and one that is none."""
    root = tmp_path / "photos"
    write_image(root / "2.png", 255)
    write_image(root / "10.png", 51)
    write_image(root / "far" / "2.png", 102)
    (root / "3.jpg").write_bytes(b"no image")
    return root


def files_below(path: Path) -> list[str]:
    files = (p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    return sorted(file for file in files if file != RECORD_FILE)


def write_record(folder: Path) -> None:
    """Say that all that is in ``folder`` was written by an earlier prediction."""
    (folder / RECORD_FILE).write_text("".join(f"{json.dumps(name)}\n" for name in files_below(folder)))


def test_a_folder_in_every_format(folder, tmp_path):
    detector = BoxOfBrightness()
    output = tmp_path / "out"
    summary = predict_to(
        detector,
        folder,
        output,
        formats=("image", "json", "coco", "yolo", "json"),
        score=0.1,
        nms_iou=0.6,
        max_detections=7,
        batch=2,
    )
    assert detector.batches == [2, 1]
    assert detector.asked == {
        "score_threshold": 0.1,
        "nms_iou": 0.6,
        "max_detections": 7,
        "labels": (),
        "preprocessing": Preprocessing(),
        "keep_images": True,
    }
    assert (summary.num_images, summary.num_objects, summary.num_failed) == (3, 3, 1)
    assert summary.failures[0].source == str(folder / "3.jpg")
    assert "3.jpg is no image" in summary.failures[0].reason
    assert files_below(output) == [
        "coco_results.json",
        "images/10.jpg",
        "images/2.jpg",
        "images/far/2.jpg",
        "labels/10.txt",
        "labels/2.txt",
        "labels/far/2.txt",
        "predictions.json",
    ]
    assert (output / "labels/far/2.txt").read_text() == "1 0.250000 0.250000 0.500000 0.500000 0.400000\n"

    images = json.loads((output / "predictions.json").read_text())["images"]
    assert [Path(i["source"]).relative_to(folder).as_posix() for i in images] == ["2.png", "10.png", "far/2.png"]
    assert images[1]["objects"] == [
        {"label": 1, "name": "dog", "score": pytest.approx(0.2), "box_xyxy": [0.0, 0.0, 100.0, 60.0], "level": 0}
    ]

    drawn = np.asarray(Image.open(output / "images/10.jpg"))
    assert drawn.shape == (120, 200, 3)
    np.testing.assert_allclose(drawn[110, 180], (51, 51, 51), atol=4)  # outside the box: the image itself
    assert np.abs(drawn[60, 80].astype(int) - 51).max() > 40  # its lower edge


def test_coco_results_use_the_names_numbers_when_all_are_numbers(tmp_path):
    for name, level in (("000000397133.png", 51), ("000000000139.png", 102)):
        write_image(tmp_path / "in" / name, level)
    predict_to(BoxOfBrightness(), tmp_path / "in", tmp_path / "out", formats=("coco",))
    rows = json.loads((tmp_path / "out/coco_results.json").read_text())
    assert [(r["image_id"], r["category_id"], r["category_name"], r["bbox"]) for r in rows] == [
        (139, 17, "dog", [0.0, 0.0, 100.0, 60.0]),
        (397133, 17, "dog", [0.0, 0.0, 100.0, 60.0]),
    ]


def test_coco_results_have_the_category_ids_that_training_data_had(tmp_path):
    detector = BoxOfBrightness()
    detector.card = Card(names=NAMES, category_ids=("01", "white cell"))
    predict_to(detector, write_image(tmp_path / "a.png", 51), tmp_path / "out", formats=("coco",))
    (row,) = json.loads((tmp_path / "out/coco_results.json").read_text())
    assert row["category_id"] == "white cell"


def test_coco_results_count_the_images_otherwise_faulty_ones_too(folder, tmp_path):
    predict_to(BoxOfBrightness(), folder, tmp_path / "out", formats=("coco",))
    rows = json.loads((tmp_path / "out/coco_results.json").read_text())
    assert [(r["image_id"], Path(r["file_name"]).name) for r in rows] == [(0, "2.png"), (2, "10.png"), (3, "2.png")]


def test_equal_names_do_not_replace_each_other(tmp_path):
    paths = [write_image(tmp_path / name, 51) for name in ("a/x.png", "b/x.png", "c/x.jpg")]
    predict_to(BoxOfBrightness(), paths, tmp_path / "out", formats=("image", "yolo"))
    assert files_below(tmp_path / "out") == [
        "images/x-2.jpg",
        "images/x-3.jpg",
        "images/x.jpg",
        "labels/x-2.txt",
        "labels/x-3.txt",
        "labels/x.txt",
    ]


def test_results_never_land_among_the_inputs(tmp_path):
    path = write_image(tmp_path / "out/images/x.jpg", 51)
    before = path.read_bytes()
    with pytest.raises(
        PyrafuseError, match=r"images/x.jpg is there already, and no earlier prediction wrote it: choose"
    ):
        predict_to(BoxOfBrightness(), tmp_path / "out/images", tmp_path / "out")
    write_record(tmp_path / "out")
    with pytest.raises(PyrafuseError, match="would lie among the images they are of; choose another output"):
        predict_to(BoxOfBrightness(), tmp_path / "out/images", tmp_path / "out")
    predict_to(BoxOfBrightness(), tmp_path / "out/images", tmp_path / "out", formats=("yolo",))
    assert files_below(tmp_path / "out") == ["images/x.jpg", "labels/x.txt"]
    assert path.read_bytes() == before


def test_an_earlier_prediction_gives_way_and_files_of_others_stay(tmp_path):
    for name in ("a/1.jpg", "2.jpg"):
        write_image(tmp_path / "one" / name, 51)
    write_image(tmp_path / "two" / "2.jpg", 102)
    out = tmp_path / "out"
    everything = ("image", "json", "coco", "yolo", "crop")
    predict_to(BoxOfBrightness(), tmp_path / "one", out, formats=everything)
    assert len(files_below(out)) == 2 + 3 * 2
    (out / "notes.txt").write_text("mine")
    predict_to(BoxOfBrightness(), tmp_path / "two", out, formats=("json", "yolo"))
    assert files_below(out) == ["labels/2.txt", "notes.txt", "predictions.json"]
    assert sorted(path.name for path in out.iterdir()) == [RECORD_FILE, "labels", "notes.txt", "predictions.json"]
    (image,) = json.loads((out / "predictions.json").read_text())["images"]
    assert image["source"] == str(tmp_path / "two/2.jpg")
    for name in ("coco_results.json", "labels/more/mine.txt"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
        with pytest.raises(PyrafuseError, match=f"{name} is there already, and no earlier prediction wrote it"):
            predict_to(BoxOfBrightness(), tmp_path / "two", out, formats=everything)
        (out / name).unlink()


def test_a_record_that_leads_elsewhere_removes_nothing(tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / "linked").symlink_to(tmp_path)
    names = ["../precious.txt", str(precious), "linked/precious.txt", 7, None, "", "a\0b"]
    (out / RECORD_FILE).write_text("".join(f"{json.dumps(name)}\n" for name in names) + '"cut of')
    source = write_image(tmp_path / "a.jpg", 51)
    predict_to(BoxOfBrightness(), source, out, formats=("yolo",))
    predict_to(BoxOfBrightness(), source, out, formats=("yolo",))
    assert precious.read_text() == "mine"
    assert (out / RECORD_FILE).read_text() == '"labels/a.txt"\n'


def test_of_a_camera_the_first_failures_and_notes_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(first_of, "MOST", 2)
    pixels = np.full((8, 8, 3), 51, np.uint8)
    faults = [Frame(f"camera0#{n}", None, f"frame {n} cannot be decoded", fps=25.0) for n in range(4)]
    frames = [Frame(f"camera0#{4 + n}", pixels, fps=25.0, notes=("the first page",)) for n in range(3)]
    source = Source(lambda: iter([*faults, *frames]), None, is_stream=True)
    summary = predict_to(BoxOfBrightness(), source, tmp_path / "out", formats=("json",))
    assert [failure.source for failure in summary.failures] == ["camera0#0", "camera0#1"]
    assert (summary.num_images, summary.num_failed) == (3, 4)
    assert summary.notes == ("camera0#4: the first page", "camera0#5: the first page")


def test_memory_does_not_grow_with_what_is_found(tmp_path):
    boxes = np.tile(np.array([[1.25, 2.5, 30.125, 40.0]], np.float32), (100, 1))
    labels = np.zeros(100, np.int64)
    found = Detections(boxes, np.full(100, 0.5, np.float32), labels, labels, NAMES, (48, 64), "camera0#7")
    destination = Destination(tmp_path)
    writers = create_writers(("json", "coco"), destination)
    tracemalloc.start()
    with destination.record, writers[0], writers[1]:
        for index in range(50):
            for writer in writers:
                writer.write(Finding(found, index))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 400_000
    assert [path.stat().st_size > 600_000 for path in tmp_path.glob("*.json")] == [True, True]
    text = (tmp_path / "predictions.json").read_text()
    assert text == json.dumps({"images": [found.to_dict()] * 50}, indent=1)
    rows = json.loads((tmp_path / "coco_results.json").read_text())
    assert [row["image_id"] for row in rows] == [index for index in range(50) for _ in range(100)]
    assert (tmp_path / "coco_results.json").read_text() == json.dumps(rows, indent=1)


def test_a_video_becomes_a_drawn_video(tmp_path):
    video = tmp_path / "in" / "clip.mp4"
    video.parent.mkdir()
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, (64, 48))
    for level in (40, 80, 120, 160, 200):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    write_image(tmp_path / "in" / "b.png", 51)

    source = open_source(tmp_path / "in", stride=2)
    summary = predict_to(BoxOfBrightness(), source, tmp_path / "out", formats=("image", "yolo"), batch=4)
    assert (summary.num_images, summary.num_failed) == (4, 0)
    assert files_below(tmp_path / "out") == [
        "images/b.jpg",
        "labels/b.txt",
        "labels/clip_0.txt",
        "labels/clip_2.txt",
        "labels/clip_4.txt",
        "videos/clip.mp4",
    ]
    capture = cv2.VideoCapture(str(tmp_path / "out/videos/clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 6.0
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    capture.release()
    assert len(frames) == 3
    for frame, level in zip(frames, (40, 120, 200), strict=True):
        np.testing.assert_allclose(np.median(frame[30:, 40:]), level, atol=6)
        assert np.abs(frame[24, :28].astype(int) - level).max() > 30  # the box's lower edge


def test_files_of_every_kind_leave_a_picture_each(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(root / "upright.jpg", exif=turned)
    picture.convert("CMYK").save(root / "cmyk.jpg")
    for mode in ("L", "RGBA", "LA", "P", "1", "I;16"):
        Image.new(mode, (40, 30)).save(root / f"{mode.replace(';', '')}.png")
    for name, size in (("one", (1, 1)), ("wide", (20000, 10)), ("widest", (65501, 1)), ("tall", (2, 65501))):
        picture.resize(size).save(root / f"{name}.png")
    for name in ("with space", "海 ü", "new\nline", "#1", "[b]", "100%20", "a\udcff"):
        picture.save(root / f"{name}.jpg")
    for name, size in (("still", (40, 30)), ("pixel", (1, 1)), ("band", (9000, 3))):
        frames = [Image.new("RGB", size, color) for color in ("red", "lime", "blue")]
        frames[0].save(root / f"{name}.gif", save_all=True, append_images=frames[1:], duration=100)
    whole = (root / "upright.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "empty.png").touch()

    summary = predict_to(BoxOfBrightness(), root, tmp_path / "out", formats=("image", "json", "coco", "yolo"))
    assert sorted(Path(failure.source).name for failure in summary.failures) == ["cut.jpg", "empty.png"]
    stills = {p.stem for p in root.iterdir() if p.suffix in {".jpg", ".png"}} - {"cut", "empty"}
    drawn = {p.stem: p for p in (tmp_path / "out/images").iterdir()}
    assert set(drawn) == stills
    assert {name for name, p in drawn.items() if p.suffix == ".png"} == {"widest", "tall"}
    sizes = {name: read_size(p) for name, p in drawn.items()}  # height and width
    assert (sizes["upright"], sizes["one"], sizes["tall"]) == ((40, 30), (1, 1), (65501, 2))
    for name, size in (("still", (40, 30)), ("pixel", (2, 2)), ("band", (8190, 2))):  # of even sides
        capture = cv2.VideoCapture(str(tmp_path / f"out/videos/{name}.mp4"))
        facts = (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        assert tuple(int(capture.get(fact)) for fact in facts) == (3, *size)
        capture.release()
    assert len(list((tmp_path / "out/labels").iterdir())) == len(stills) + 9
    told = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert {Path(image["source"]).stem for image in told} >= stills


def test_arrays_are_named_by_their_rank(tmp_path):
    given = [np.full((20, 40, 3), 51, np.uint8), np.full((20, 40, 3), 102, np.uint8)]
    predict_to(BoxOfBrightness(), given, tmp_path / "out", formats=("yolo",))
    assert files_below(tmp_path / "out") == ["labels/image0.txt", "labels/image1.txt"]


@pytest.mark.parametrize("formats", [("image", "json"), ("coco", "yolo")])
def test_nothing_readable_leaves_what_was_there(tmp_path, formats):
    former = tmp_path / "out" / "predictions.json"
    write_image(former.parent / "images" / "a.jpg", 51)
    former.write_text("old")
    write_record(former.parent)
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"^/.*/a\.jpg is empty; remove or replace it$"):
        predict_to(BoxOfBrightness(), tmp_path / "a.jpg", former.parent, formats=formats)
    assert former.read_text() == "old"
    (tmp_path / "b.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"^none of 2 inputs can be read, the first: /.*/a\.jpg is empty"):
        predict_to(BoxOfBrightness(), [tmp_path / "a.jpg", tmp_path / "b.jpg"], former.parent, formats=formats)
    assert files_below(former.parent) == ["images/a.jpg", "predictions.json"]
    assert former.read_text() == "old"


def test_an_error_midway_leaves_no_half_results(tmp_path):
    def read():
        for number in range(3):
            yield Frame(f"clip.mp4#{number}", np.full((48, 64, 3), 51, np.uint8), fps=25.0)
        raise RuntimeError("the network fell over")

    (tmp_path / "predictions.json").write_text("old")
    write_record(tmp_path)
    with pytest.raises(RuntimeError, match="fell over"):
        predict_to(BoxOfBrightness(), Source(read, None), tmp_path, formats=("image", "json", "coco"))
    assert files_below(tmp_path) == ["predictions.json"]
    assert (tmp_path / "predictions.json").read_text() == "old"


@pytest.mark.parametrize("num_bytes", [10, 1000, 5000])
def test_a_full_disk_leaves_no_broken_video(tmp_path, full_disk, num_bytes):
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    former = tmp_path / "videos" / "clip.mp4"
    former.parent.mkdir()
    former.write_bytes(b"old")
    write_record(tmp_path)
    source = Source(lambda: (Frame(f"clip.mp4#{k}", noise, fps=25.0) for k in range(20)), 20)
    with full_disk(num_bytes), pytest.raises(PyrafuseError, match=r"cannot write .*videos/clip\.mp4: .*; free space"):
        predict_to(BoxOfBrightness(), source, tmp_path, formats=("image",))
    assert files_below(tmp_path) == ["videos/clip.mp4"]
    assert former.read_bytes() == b"old"


def test_a_stream_that_changes_its_size_is_written_whole(tmp_path):
    sizes = ((48, 64), (48, 64), (24, 32))
    frames = [Frame(f"camera0#{k}", np.full((*size, 3), 51, np.uint8), fps=25.0) for k, size in enumerate(sizes)]
    predict_to(BoxOfBrightness(), Source(lambda: iter(frames), 3), tmp_path)
    capture = cv2.VideoCapture(str(tmp_path / "videos/camera0.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert capture.get(cv2.CAP_PROP_FRAME_WIDTH) == 64


@pytest.mark.parametrize("is_stream", [True, False])
def test_an_interrupt_ends_a_camera_and_breaks_off_anything_else_but_nothing_is_lost(tmp_path, is_stream):
    def read():
        for number in range(3):
            yield Frame(f"camera0#{number}", np.full((20, 40, 3), 51, np.uint8), fps=25.0)
        raise KeyboardInterrupt

    source = Source(read, None, is_stream=is_stream)
    if is_stream:
        assert predict_to(BoxOfBrightness(), source, tmp_path).num_images == 3
    else:
        with pytest.raises(KeyboardInterrupt, match=r"holds the first 3$"):
            predict_to(BoxOfBrightness(), source, tmp_path)
    assert len(json.loads((tmp_path / "predictions.json").read_text())["images"]) == 3
    assert cv2.VideoCapture(str(tmp_path / "videos/camera0.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_an_interrupt_before_the_first_image_leaves_what_was_there(tmp_path):
    def read():
        raise KeyboardInterrupt
        yield

    for name in ("predictions.json", "coco_results.json"):
        (tmp_path / name).write_text("old")
    write_record(tmp_path)
    with pytest.raises(KeyboardInterrupt, match=r"^no image was finished$"):
        predict_to(BoxOfBrightness(), Source(read, 5), tmp_path, formats=("image", "json", "coco", "yolo"))
    assert {name: (tmp_path / name).read_text() for name in files_below(tmp_path)} == {
        "predictions.json": "old", "coco_results.json": "old",
    }  # fmt: skip


def test_progress_names_each_failure_on_standard_error(folder, tmp_path, capsys):
    predict_to(BoxOfBrightness(), folder, tmp_path / "out", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "passed over:" in err
    assert "4/4" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": 1.5}, r"score must be in 0\.\.1, got 1\.5"),
        ({"nms_iou": -1}, r"nms_iou must be in 0\.\.1, got -1"),
        ({"batch": 0}, "batch must be 1 or more, got 0"),
        ({"max_detections": 0}, "max_detections must be 1 or more, got 0"),
        ({"formats": ("png",)}, "unknown output format 'png'; choose from coco, crop, image, json, parquet, yolo"),
    ],
)
def test_a_setting_out_of_range(folder, tmp_path, options, message):
    with pytest.raises(PyrafuseError, match=message):
        predict_to(BoxOfBrightness(), folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_source(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        predict_to(BoxOfBrightness(), tmp_path / "none", tmp_path / "out")


HOSTILE = (
    "[/b]", "car [old]", "<script>alert(1)</script>", "a\nb\tc", "\x1b[31mred", "=cmd()", "../../up", "/root",
    "a\u202eb",    "bad\udcff", "x" * 300, "..", "CON", 'quo"te',
)  # fmt: skip


class Namer(BoxOfBrightness):
    """Finds in frame i one object of class i, of a hostile name."""

    card = Card(names=HOSTILE)

    def predict_frames(self, frames, **asked):
        for index, found in enumerate(super().predict_frames(frames, **asked)):
            yield replace(found, names=HOSTILE, labels=torch.tensor([index]))


def test_hostile_names_of_classes_stay_within_the_output(tmp_path):
    images = [write_image(tmp_path / "in" / f"{i}.png", 100) for i in range(len(HOSTILE))]
    summary = predict_to(Namer(), images, tmp_path / "out", formats=WRITERS.names())
    assert summary.num_images == len(HOSTILE)
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out"}
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [image["objects"][0]["name"] for image in content["images"]] == list(HOSTILE)
    crops = sorted((tmp_path / "out/crops").rglob("*.jpg"))
    assert len(crops) == len(HOSTILE)
    folders = {crop.relative_to(tmp_path / "out/crops").parts[0] for crop in crops}
    assert {"car [old]", "[_b]", "_script_alert(1)__script_", "a_b_c", "__[31mred"[1:], "class 11"} <= folders
    assert all(folder.isprintable() and len(folder) <= 80 for folder in folders)


def test_objects_are_cut_out_a_folder_a_class(folder, tmp_path):
    predict_to(BoxOfBrightness(), folder, tmp_path / "out", formats=("crop",))
    assert files_below(tmp_path / "out") == ["crops/dog/10.jpg", "crops/dog/2.jpg", "crops/dog/far/2.jpg"]
    assert read_size(tmp_path / "out/crops/dog/10.jpg") == (60, 100)


def test_a_wrong_class_or_size_is_refused_before_anything_is_written(folder, tmp_path):
    for options, message in (({"classes": ["cow"]}, "unknown class 'cow'"), ({"size": 8}, "size must be")):
        with pytest.raises(PyrafuseError, match=message):
            predict_to(BoxOfBrightness(), folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_was_decided_in_reading_and_what_was_passed_over_is_said(tmp_path, capsys):
    for name in ("a.png", "b.png"):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").touch()
    summary = predict_to(BoxOfBrightness(), tmp_path / "in", tmp_path / "out", formats=("json",), progress=True)
    said = "values up to 4095 in 16 bits: white is taken as 4095 (12 bits)"
    assert summary.notes == tuple(f"{tmp_path}/in/{name}: {said}" for name in ("a.png", "b.png"))
    err = capsys.readouterr().err
    assert f"{tmp_path}/in/a.png: {said}\n" in err
    assert "passed over: 1 .txt\n" in err
