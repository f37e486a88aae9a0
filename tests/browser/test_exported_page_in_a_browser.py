"""The exported page in a real browser: it finds what the detector finds, and tells what is wrong."""

import functools
import http.server
import io
import os
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.export.exporting import export
from pyrafuse.export.support import VALIDATED
from pyrafuse.importers.loading import load

pytestmark = pytest.mark.slow  # an export and a browser: CI runs them beside the suite

CHECKPOINTS = Path(__file__).parents[1] / "fixtures" / "checkpoints" / "2026-11.zip"
NAMES = ("circle", "<img src=x onerror='document.title=1'>", "w" * 60, "star", "cross")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    with zipfile.ZipFile(CHECKPOINTS) as files:
        made = load(files.extract("trained.ckpt", tmp_path_factory.mktemp("detector")))
    assert VALIDATED["web"] == (made.card.model,)
    made.card = replace(made.card, names=NAMES)
    return made


@pytest.fixture(scope="module")
def folder(browser, detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "page"
    try:
        export(detector, folder, format="web")
    except PyrafuseError as error:
        if "npm" not in str(error) or "PYRAFUSE_NEEDS_BROWSER" in os.environ:
            raise
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="module")
def site(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def view(browser, site):
    """A view that reaches the site and nothing else; ``view.asked`` and ``view.said`` tell what happened."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    view = context.new_page()
    view.asked, view.said = [], []
    view.on("console", lambda message: view.said.append(message.text))
    view.on("pageerror", lambda error: view.said.append(str(error)))
    view.on("request", lambda request: view.asked.append(request.url))
    context.route("**/*", lambda route: route.continue_() if route.request.url.startswith(site) else route.abort())
    yield view
    context.close()


def wait_until_ready(view, site):
    view.goto(site)
    view.wait_for_function("!document.getElementById('choose').disabled", timeout=60_000)


def detect(view, name, image):
    """The table's rows (class, score, box) with every number as the page knows it, of any score."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    view.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": buffer.getvalue()})
    view.wait_for_function(
        "name => document.getElementById('status').textContent.startsWith(`${name}: detected in`)", arg=name
    )
    view.locator("#score").fill("0.05")
    return read_table(view)


def read_table(view):
    rows = view.evaluate(
        "[...document.querySelectorAll('tbody tr')].map(row => "
        "[row.cells[0].textContent, ...[...row.querySelectorAll('data')].map(number => Number(number.value))])"
    )
    return [row[0] for row in rows], np.array([row[1] for row in rows]), np.array([row[2:] for row in rows])


def make_image(height, width):
    rng = np.random.default_rng(3)
    cells = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return np.kron(cells, np.ones((8, 8, 1), np.uint8))[:height, :width]


def tell_strangers(ours, theirs, px, score):
    """Those of ours, not at the threshold, that theirs lack; scores that are nearly equal come in any order."""
    strangers = []
    for name, own, box in zip(*ours, strict=True):
        is_same = (np.abs(theirs[1] - own) <= score) & (np.abs(theirs[2] - box).max(axis=1) <= px)
        if own > 0.05 + score and name not in np.array(theirs[0])[is_same]:
            strangers.append((name, own, box))
    return strangers


@pytest.mark.parametrize(
    ("shape", "px", "score"),
    [((64, 64), 0.1, 1e-3), ((150, 97), 0.5, 0.01)],  # bytes of the graph's resize are within two of Pillow's
)
def test_the_page_finds_what_the_detector_finds(view, site, detector, shape, px, score):
    wait_until_ready(view, site)
    image = make_image(*shape)
    names, scores, boxes = detect(view, "a.png", image)
    (expected,) = detector.predict(image, score=0.05)
    assert len(expected) > 10
    theirs = ([NAMES[label] for label in expected.labels], expected.scores.numpy(), expected.boxes.numpy())
    assert tell_strangers((names, scores, boxes), theirs, px, score) == []
    assert tell_strangers(theirs, (names, scores, boxes), px, score) == []

    # the surest box is drawn where it is, in the colour of its class
    view.locator("#score").fill(str(np.ceil(scores[1] * 100) / 100))
    assert len(read_table(view)[0]) == 1 < len(names)
    drawn = view.evaluate(
        """([x, y, width]) => {
          const zoom = canvas.width / width;
          return [...canvas.getContext("2d").getImageData(Math.max(0, x * zoom), y * zoom, 1, 1).data].slice(0, 3);
        }""",
        [boxes[0, 0], boxes[0, 1::2].mean(), shape[1]],
    )
    swatch = view.evaluate("getComputedStyle(document.querySelector('.swatch')).backgroundColor")
    assert swatch == f"rgb({', '.join(map(str, drawn))})"
    assert view.said == []
    outside = [url for url in view.asked if not url.startswith((site, "data:", f"blob:{site}"))]
    assert outside == []
    assert view.title().startswith("Detect objects with")  # no class name ran


def test_it_works_by_keyboard_and_on_a_telephone(view, site):
    wait_until_ready(view, site)
    reached = []
    for _ in range(2):
        view.keyboard.press("Tab")
        reached.append(view.evaluate("document.activeElement.id"))
    assert reached == ["choose", "sample"]
    view.keyboard.press("Enter")
    view.wait_for_function("document.getElementById('status').textContent.startsWith('the test picture: detected')")
    view.keyboard.press("Tab")
    assert view.evaluate("document.activeElement.id") == "score"
    view.locator("#score").fill("0.15")
    many = read_table(view)[1]
    for _ in range(5):
        view.keyboard.press("ArrowRight")
    assert view.locator("#score-text").text_content() == "0.20"
    scores = read_table(view)[1]
    assert 0 < len(scores) < len(many)
    np.testing.assert_array_equal(scores, many[many >= 0.2])
    assert view.locator("#summary").text_content().startswith(f"{len(scores)} objects. ")
    view.keyboard.press("End")
    assert view.locator("#summary").text_content() == (
        "No object with a score of 1.00 or more. Move the slider to the left to see less certain ones."
    )
    view.keyboard.press("Home")
    for width in (400, 1200):
        view.set_viewport_size({"width": width, "height": 800})
        wide = view.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} px in a window of {width}"
        picture = view.locator("#canvas").bounding_box()
        assert 0.7 < picture["width"] / picture["height"] / (640 / 480) < 1.4


