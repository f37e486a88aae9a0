"""What the page of `pyrafuse app` shows, without a browser."""

import io
import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyrafuse.base.arrays import to_numpy
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.importers.loading import load
from pyrafuse.serving.limits import Limits
from pyrafuse.serving.page import detecting, trainings
from pyrafuse.serving.page.browsing import ALL, DataBrowser
from pyrafuse.serving.page.layout import write_table
from pyrafuse.serving.service import Service

CHECKPOINTS = Path(__file__).parents[2] / "fixtures" / "checkpoints" / "2026-11.zip"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    with zipfile.ZipFile(CHECKPOINTS) as files:
        return Path(files.extract("trained.ckpt", tmp_path_factory.mktemp("detector")))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", num_train=15, num_val=2, size=64)


@pytest.fixture(scope="module")
def service(checkpoint):
    service = Service({"trained": load(checkpoint)}, Limits(seconds=60))
    yield service
    service.close()


@pytest.fixture(scope="module")
def seen(service, shapes):
    path = sorted((shapes / "images").iterdir())[0]
    return detecting.look(service, "trained", str(path), read(path))


def read(path):
    return detecting.read_upload(str(path), max_bytes=10**6, max_pixels=10**6)


def test_what_is_shown_is_what_predict_finds(seen, checkpoint):
    pixels = read(seen.path)
    (expected,) = load(checkpoint).predict(pixels, score=0.3)
    assert len(expected) > 0
    assert len(seen.found) > len(expected)  # the slider may go further down
    np.testing.assert_allclose(to_numpy(seen.above(0.3).boxes), to_numpy(expected.boxes), atol=1e-3)
    rows = detecting.table(seen, 0.3)
    assert [row[0] for row in rows] == list(expected.class_names)
    assert rows[0][2] == f"stride {seen.strides[int(expected.levels[0])]}"
    assert detecting.tell(seen, 0.3).startswith(f"{len(expected)} detection")
    assert "0 detections of score 1.00 or more; the best has 0." in detecting.tell(seen, 1)
    assert np.array_equal(detecting.draw(seen, pixels, 1), pixels)
    assert not np.array_equal(detecting.draw(seen, pixels, 0.3), pixels)
    assert detecting.draw(seen, pixels, 0.3).shape == pixels.shape


def test_a_tab_keeps_no_pixels(seen):
    assert not any(isinstance(value, np.ndarray) for value in (*vars(seen).values(), seen.found.image))


def test_an_upload_that_was_deleted_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match=r"^old\.jpg is not kept any more: drop it again$"):
        read(tmp_path / "old.jpg")


def test_a_click_finds_the_smallest_box_around_it(seen):
    boxes = to_numpy(seen.found.boxes)
    x, y = (boxes[0, :2] + boxes[0, 2:]) / 2
    row = detecting.find_at(seen.found, x, y)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    around = ((boxes[:, :2] <= (x, y)) & (boxes[:, 2:] >= (x, y))).all(axis=1)
    assert around[row]
    assert areas[row] == areas[around].min()
    assert detecting.find_at(seen.found, -5, -5) is None


def test_the_clicked_object_alone_is_explained(service, seen):
    fusion, cams = detecting.explain(
        service, seen, read(seen.path), len(seen.found) - 1
    )  # not among the best, which have maps anyway
    assert cams is not None
    assert all(Image.open(io.BytesIO(png)).width > 300 for png in (fusion, cams))


@pytest.mark.parametrize(
    ("content", "limits", "said"),
    [
        (b"just a text", {}, r"photo\.jpg is no image that can be read"),
        (b"", {}, r"photo\.jpg is empty"),
        (None, {"max_bytes": 10}, "bytes; 10 are read at most"),
        (None, {"max_pixels": 10}, r"64 x 64 pixels, more than the 10 that"),
    ],
)
def test_uploads_that_cannot_be_read_get_a_sentence(content, limits, said, shapes, tmp_path):
    if content is None:
        content = sorted((shapes / "images").iterdir())[0].read_bytes()
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(DataError, match=said) as failed:
        detecting.read_upload(str(tmp_path / "photo.jpg"), **{"max_bytes": 10**6, "max_pixels": 10**6, **limits})
    assert str(tmp_path) not in str(failed.value)  # nobody elsewhere learns where files lie


