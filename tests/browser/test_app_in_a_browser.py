"""`pyrafuse app` in a real browser: upload, slide, click, look; nothing is asked of any other host.

Gradio wants an older Pillow than the rest of the tests run with, so it lives in an environment of its own.
"""

import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import TimeoutError as NotInTimeError

from pyrafuse.data.formats.shapes import write_shapes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = ROOT / "tests" / "fixtures" / "checkpoints" / "2026-11.zip"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter with Gradio, and with all that this one has."""
    if importlib.util.find_spec("gradio"):
        return Path(sys.executable)
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    python = place / "bin" / "python"
    (site,) = place.glob("lib/python*/site-packages")
    (site / "zz_rest.pth").write_text(sysconfig.get_path("purelib") + "\n")  # behind its own
    subprocess.run([python, "-m", "pip", "install", "--quiet", "gradio>=6"], check=True)
    return python


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    with zipfile.ZipFile(CHECKPOINTS) as files:
        checkpoint = Path(files.extract("trained.ckpt", folder))
    write_shapes(folder / "my_data", num_train=15, num_val=3, size=64)
    pictures = sorted((folder / "my_data" / "images").iterdir())
    shutil.copy(pictures[0], pictures[1])  # a fault to be found
    run = folder / "runs" / "mine"
    run.mkdir(parents=True)
    shutil.copy(checkpoint, run / "best.ckpt")
    (run / "metrics.csv").write_text("epoch,train/loss,val/ap,val/ap50\n1,3,0.1,0.2\n2,2,0.25,0.5\n")
    (run / "recipe.yaml").write_text("run: {epochs: 2}\ndata: {path: my_data}\n")
    (folder / "text.jpg").write_text("just a text")
    (folder / "cut.jpg").write_bytes(encode((400, 300), "JPEG")[:2000])
    (folder / "large.png").write_bytes(encode((10_000, 10_000), "PNG"))
    return folder


def encode(size, kind):
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).save(buffer, kind) if kind == "JPEG" else Image.new("L", size).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def site(python, folder):
    words = ["app", "trained.ckpt", "runs/mine", "--data", "my_data", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        [python, "-m", "pyrafuse", *words], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        said = server.stdout.readline()
        assert "trained, mine at http://127.0.0.1:" in said
        yield re.search(r"http://127\.0\.0\.1:\d+", said).group() + "/"
        server.terminate()
        assert server.wait(30) == 0


@pytest.fixture
def view(browser, site):
    """A view that reaches the site and nothing else; ``view.elsewhere`` lists what it asked of others."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    view = context.new_page()
    view.set_default_timeout(120_000)
    view.elsewhere, view.failed = [], []
    view.on("pageerror", lambda error: view.failed.append(str(error)))
    view.on("request", lambda request: view.elsewhere.append(request.url))
    context.route("**/*", lambda route: route.continue_() if route.request.url.startswith(site) else route.abort())
    view.goto(site)
    yield view
    own = (site, "data:", "blob:")
    assert [url for url in view.elsewhere if not url.startswith(own)] == []
    assert view.failed == []
    context.close()


def upload(view, *files):
    view.locator("#files input[type=file]").set_input_files(files)


def wait_for(view, selector, text):
    view.wait_for_function(
        "([selector, text]) => document.querySelector(selector)?.innerText.includes(text)", arg=[selector, text]
    )