def test_what_is_wrong_is_told_on_the_page(view, site):
    wait_until_ready(view, site)
    view.locator("#file").set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"})
    view.wait_for_selector("#error:not([hidden])")
    assert view.locator("#error").text_content() == (
        "notes.txt is not an image that this browser can read. Choose a JPEG, PNG or WebP file."
    )
    assert detect(view, "a.png", make_image(64, 64))[0]  # and the page goes on
    assert view.locator("#error").is_hidden()
    view.evaluate("document.dispatchEvent(new DragEvent('drop', {dataTransfer: new DataTransfer()}))")
    assert view.locator("#error").text_content().startswith("No image file was dropped")


@pytest.mark.parametrize(
    ("file", "answer", "told"),
    [
        ("model.onnx", {"status": 404}, "model.onnx was not found beside the page (status 404)"),
        ("model.onnx", {"body": "cut off"}, "The page cannot start: "),
        ("ort.wasm.bundle.min.js", {"status": 404}, "The page cannot start: "),
        ("ort-wasm-simd-threaded.wasm", {"status": 404}, "The page cannot start: "),
        ("", {}, "this browser has no WebAssembly"),
    ],
)
def test_a_page_that_cannot_start_says_why(view, site, file, answer, told):
    if file:
        view.route(f"**/{file}", lambda route: route.fulfill(**answer))
    else:
        view.add_init_script("delete self.WebAssembly")
    view.goto(site)
    view.wait_for_selector("#error:not([hidden])", timeout=60_000)
    assert told in view.locator("#error").text_content()
    assert view.locator("#choose").is_disabled()


def test_a_page_that_is_opened_as_a_file_asks_for_a_server(browser, folder):
    view = browser.new_page()
    view.goto((folder / "index.html").as_uri())
    view.wait_for_selector("#error:not([hidden])")
    assert "python -m http.server" in view.locator("#error").text_content()
    view.close()
