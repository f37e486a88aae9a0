"""The HTML report: valid, whole without a network, and nothing in it is taken for markup."""

import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from pyrafuse.base.errors import DataError
from pyrafuse.visualization.report import Report

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Elements and texts of a page; fails on a tag that closes another."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def texts_in(self, tag):
        return [text for where, text in self.texts if where == tag]

    def attributes(self, tag, name):
        return [attrs[name] for element, attrs in self.elements if element == tag and name in attrs]


def picture_of(source):
    kind, content = re.fullmatch(r"data:image/(\w+);base64,(.*)", source).groups()
    return kind, Image.open(BytesIO(base64.b64decode(content)))


def photo(width=40, height=30):
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[0] = 255
    return image


def test_lines_to_be_typed_stand_as_they_are():
    report = Report("Commands")
    report.add_code("pyrafuse train <data>\n  --epochs 3")
    assert "<pre>pyrafuse train &lt;data&gt;\n  --epochs 3</pre>" in report.to_html()


def test_a_whole_page(tmp_path):
    report = Report("Evaluation")
    report.add_section("Figures")
    report.add_text("First.\n\nSecond\nline.")
    report.add_table(("class", "AP"), [("cat", 0.5), ("dog", "-")], caption="of each class")
    report.add_key_values({"images": 3})
    report.add_section("Pictures")
    report.add_figure(Figure(figsize=(2, 1), facecolor="blue"), "a chart")
    report.add_image(photo(), "a photo")
    report.add_gallery([(photo(), "one"), (np.zeros((5, 6, 3), np.uint8), "two")], "many")
    report.save(tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]

    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.texts_in("h1") == ["Evaluation"]
    assert page.texts_in("p") == ["First.", "Second\nline.", "many"]
    assert page.texts_in("td") == ["cat", "0.5", "dog", "-"]
    classes = [attrs.get("class") for element, attrs in page.elements if element == "td"]
    assert classes == [None, "number", None, "number"]
    assert (page.texts_in("dt"), page.texts_in("dd")) == (["images"], ["3"])
    assert page.texts_in("figcaption") == ["of each class", "a chart", "a photo", "one", "two"]
    assert page.attributes("h2", "id") == ["figures", "pictures"]
    assert page.attributes("a", "href") == ["#figures", "#pictures", "#figures", "#pictures"]
    pictures = [picture_of(source) for source in page.attributes("img", "src")]
    assert [(kind, p.size) for kind, p in pictures] == [
        ("png", (240, 120)),
        ("jpeg", (40, 30)),
        ("jpeg", (40, 30)),
        ("jpeg", (6, 5)),
    ]
    assert pictures[0][1].convert("RGB").getpixel((3, 3)) == (0, 0, 255)
    np.testing.assert_allclose(pictures[1][1].getpixel((20, 15)), (255, 0, 0), atol=4)


def test_nothing_comes_from_elsewhere():
    report = Report("https://example.org")
    report.add_image(photo(), "http://example.org/a.png")
    report.add_text("see https://example.org")
    page = Page(report.to_html())
    references = [v for _, attrs in page.elements for k, v in attrs.items() if k in {"src", "href", "action"}]
    assert references
    assert all(v.startswith(("data:", "#")) for v in references)
    assert not {"script", "link", "iframe", "object"} & {element for element, _ in page.elements}
    style = page.texts_in("style")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_text_is_never_markup():
    evil = "<script>alert('1')</script> & \"quoted\" {braces}"
    report = Report(evil)
    report.add_section(evil)
    report.add_text(evil)
    report.add_table((evil,), [(evil,)], caption=evil)
    report.add_key_values({evil: evil})
    report.add_image(photo(), evil)
    report.add_gallery([(photo(), evil)], evil)
    page = Page(report.to_html())
    assert "script" not in {element for element, _ in page.elements}
    for tag in ("title", "h1", "p", "th", "td", "dt", "dd", "figcaption"):
        assert evil in page.texts_in(tag)
    assert page.attributes("img", "alt") == [evil, evil]


def test_sections_of_one_name_have_anchors_of_their_own():
    report = Report("t")
    for title in ("Same one", "Same one", "!", "海"):
        report.add_section(title)
    anchors = Page(report.to_html()).attributes("h2", "id")
    assert anchors == ["same-one", "same-one-2", "section", "海"]


def test_photographs_are_made_smaller_and_files_turned_upright(tmp_path):
    picture = Image.new("RGB", (3000, 1000), "green")
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture.save(tmp_path / "a.jpg", exif=exif)
    Image.new("L", (10, 20)).save(tmp_path / "grey.png")
    report = Report("t")
    report.add_image(tmp_path / "a.jpg")
    report.add_gallery([(str(tmp_path / "a.jpg"), ""), (tmp_path / "grey.png", "")])
    sizes = [picture_of(s)[1].size for s in Page(report.to_html()).attributes("img", "src")]
    assert sizes == [(427, 1280), (267, 800), (10, 20)]


def test_a_large_chart_is_a_jpeg():
    figure = Figure(figsize=(5, 5))
    figure.figimage(np.random.default_rng(0).uniform(size=(600, 600, 3)))
    report = Report("t")
    report.add_figure(figure)
    (source,) = Page(report.to_html()).attributes("img", "src")
    kind, picture = picture_of(source)
    assert (kind, picture.size) == ("jpeg", (600, 600))


def test_what_cannot_be_shown_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    report = Report("t")
    for name in ("broken.jpg", "missing.jpg"):
        with pytest.raises(DataError, match=f"{name} cannot be read as an image"):
            report.add_image(tmp_path / name)
    with pytest.raises(ValueError, match=r"uint8 RGB, got float32 of shape \(2, 2, 3\)"):
        report.add_image(np.zeros((2, 2, 3), np.float32))
    with pytest.raises(ValueError, match="a row of 1 cells under 2 titles"):
        report.add_table(("a", "b"), [("x",)])