def rows_of(view, selector):
    return [row.locator("td").all_inner_texts() for row in view.locator(f"{selector} tbody tr").all()]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder for pictures of the page, which stays when the tests have passed, as `tmp_path` does not."""
    return tmp_path_factory.mktemp("pictures")


def look(view, pictures, name):
    """Keep a picture at both widths; the page is never wider than its window."""
    for width in (400, 1200):
        view.set_viewport_size({"width": width, "height": 900})
        view.wait_for_timeout(500)
        view.screenshot(path=pictures / f"{name}-{width}.png", full_page=True)
        wide = view.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} px in a window of {width}"


def test_upload_slide_click_look(view, folder, pictures):
    upload(view, folder / "my_data" / "images" / "val_000000.jpg")
    view.wait_for_selector("#picture img")
    wait_for(view, "#told", "of score 0.25 or more")
    many = rows_of(view, "#table")
    assert view.inner_text("#told").startswith(f"{len(many)} detection")
    assert {row[2].split()[0] for row in many} == {"stride"}

    view.locator("#score input[type=number]").fill("0.5")
    view.keyboard.press("Enter")
    wait_for(view, "#told", "of score 0.50 or more")
    few = rows_of(view, "#table")
    assert few == [row for row in many if float(row[1]) >= 0.5]
    assert 0 < len(few) < len(many)

    picture = view.locator("#picture img")
    box, side = picture.bounding_box(), 64
    scale = min(box["width"], box["height"]) / side
    x1, y1, x2, y2 = (float(value) for value in few[-1][3:])
    place = {
        "x": (box["width"] - side * scale) / 2 + (x1 + x2) / 2 * scale,
        "y": (box["height"] - side * scale) / 2 + (y1 + y2) / 2 * scale,
    }
    for _ in range(3):  # a click that comes while the page redraws the picture is lost
        picture.click(position=place)
        with suppress(NotInTimeError):
            view.wait_for_selector("#fusion img", timeout=20_000)
            break
    view.wait_for_selector("#fusion img")
    view.wait_for_selector("#cams img")
    wait_for(view, "#message", "see below what was fused for it")
    look(view, pictures, "clicked")

    view.locator("#other input").click()
    view.get_by_role("option", name="mine").click()
    wait_for(view, "#told-2", "mine: ")
    assert view.inner_text("#told").startswith("trained: ")
    assert view.inner_text("#told").split(": ", 1)[1] == view.inner_text("#told-2").split(": ", 1)[1]  # one checkpoint
    look(view, pictures, "side-by-side")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("text.jpg", "text.jpg is no image that can be read"),
        ("cut.jpg", "cut.jpg is damaged or cannot be read"),
        ("large.png", "large.png has 10000 x 10000 pixels, more than the 50,000,000"),
    ],
)
def test_what_cannot_be_read_is_a_sentence_and_the_page_lives_on(view, folder, file, said):
    upload(view, folder / file)
    wait_for(view, "#message", said)
    assert not view.locator("#picture").is_visible()
    view.locator("#files").get_by_label("Clear").or_(view.locator("#files button").last).first.click()
    upload(view, folder / "my_data" / "images" / "val_000000.jpg")
    view.wait_for_selector("#picture img")


def test_data_are_browsed_with_their_faults(view, pictures):
    view.get_by_role("tab", name="Data").click()
    view.wait_for_selector("#gallery img")
    wait_for(view, "#data-message", "15 images, page 1 of 2")
    view.get_by_label("val", exact=True).click()
    wait_for(view, "#data-message", "3 images, page 1 of 1")
    view.click("#check")
    wait_for(view, "#data-message", "warning")
    faults = rows_of(view, "#faults")
    kind = next(row[1] for row in faults if "twice" in row[1])
    look(view, pictures, "data")
    view.get_by_label("train", exact=True).click()
    view.locator("#kind input").click()
    view.get_by_role("option", name=kind, exact=True).click()
    wait_for(view, "#data-message", "page 1 of 1")
    assert {row[1] for row in rows_of(view, "#faults")} == {kind}


def test_trainings_are_shown(view, pictures):
    view.get_by_role("tab", name="Trainings").click()
    wait_for(view, "#runs", "mine")
    assert rows_of(view, "#runs") == [["mine", "running", "2 of 2", "25.0", "50.0", "my_data"]]
    view.wait_for_selector("#curves img")
    view.click("#sample")
    view.wait_for_selector("#samples img")
    assert view.locator("#samples img").count() == 3
    look(view, pictures, "trainings")


def test_requests_are_answered_beside_the_page(site, folder):
    image = (folder / "my_data" / "images" / "val_000000.jpg").read_bytes()
    request = urllib.request.Request(f"{site}predict?score=0.5&model=mine", image, {"Content-Type": "image/jpeg"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["objects"]
    with pytest.raises(urllib.error.HTTPError) as missing:
        urllib.request.urlopen(urllib.request.Request(f"{site}predict?model=no", image, {"Content-Type": "image/jpeg"}))
    assert missing.value.code == 404
    missing.value.close()
