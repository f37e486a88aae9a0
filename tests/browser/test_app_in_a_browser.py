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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image
from playwright.sync_api import TimeoutError as NotInTimeError

from pyrafuse.data.formats.shapes import write_shapes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
NUM_TABS = 100
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
def server(python, folder):
    """The address of the page, and the number of the process that serves it."""
    words = ["app", "trained.ckpt", "runs/mine", "--data", "my_data", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        [python, "-m", "pyrafuse", *words], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        said = process.stdout.readline()
        assert "trained, mine at http://127.0.0.1:" in said
        yield re.search(r"http://127\.0\.0\.1:\d+", said).group() + "/", process.pid
        process.terminate()
        assert process.wait(120) == 0


@pytest.fixture
def site(server):
    return server[0]


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


def wait_until(view, condition, argument=None):
    """Until a function in JavaScript says yes: states are waited for, never times."""
    view.wait_for_function(condition, arg=argument)


def rows_of(view, selector):
    """The cells of a table, all read at one moment."""
    script = "at => [...document.querySelectorAll(at + ' tbody tr')].map(row => [...row.cells].map(c => c.innerText))"
    return view.evaluate(script, selector)


def detections(view):
    """The rows of the table once it shows as many as the line above it counts."""
    wait_until(
        view,
        """() => document.querySelectorAll('#table tbody tr').length ===
            parseInt(document.querySelector('#told').innerText)""",
    )
    return rows_of(view, "#table")


def click_picture(view, x, y):
    """Click at a place of the square picture, in shares of its side; again where a redrawing has lost the click."""
    picture = view.locator("#picture img")
    for _ in range(10):
        wait_until(
            view, "() => (image => image.complete && image.naturalWidth)(document.querySelector('#picture img'))"
        )
        box = picture.bounding_box()
        side = min(box["width"], box["height"])
        place = {"x": (box["width"] - side) / 2 + x * side, "y": (box["height"] - side) / 2 + y * side}
        with suppress(NotInTimeError), view.expect_request(_asks_for_a_place, timeout=10_000):
            picture.click(position=place)
            return
    pytest.fail("no click on the picture was heard")


def _asks_for_a_place(request):
    return "queue/join" in request.url and '"index":[' in (request.post_data or "")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder for pictures of the page, which stays when the tests have passed, as `tmp_path` does not."""
    return tmp_path_factory.mktemp("pictures")


def look(view, pictures, name):
    """Keep a picture at both widths; the page is never wider than its window."""
    for width in (400, 1200):
        view.set_viewport_size({"width": width, "height": 900})
        wait_until(view, "() => [...document.images].every(image => image.complete)")
        wait_until(view, "width => document.documentElement.scrollWidth <= width", width)
        view.screenshot(path=pictures / f"{name}-{width}.png", full_page=True)


def test_upload_slide_click_look(view, folder, pictures):
    upload(view, folder / "my_data" / "images" / "val_000000.jpg")
    view.wait_for_selector("#picture img")
    wait_for(view, "#told", "of score 0.25 or more")
    many = detections(view)
    assert {row[2].split()[0] for row in many} == {"stride"}

    view.locator("#score input[type=number]").fill("0.5")
    view.keyboard.press("Enter")
    wait_for(view, "#told", "of score 0.50 or more")
    few = detections(view)
    assert few == [row for row in many if float(row[1]) >= 0.5]
    assert 0 < len(few) < len(many)

    x1, y1, x2, y2 = (float(value) for value in few[-1][3:])
    click_picture(view, (x1 + x2) / 2 / 64, (y1 + y2) / 2 / 64)
    view.wait_for_selector("#fusion img")
    view.wait_for_selector("#cams img")
    wait_for(view, "#message", "see below what was fused for it")
    look(view, pictures, "clicked")

    view.locator("#other input").click()
    view.get_by_role("option", name="mine").click()
    wait_for(view, "#told-2", "mine: ")
    wait_for(view, "#told", "trained: ")
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
    view.wait_for_selector("#picture", state="hidden")
    view.locator("#files").get_by_label("Clear").or_(view.locator("#files button").last).first.click()
    wait_until(view, "() => !document.querySelector('#message')?.innerText.trim()")
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
    view.wait_for_selector("#faults tbody tr")
    faults = rows_of(view, "#faults")
    kind = next(row[1] for row in faults if "twice" in row[1])
    look(view, pictures, "data")
    view.get_by_label("train", exact=True).click()
    wait_for(view, "#data-message", "15 images, page 1 of 2")
    view.locator("#kind input").click()
    view.get_by_role("option", name=kind, exact=True).click()
    wait_for(view, "#data-message", "page 1 of 1")
    wait_until(
        view,
        "kind => [...document.querySelectorAll('#faults tbody tr')].every(row => row.cells[1].innerText === kind)",
        kind,
    )
    assert rows_of(view, "#faults") == [row for row in faults if row[1] == kind]


def test_trainings_are_shown(view, folder, pictures):
    os.utime(folder / "runs" / "mine" / "metrics.csv")  # a run is running while its files are young
    view.get_by_role("tab", name="Trainings").click()
    wait_for(view, "#runs", "running")
    assert rows_of(view, "#runs") == [["mine", "running", "2 of 2", "25.0", "50.0", "my_data"]]
    view.wait_for_selector("#curves img")
    view.click("#sample")
    wait_until(view, "() => document.querySelectorAll('#samples img').length === 3")
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


def test_a_hundred_tabs_leave_the_server_alive_and_its_memory_bounded(server, tmp_path):
    site, process = server
    side = 1200  # 4.3 MB of pixels: those of a hundred tabs would be 430 MB, beside what Gradio keeps
    Image.new("RGB", (side, side), "teal").save(tmp_path / "photo.png")
    image = (tmp_path / "photo.png").read_bytes()
    with ThreadPoolExecutor(NUM_TABS) as tabs, ExitStack() as open_tabs:
        list(tabs.map(lambda number: show(Tab(site, open_tabs), image), range(4)))
        before = memory_of(process)
        told = list(tabs.map(lambda number: show(Tab(site, open_tabs), image), range(NUM_TABS)))
        assert len(told) == NUM_TABS
        assert all("of score 0.25 or more" in text for text in told)
        grown = memory_of(process) - before
        with urllib.request.urlopen(f"{site}health", timeout=60) as answer:
            assert json.load(answer)["status"] == "ok"
    assert grown < 400e6, f"{grown / 1e6:.0f} MB for {NUM_TABS} tabs"


class Tab:
    """What a browser asks for when a tab is opened, and later; the tab stays open as long as ``open_tabs``."""

    def __init__(self, site, open_tabs):
        self.site, self.session = site, uuid4().hex
        with urllib.request.urlopen(site, timeout=600) as page:
            assert b"pyrafuse" in page.read()
        self.config = json.loads(self.get("config"))
        open_tabs.enter_context(urllib.request.urlopen(f"{site}gradio_api/heartbeat/{self.session}", timeout=600))
        for function in self.functions("load"):
            self.call(function, [None] * len(self.config["dependencies"][function]["inputs"]))

    def get(self, path, data=None, kind="application/json"):
        request = urllib.request.Request(self.site + path, data, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.read()

    def functions(self, event, of=""):
        """Numbers of what is called at ``event`` of the component with the id ``of``; of the page itself without it."""
        ids = {part["id"] for part in self.config["components"] if part["props"].get("elem_id") == of}
        wanted = [
            number
            for number, each in enumerate(self.config["dependencies"])
            if any(name == event and (not of or part in ids) for part, name in each["targets"])
        ]
        assert wanted
        return wanted

    def call(self, function, data):
        """What the server answers to an event, waited for."""
        asked = {
            "data": data,
            "fn_index": function,
            "session_hash": self.session,
            "event_data": None,
            "trigger_id": None,
        }
        self.get("gradio_api/queue/join", json.dumps(asked).encode())
        lines = self.get(f"gradio_api/queue/data?session_hash={self.session}").decode().splitlines()
        messages = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
        (done,) = (message for message in messages if message["msg"] == "process_completed")
        assert done["success"], done
        return done["output"]["data"]


def show(tab, image):
    """Drop an image in a tab, and read what is told of it."""
    edge = uuid4().hex
    head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="photo.png"\r\n\r\n'
    body = head.encode() + image + f"\r\n--{edge}--\r\n".encode()
    (path,) = json.loads(tab.get("gradio_api/upload", body, f"multipart/form-data; boundary={edge}"))
    tab.call(tab.functions("change", "files")[0], [[{"path": path, "meta": {"_type": "gradio.FileData"}}]])
    shown = tab.call(tab.functions("input", "image")[0], [path, "trained", "none", 0.25])
    return next(text for text in shown if isinstance(text, str) and "of score" in text)


def memory_of(process):
    """Bytes of main memory that a process holds."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status).group(1))
