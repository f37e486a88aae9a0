"""Many images explained: files an image, one page over all, faulty images passed over."""

import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base import first_of
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.images.sources import Frame, Source
from pyrafuse.explain.fusion import explain_image
from pyrafuse.explain.writing import RECORD_FILE, explain_to
from pyrafuse.reports import explanations as reports


def save_photo(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo):
    """Two images called reef in two folders, and one that is none."""
    root = tmp_path_factory.mktemp("photos")
    save_photo(root / "a" / "reef.png", photo)
    save_photo(root / "b" / "reef.png", photo[::-1, :80])
    (root / "c.jpg").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("explained")


@pytest.fixture(scope="module")
def summary(asff, folder, output):
    return explain_to(asff, folder, output, score=0)


@pytest.fixture(scope="module")
def explained(asff, folder):
    return [explain_image(asff, folder / place / "reef.png", score=0) for place in "ab"]


def tables_of(page):
    """Cells, row by row, of each table."""
    text = page.read_text()
    return [
        [[unescape(c) for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)] for row in re.findall(r"<tr>.*?</tr>", t)]
        for t in re.findall(r"<table>.*?</table>", text, re.DOTALL)
    ]


def test_every_image_leaves_its_files(summary, output, folder):
    assert sorted(p.name for p in output.iterdir() if p.name != RECORD_FILE) == sorted(
        [
            f"{name}_{end}"
            for name in ("reef", "reef-2")
            for end in ("cam.png", "fusion.png", "fusion.npz", "fusion.json")
        ]
        + ["report.html"]
    )
    assert summary.report == output / "report.html"
    assert summary.num_images == 2
    (failure,) = summary.failures
    assert failure.startswith(f"{folder / 'c.jpg'} is no image")


def test_the_page_stands_alone_and_names_what_it_shows(summary, folder, explained):
    text = summary.report.read_text()
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", text) == []
    assert "://" not in text
    assert text.count("<img ") == 5
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', text)) == 4  # and the bars of the weights, a PNG
    for place in ("a/reef.png", "b/reef.png"):
        assert f"<figcaption>{folder / place}</figcaption>" in text
    assert f"{sum(len(e.detections) for e in explained)}, with a score of 0 or more" in text
    assert tables_of(summary.report)[3] == [["reason"], [summary.failures[0]]]


def test_the_summary_is_the_mean_over_images(summary, explained):
    over_all, at_objects, *_ = tables_of(summary.report)
    assert over_all[0] == ["fused at", "from stride 8", "from stride 16", "from stride 32"]
    mean = np.mean([[f.shares for f in e.fusions] for e in explained], axis=0)
    assert over_all[1:] == [
        [f"stride {s}", *(f"{w:.2f}" for w in row)] for s, row in zip((8, 16, 32), mean, strict=True)
    ]
    for level, row in enumerate(at_objects[1:]):
        found = [
            weights
            for e in explained
            for weights, of_level in zip(e.detection_weights, e.detections.levels.tolist(), strict=True)
            if of_level == level
        ]
        expected = [f"{w:.2f}" for w in np.mean(found, axis=0)] if found else ["-"] * 3
        assert row == [f"stride {8 << level}", *expected, str(len(found))]


def test_detections_are_counted_by_level_and_size(summary, explained):
    sizes = tables_of(summary.report)[2]
    assert sizes[0] == ["found at", "small", "medium", "large", "all"]
    expected = np.zeros((3, 3), int)
    for e in explained:
        for (x1, y1, x2, y2), level in zip(e.detections.boxes.tolist(), e.detections.levels.tolist(), strict=True):
            area = (x2 - x1) * (y2 - y1)
            expected[level, 0 if area < 32**2 else 1 if area < 96**2 else 2] += 1
    assert (expected.sum(axis=0) > 0).sum() > 1  # more than one size, or nothing is told apart
    assert [[int(n) for n in row[1:]] for row in sizes[1:]] == [[*row, row.sum()] for row in expected]