def test_data_are_shown_by_class_and_fault(shapes, tmp_path):
    folder = shutil.copytree(shapes, tmp_path / "shapes")
    first, second = sorted((folder / "images").iterdir())[:2]
    shutil.copy(first, second)  # an image twice
    browser = DataBrowser(str(folder))
    train = browser.splits.train
    assert len(browser.choose("train")) == 15
    name = train.names[int(train.records[0].labels[0])]
    chosen = browser.choose("train", name)
    assert 0 < len(chosen) <= 15
    assert all(train.names.index(name) in record.labels for record in chosen)
    assert [len(browser.page(browser.choose("train"), number)) for number in (1, 2)] == [12, 3]
    assert (browser.is_checked, browser.faults()) == (False, [])
    browser.check()
    kind = next(kind for kind in browser.kinds() if "twice" in kind)
    assert {row[1] for row in browser.faults(kind)} == {kind}
    assert {second, first} & {record.path for record in browser.choose("train", ALL, kind)}
    assert len(browser.choose("train", ALL, kind)) <= 2


def test_trainings_are_told_with_their_state(tmp_path):
    def write(name, rows, *, results=None):
        run = tmp_path / name
        run.mkdir(parents=True)
        (run / "metrics.csv").write_text("epoch,train/loss,val/ap,val/ap50\n" + "\n".join(rows) + "\n")
        (run / "recipe.yaml").write_text("run: {epochs: 4}\ndata: {path: my_data}\n")
        if results:
            (run / "results.json").write_text(json.dumps(results))
        return run

    done = write("done", ["1,3,,", "2,2,0.5,0.7"], results={"ap": 0.5, "ap50": 0.7})
    stopped = write("search/stopped", ["1,3,0.1,0.2"])
    write("going", ["1,3,0.25,0.5", "2,2,,"])
    long_ago = time.time() - 3600
    for run in (done, stopped):
        os.utime(run / "metrics.csv", (long_ago, long_ago))
    runs = trainings.list_runs(tmp_path)
    assert runs[0].name == "going"
    assert sorted(trainings.summarize(runs, tmp_path)) == [
        ["done", "complete", "2 of 4", "50.0", "70.0", "my_data"],
        ["going", "running", "2 of 4", "25.0", "50.0", "my_data"],
        ["search/stopped", "stopped", "1 of 4", "10.0", "20.0", "my_data"],
    ]
    assert trainings.draw_curves(done).startswith(b"\x89PNG")
    (done / "metrics.csv").write_text("epoch,loss\n1")
    assert ["done", "damaged", "?", "", "", "?"] in trainings.summarize(runs, tmp_path)
    with pytest.raises(PyrafuseError, match=r"metrics\.csv is damaged \(row 1 has not as many values"):
        trainings.draw_curves(done)
    with pytest.raises(PyrafuseError, match=r"done has no best\.ckpt yet"):
        trainings.sample_predictions(done)


def test_the_best_checkpoint_is_shown_on_validation_images(checkpoint, shapes, tmp_path):
    shutil.copy(checkpoint, tmp_path / "best.ckpt")
    (tmp_path / "recipe.yaml").write_text(f"data: {{path: {shapes}, val_fraction: 0.2}}\n")
    shown = trainings.sample_predictions(tmp_path)
    assert len(shown) == 2  # there are no more
    assert all(pixels.shape == (64, 136, 3) for pixels, _ in shown)
    assert all(" found of " in caption for _, caption in shown)


def test_names_in_tables_are_no_html():
    assert "<td>&lt;script&gt;</td>" in write_table(("name",), [["<script>"]])
