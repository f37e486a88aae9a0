"""The page of a data set."""

import re
from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import numpy as np
from PIL import Image

from pyrafuse.base.detections import PALETTE
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.cli.main import main
from pyrafuse.reports.data_page import choose_records, describe_data, draw_record


def record(path, labels, box=(160, 80, 1120, 640)):
    return ImageRecord(
        path, 0, 1600, 800, np.array([box] * len(labels), np.float32).reshape(-1, 4), np.array(labels, np.int64),
        np.zeros(len(labels), np.bool_), np.full(len(labels), 900.0, np.float32),
    )  # fmt: skip


def test_boxes_are_drawn_at_the_size_that_is_shown(tmp_path):
    Image.new("RGB", (1600, 800), "white").save(tmp_path / "a.png")
    drawn = draw_record(record(tmp_path / "a.png", [1]), ["cat", "dog"])
    assert drawn.shape == (400, 800, 3)
    color = tuple(int(PALETTE[1][i : i + 2], 16) for i in (1, 3, 5))
    on_line = (drawn == color).all(axis=2)
    rows, columns = np.nonzero(on_line)
    assert abs(columns.max() - 560) <= 2
    assert abs(rows.max() - 320) <= 2
    assert not on_line[200, 90:550].any()


def test_small_images_are_enlarged(tmp_path):
    Image.new("RGB", (64, 32), "white").save(tmp_path / "a.png")
    small = replace(record(tmp_path / "a.png", [0], (8, 8, 56, 24)), width=64, height=32)
    drawn = draw_record(small, ["cat"])
    color = tuple(int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5))
    rows, columns = np.nonzero((drawn == color).all(axis=2))
    assert drawn.shape == (400, 800, 3)
    assert abs(columns.max() - 700) <= 2
    assert abs(rows.max() - 300) <= 2


def test_the_page_counts_and_shows(tmp_path):
    Image.new("RGB", (1600, 800), "white").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    records = (record(tmp_path / "a.png", [0, 1, 1]), record(tmp_path / "b.png", [1]))
    data = DetectionData(records, ("cat", "<dog>"), (0, 1), "coco", "train")
    page = describe_data("Pets", [data], limit=5).to_html()
    assert re.search(r"&lt;dog&gt;</td><td class=\"number\">3</td>", page)
    assert "2 of 2 images." in page
    assert "b.png" in page[page.index("Not readable") :]
    (picture,) = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert Image.open(BytesIO(b64decode(picture))).size == (800, 400)


def test_pictures_are_chosen_by_class_and_seed(tmp_path):
    records = tuple(record(tmp_path / f"{i}.png", [i % 2]) for i in range(20))
    data = DetectionData(records, ("cat", "dog"), (0, 1), "coco", "train")
    assert choose_records(data, 30, seed=0, name="dog") == list(records[1::2])
    chosen = choose_records(data, 4, seed=0, name=None)
    assert (len(chosen), choose_records(data, 4, seed=0, name=None)) == (4, chosen)
    assert choose_records(data, 4, seed=1, name=None) != chosen


def test_the_command_refuses_before_it_reads(tmp_path, capsys):
    assert main(["data", "show", "shapes:train=2,val=1,size=64", "-o", str(tmp_path / "a.png")]) == 2
    assert "is no page; give it the suffix .html" in capsys.readouterr().err
    words = ["data", "show", "shapes:train=2,val=1,size=64", "-o", str(tmp_path / "a.html")]
    assert main([*words, "--only", "cirle"]) == 2
    assert "unknown class 'cirle'; did you mean 'circle'?" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()
    assert main([*words, "--split", "valid", "--limit", "1"]) == 0
    assert (tmp_path / "a.html").read_text().count("data:image/jpeg") == 1