def test_each_detection_has_a_row(summary, explained):
    table = tables_of(summary.report)[6]
    assert table[0] == [
        "object", "score", "side in pixels", "found at", "fused there from",
        "due to stride 8", "due to stride 16", "due to stride 32",
    ]  # fmt: skip
    assert len(table) == 1 + len(explained[0].detections)
    found = explained[0].detections
    x1, y1, x2, y2 = found.boxes[7].tolist()
    assert table[8] == [
        found.name_of(int(found.labels[7])),
        f"{found.scores[7]:.2f}",
        f"{((x2 - x1) * (y2 - y1)) ** 0.5:.0f}",
        f"stride {8 << int(found.levels[7])}",
        ", ".join(f"stride {s}: {w:.2f}" for s, w in zip((8, 16, 32), explained[0].detection_weights[7], strict=True)),
        *(f"{share:.2f}" for share in explained[0].ablation.shares[7]),
    ]


def test_what_each_level_brings_is_the_mean_over_images_and_detections(summary, explained):
    outputs, found = tables_of(summary.report)[4:6]
    sources = ["due to stride 8", "due to stride 16", "due to stride 32"]
    assert outputs[0] == ["output", *sources]
    mean = (explained[0].ablation.mean_output_shares() + explained[1].ablation.mean_output_shares()) / 2
    assert outputs[1:] == [
        [f"stride {s}", *(f"{w:.2f}" for w in row)] for s, row in zip((8, 16, 32), mean, strict=True)
    ]
    assert found[0] == ["found at", *sources, "detections"]
    assert sum(int(row[-1]) for row in found[1:]) == sum(len(e.detections) for e in explained)


@pytest.mark.usefixtures("blank_pictures")
def test_a_neck_without_weights_says_so(plain, folder, tmp_path):
    page = explain_to(plain, folder / "a", tmp_path, score=0).report
    assert "This detector has no fusion weights" in page.read_text()
    sizes, outputs, _, objects = tables_of(page)
    assert sizes[0][0] == "found at"
    assert outputs[0] == ["output", "due to stride 8", "due to stride 16", "due to stride 32"]
    assert objects[0][:5] == ["object", "score", "side in pixels", "found at", "due to stride 8"]
    assert len(objects) > 20


@pytest.mark.usefixtures("blank_pictures")
def test_weights_of_merges_are_listed(bifpn, folder, tmp_path):
    page = explain_to(bifpn, folder / "a", tmp_path, score=0).report
    assert "This detector has no fusion weights" not in page.read_text()
    weights = tables_of(page)[0]
    assert weights[0] == ["fused at", "from"]
    assert weights[-8] == ["T6_3", "P6_2 0.33, P7_2 0.67"]
    assert len(weights) == 1 + 3 * 8


@pytest.mark.usefixtures("blank_pictures")
def test_nothing_found(asff, folder, tmp_path):
    page = explain_to(asff, folder / "a", tmp_path, score=1).report
    assert "Nothing was found." in page.read_text()
    _, at_objects, sizes, _, found = tables_of(page)
    assert [row[1:] for row in at_objects[1:]] == [["-", "-", "-", "0"]] * 3
    assert [row[1:] for row in sizes[1:]] == [["0"] * 4] * 3
    assert [row[1:] for row in found[1:]] == [["-", "-", "-", "0"]] * 3


def test_nothing_readable_writes_no_page(asff, folder, tmp_path):
    with pytest.raises(DataError, match=r"^/.*/c\.jpg is no image"):
        explain_to(asff, folder / "c.jpg", tmp_path / "out")
    with pytest.raises(DataError, match=r"^none of 2 inputs can be read, the first: /.*/c\.jpg is no image"):
        explain_to(asff, [folder / "c.jpg"] * 2, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("blank_pictures")
def test_a_limit(asff, folder, tmp_path):
    assert explain_to(asff, folder, tmp_path, limit=1).num_images == 1
    assert len(list(tmp_path.glob("*.npz"))) == 1


@pytest.mark.usefixtures("blank_pictures")
def test_of_very_many_images_the_page_shows_the_first(asff, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "MAX_PICTURES", 1)
    text = explain_to(asff, [photo, photo], tmp_path).report.read_text()
    assert text.count("<img ") == 2
    assert "The first 1 of 2 images are shown here" in text
    assert (tmp_path / "image1_fusion.png").exists()


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize("is_stream", [True, False])
def test_an_interrupt_ends_a_camera_and_breaks_off_anything_else(asff, photo, tmp_path, is_stream):
    def read():
        yield Frame("camera0#0", photo, fps=25.0)
        raise KeyboardInterrupt

    source = Source(read, None, is_stream=is_stream)
    if is_stream:
        assert explain_to(asff, source, tmp_path).num_images == 1
    else:
        with pytest.raises(KeyboardInterrupt, match=r"report\.html tells of the first 1$"):
            explain_to(asff, source, tmp_path)
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "camera0_0_fusion.png").exists()


@pytest.mark.usefixtures("blank_pictures")
def test_progress_names_each_failure_on_standard_error(asff, folder, tmp_path, capsys):
    explain_to(asff, folder, tmp_path, score=1, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"passed over: {folder / 'c.jpg'} is no image" in err
    assert "3/3" in err


def test_results_never_land_among_the_inputs(asff, photo, tmp_path):
    path = save_photo(tmp_path / "reef.png", photo)
    with pytest.raises(PyrafuseError, match="would lie among the images they are of; choose another output"):
        explain_to(asff, path, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["reef.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"limit": 0}, "limit must be 1 or more, got 0"), ({"score": -1}, r"score must be in 0\.\.1, got -1")],
)
def test_a_setting_out_of_range(asff, folder, tmp_path, options, message):
    with pytest.raises(PyrafuseError, match=message):
        explain_to(asff, folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("blank_pictures")
def test_an_earlier_explanation_gives_way_and_files_of_others_stay(asff, folder, photo, tmp_path):
    explain_to(asff, folder, tmp_path, score=1)
    assert {path.name for path in tmp_path.glob("*.npz")} == {"reef_fusion.npz", "reef-2_fusion.npz"}
    (tmp_path / "notes.txt").write_text("mine")
    explain_to(asff, photo, tmp_path, score=1)
    names = {f"image0_fusion{suffix}" for suffix in (".png", ".npz", ".json")}
    assert {path.name for path in tmp_path.iterdir()} == {*names, "notes.txt", "report.html", RECORD_FILE}


@pytest.mark.parametrize("name", ["report.html", "image0_fusion.json", "other_cam.png"])
def test_a_file_of_somebody_else_is_told_before_any_work(asff, photo, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(PyrafuseError, match=f"{name} is there already, and no earlier explanation wrote it: choose"):
        explain_to(asff, Source(lambda: pytest.fail("it is read"), None), tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


@pytest.mark.usefixtures("blank_pictures")
def test_of_very_many_failures_the_first_are_kept(asff, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(first_of, "MOST", 2)
    faults = [Frame(f"camera0#{n}", None, f"frame {n} cannot be decoded", fps=25.0) for n in range(5)]
    source = Source(lambda: iter([*faults, Frame("camera0#5", photo, fps=25.0)]), None, is_stream=True)
    summary = explain_to(asff, source, tmp_path, score=1)
    assert summary.failures == ("frame 0 cannot be decoded", "frame 1 cannot be decoded")
    assert summary.num_failed == 5
    assert "The first 2 of 5 are shown here." in summary.report.read_text()
    assert "<dt>not readable</dt><dd>5</dd>" in summary.report.read_text()


def test_no_source(asff, tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        explain_to(asff, tmp_path / "none", tmp_path / "out")


@pytest.mark.usefixtures("blank_pictures")
def test_names_of_classes_are_shown_letter_by_letter(asff, photo, tmp_path):
    card = asff.card
    asff.card = replace(card, names=("<b>fish</b>", "$x_1$", "&"))
    try:
        page = explain_to(asff, torch.from_numpy(photo.copy()).permute(2, 0, 1), tmp_path, score=0).report
    finally:
        asff.card = card
    assert "<b>fish</b>" not in page.read_text()
    assert {row[0] for row in tables_of(page)[5][1:]} <= {"<b>fish</b>", "$x_1$", "&"}
