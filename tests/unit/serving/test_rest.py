"""A server on a real socket: what it answers, and what it says to whatever else is sent."""

import asyncio
import base64
import gc
import http.client
import io
import json
import signal
import socket
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import uvicorn
from PIL import Image

from pyrafuse.base.card import Card
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.interrupts import as_interrupts
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.serving.batching import Choice
from pyrafuse.serving.limits import Limits
from pyrafuse.serving.rest import create_app
from pyrafuse.serving.running import Impatient, listen, run
from pyrafuse.serving.service import Service, name_models


class Corners:
    """Finds one object a class: of class k, k pixels from the corner; the score is the brightness of the image."""

    def __init__(self, names=("cat", "dog"), fit="stretch"):
        self.card = Card(names=names, preprocessing=Preprocessing(size=(64, 64), fit=fit))
        self.batches, self.gate = [], None

    def predict_frames(self, frames, *, batch_size, score_threshold, nms_iou, max_detections, labels, keep_images):
        if self.gate is not None:
            self.gate.wait(10)
        if nms_iou == 1:
            raise PyrafuseError("nms_iou cannot be 1")
        if max_detections == 13:
            raise ZeroDivisionError
        frames = list(frames)
        assert batch_size == len(frames)
        self.batches.append(len(frames))
        for frame in frames:
            height, width = frame.image.shape[:2]
            kept = np.array([k for k in range(len(self.card.names)) if not labels or k in labels], np.int64)
            kept = kept[:max_detections]
            scores = np.full(len(kept), frame.image.mean() / 255, np.float32)
            kept = kept[scores >= score_threshold]
            boxes = np.stack([kept, kept, kept * 0 + width, kept * 0 + height], axis=1).astype(np.float32)
            yield Detections(boxes, scores[: len(kept)], kept, kept * 0, self.card.names, (height, width))


@contextmanager
def serving(detectors, limits=Limits(), **options):  # noqa: B008
    service = Service(detectors, limits)
    with listen("127.0.0.1", 0) as taken:
        config = uvicorn.Config(
            create_app(service, **options), http=Impatient, timeout_graceful_shutdown=1, log_level="error"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        try:
            yield Client(taken.getsockname()[1], service)
        finally:
            server.should_exit = True
            thread.join()


class Client:
    def __init__(self, port, service):
        self.port, self.service = port, service

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def send(self, data, path="/predict"):
        return self.ask("POST", path, data, Content_Type="image/png")

    def send_json(self, **values):
        return self.ask("POST", "/predict", json.dumps(values), Content_Type="application/json")

    def send_form(self, *fields):
        parts = [
            f'--edge\r\nContent-Disposition: form-data; name="{name}"'.encode()
            + (b'; filename="photo.png"' if isinstance(value, bytes) else b"")
            + b"\r\n\r\n"
            + (value if isinstance(value, bytes) else value.encode())
            for name, value in fields
        ]
        body = b"\r\n".join(parts) + b"\r\n--edge--\r\n"
        return self.ask("POST", "/predict", body, Content_Type="multipart/form-data; boundary=edge")


def encode(brightness=255, size=(40, 30), kind="png"):
    buffer = io.BytesIO()
    Image.new("RGB", size, (brightness,) * 3).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def client():
    with serving({"first": Corners(), "second": Corners(("bird",))}, Limits(megabytes=0.1, megapixels=0.5)) as client:
        yield client


WHITE = encode()
TEXT = base64.b64encode(WHITE).decode()


def test_an_image_is_answered_in_each_form(client):
    expected = [(0, "cat", 1.0, [0, 0, 40, 30], 0), (1, "dog", 1.0, [1, 1, 40, 30], 0)]
    for status, answer in (
        client.send(WHITE),
        client.send_json(image=TEXT),
        client.send_json(image=f"data:image/png;base64,{TEXT}"),
        client.send_json(image=base64.encodebytes(WHITE).decode()),
        client.send_form(("image", WHITE)),
    ):
        assert status == 200
        assert (answer["model"], answer["height"], answer["width"]) == ("first", 30, 40)
        assert [(*o.values(),) for o in answer["objects"]] == [(a, b, c, d, e) for a, b, c, d, e in expected]
        assert answer["milliseconds"] > 0


def test_options_are_taken_in_each_form(client):
    dim = encode(128)
    for status, answer in (
        client.send(dim, "/predict?score=0.4&classes=dog&model=first"),
        client.send_json(image=base64.b64encode(dim).decode(), score=0.4, classes=["dog"], model="first"),
        client.send_form(("image", dim), ("score", "0.4"), ("classes", "dog"), ("model", "first")),
    ):
        assert status == 200
        assert [o["name"] for o in answer["objects"]] == ["dog"]
    assert client.send(dim, "/predict?score=0.6")[1]["objects"] == []
    assert client.send(encode(60))[1]["objects"] == []  # below the server's own 0.25
    assert [o["name"] for o in client.send(WHITE, "/predict?model=second")[1]["objects"]] == ["bird"]
    assert len(client.send(WHITE, "/predict?max_detections=1")[1]["objects"]) == 1


def bomb():
    """The header of a PNG of 10 000 x 10 000 pixels."""
    header = b"IHDR" + (10_000).to_bytes(4, "big") * 2 + WHITE[24:29]
    return WHITE[:12] + header + zlib.crc32(header).to_bytes(4, "big") + WHITE[33:]


@pytest.mark.parametrize(
    ("ask", "status", "said"),
    [
        (lambda c: c.send(b""), 400, "there is no image in the request"),
        (lambda c: c.send_json(image=""), 400, "there is no image in the request"),
        (lambda c: c.send_json(score=0.5), 400, "the JSON is wrong: image: Field required"),
        (lambda c: c.send_json(image=TEXT, score="high"), 400, "score: Input should be a valid number"),
        (lambda c: c.send_json(image=TEXT, score=1.5), 400, "score: Input should be less than or equal to 1"),
        (lambda c: c.send_json(image=TEXT, max_detections=10**30), 400, "max_detections: Input should be less than or"),
        (lambda c: c.send_json(image=TEXT, classes=[0] * 10_001), 400, "classes: List should have at most 10000 items"),
        (lambda c: c.send_json(image=TEXT, model="a" * 50_000), 400, "model: String should have at most 200"),
        (
            lambda c: c.ask("POST", "/predict", WHITE, Content_Type="image/png", Content_Encoding="gzip"),
            415,
            "the content encoding is gzip: send the request uncompressed",
        ),
        (lambda c: c.send_json(image=TEXT, size=640), 400, "size: there is no such option; choose from model, score"),
        (lambda c: c.send_json(image="§"), 400, "image is no base64"),
        (lambda c: c.send_json(image="http://localhost/a.png"), 400, "URLs are not fetched"),
        (
            lambda c: c.ask("POST", "/predict", '{"image": ', Content_Type="application/json"),
            400,
            "the JSON is wrong: Invalid JSON: EOF while parsing a value at line 1 column 10",
        ),
        (
            lambda c: c.ask("POST", "/predict", "[" * 50_000, Content_Type="application/json"),
            400,
            "the JSON is wrong: Invalid JSON",
        ),
        (lambda c: c.send_form(("score", "0.5")), 400, "the form has 0 files: send one image a request"),
        (lambda c: c.send_form(("image", WHITE), ("image", WHITE)), 400, "the form has 2 files"),
        (
            lambda c: c.ask("POST", "/predict", b"--x", Content_Type="multipart/form-data"),
            400,
            "the form cannot be read",
        ),
        (lambda c: c.send_form(("image", WHITE), ("score", "nan")), 400, "an option is wrong: score"),
        (lambda c: c.send(encode(kind="jpeg")[:-60]), 400, "the image is damaged or cannot be read"),
        (lambda c: c.send_form(("image", b"just a text")), 415, "photo.png is no image that can be read (JPEG, PNG"),
        (lambda c: c.send(b"<html>"), 415, "is no image but a web page"),
        (lambda c: c.ask("POST", "/predict", "a=b", Content_Type="text/csv"), 415, "the content type is text/csv"),
        (lambda c: c.ask("POST", "/predict"), 415, "the content type is not given"),
        (lambda c: c.send(bomb()), 413, "has 10000 x 10000 pixels, more than the 500,000 that are read"),
        (lambda c: c.send(b"x" * 100_001), 413, "the request is larger than 100,000 bytes"),
        (lambda c: c.send(WHITE, "/predict?model=firts"), 404, "unknown model 'firts'; did you mean 'first'?"),
        (lambda c: c.send(WHITE, "/predict?classes=cow"), 400, "unknown class 'cow'"),
        (lambda c: c.send(WHITE, "/predict?nms_iou=1"), 400, "nms_iou cannot be 1"),
        (lambda c: c.send(WHITE, "/predict?max_detections=13"), 500, "the server failed: its log says why"),
        (lambda c: c.ask("GET", "/no/such"), 404, "there is nothing at /no/such: /docs lists what there is"),
        (lambda c: c.ask("GET", "/predict"), 405, "/predict does not take GET"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_gets_a_sentence_and_its_status(client, ask, status, said):
    given, answer = ask(client)
    assert (given, list(answer)) == (status, ["error"])
    assert said in answer["error"]
    assert "\n" not in answer["error"]
    assert client.send(WHITE)[0] == 200  # the server lives on


def test_models_and_health_are_told(client):
    assert client.ask("GET", "/models") == (200, [
        {"name": "first", "detector": "", "file": "", "classes": ["cat", "dog"], "size": [64, 64]},
        {"name": "second", "detector": "", "file": "", "classes": ["bird"], "size": [64, 64]},
    ])  # fmt: skip
    status, health = client.ask("GET", "/health")
    assert (status, health["status"], health["models"], health["requests"]) == (200, "ok", 2, 0)


def test_the_reference_needs_nothing_from_elsewhere(client):
    connection = http.client.HTTPConnection("127.0.0.1", client.port)
    connection.request("GET", "/docs")
    page = connection.getresponse().read().decode()
    connection.close()
    assert all(f"{path}</code></h2>" in page for path in ("/predict", "/models", "/health"))
    assert "nms_iou" in page
    assert "box_xyxy: [number, number, number, number]" in page
    assert [word for word in ("<script", "src=", "<link", "https://") if word in page] == []
    assert set(client.ask("GET", "/openapi.json")[1]["paths"]) == {"/predict", "/models", "/health"}


def test_requests_at_the_same_time_are_computed_together():
    detector = Corners()
    detector.gate = threading.Event()
    with serving({"a": detector}, Limits(batch=4, concurrency=10)) as client, ThreadPoolExecutor(13) as pool:
        shades = [encode(255 - rank) for rank in range(9)]
        asked = [
            pool.submit(client.send, shade, f"/predict?score={rank // 8 * 0.5}") for rank, shade in enumerate(shades)
        ]
        wait_until(lambda: client.service.num_at_work == 9)
        time.sleep(0.2)  # the last one's way from its socket into the queue
        detector.gate.set()
        answers = [future.result() for future in asked]
    assert [status for status, _ in answers] == [200] * 9
    scores = [answer["objects"][0]["score"] for _, answer in answers]  # each gets its own
    assert scores == [pytest.approx((255 - rank) / 255, abs=1e-6) for rank in range(9)]
    assert sorted(detector.batches)[-1] == 4
    assert len(detector.batches) <= 5  # at first one, then 4 + 3 or so, and the one of another score by itself


def wait_until(is_so):
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_more_requests_than_are_allowed_are_told_to_try_again():
    detector = Corners()
    detector.gate = threading.Event()
    with serving({"a": detector}, Limits(concurrency=3)) as client, ThreadPoolExecutor(100) as pool:
        held = [pool.submit(client.send, WHITE) for _ in range(3)]
        wait_until(lambda: client.service.num_at_work == 3)
        others = list(pool.map(lambda _: client.send(WHITE), range(97)))
        assert others == [(503, {"error": "3 requests are at work already: try again in a second"})] * 97
        assert client.ask("GET", "/health")[1]["requests"] == 3
        detector.gate.set()
        assert [future.result()[0] for future in held] == [200] * 3
        assert client.send(WHITE)[0] == 200


def test_what_takes_too_long_is_given_up():
    detector = Corners()
    detector.gate = threading.Event()
    with serving({"a": detector}, Limits(seconds=0.3)) as client:
        status, answer = client.send(WHITE)
        assert (status, answer["error"][:36]) == (504, "the answer took longer than 0.3 s: t")
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=10)
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Type", "image/png")
        connection.putheader("Content-Length", str(len(WHITE)))
        connection.endheaders(WHITE[:20])  # and no more
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]) == (
            408, "the request took longer than 0.3 s to arrive",
        )  # fmt: skip
        connection.close()
        detector.gate.set()
        assert client.send(WHITE)[0] == 200
        assert client.service.num_at_work == 0


def test_images_of_unequal_sizes_share_no_input_that_follows_the_image():
    detector = Corners(fit="keep_ratio")
    detector.gate = threading.Event()
    with serving({"a": detector}) as client, ThreadPoolExecutor(4) as pool:
        sizes = [(40, 30), (30, 40), (40, 30), (30, 40)]
        asked = [pool.submit(client.send, encode(size=size)) for size in sizes]
        wait_until(lambda: client.service.num_at_work == 4)
        time.sleep(0.2)
        detector.gate.set()
        assert [(a["width"], a["height"]) for _, a in (future.result() for future in asked)] == sizes
    assert max(detector.batches) == 2


def test_a_server_of_this_machine_answers_to_no_other_name():
    with serving({"a": Corners()}, hosts=("127.0.0.1", "localhost")) as client:
        assert client.ask("GET", "/health")[0] == 200
        connection = http.client.HTTPConnection("127.0.0.1", client.port)
        connection.request("GET", "/health", headers={"Host": "elsewhere.example"})
        answer = connection.getresponse()
        assert answer.status == 400
        assert json.loads(answer.read())["error"].startswith("this server answers to 127.0.0.1, localhost alone")
        connection.close()


def test_a_client_that_leaves_early_is_no_fault_of_the_server(capsys):
    with serving({"a": Corners()}) as client:
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as leaving:
            leaving.sendall(
                b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nx"
            )
            leaving.shutdown(socket.SHUT_WR)
            assert leaving.recv(100) == b""
        assert client.send(WHITE)[0] == 200
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("begun", [b"", b"POST /predict HTTP/1.1\r\nHost: a\r\n"])
def test_a_connection_without_a_request_is_closed(begun):
    with serving({"a": Corners()}) as client:
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as waiting:
            waiting.sendall(begun)
            assert waiting.recv(100) == b""
        assert client.send(WHITE)[0] == 200


def test_a_port_in_use_is_a_sentence():
    with listen("127.0.0.1", 0) as taken, pytest.raises(PyrafuseError, match="is in use: give --port 0 for any"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(PyrafuseError, match=r"--port must be in 0\.\.65535, got 70000"):
        listen("127.0.0.1", 70000)
    with pytest.raises(PyrafuseError, match=r"cannot listen on 192\.0\.2\.1: "):
        listen("192.0.2.1", 0)


def test_models_are_named_after_their_run_or_file():
    files = ["runs/mine/best.ckpt", "runs/other/last.ckpt", "a.onnx", "b/a.xml", "best.ckpt"]
    assert name_models(files) == ["mine", "other", "a", "a-2", "best"]


@pytest.mark.parametrize(
    ("limits", "said"),
    [({"megabytes": 0}, "megabytes must be in"), ({"seconds": float("nan")}, "seconds"), ({"batch": 0}, "batch must")],
)
def test_limits_are_checked(limits, said):
    with pytest.raises(PyrafuseError, match=said):
        Limits(**limits)


@pytest.fixture
def no_loop():
    """No running loop: the browser of other tests keeps one in this thread."""
    kept = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    yield
    asyncio._set_running_loop(kept)


@pytest.mark.usefixtures("no_loop")
def test_a_signal_before_the_loop_runs_ends_the_server(monkeypatch):
    make = uvicorn.Config.get_loop_factory

    def signalled(config):
        signal.raise_signal(signal.SIGTERM)
        return make(config)

    monkeypatch.setattr(uvicorn.Config, "get_loop_factory", signalled)
    service = Service({"corners": Corners()})
    with listen("127.0.0.1", 0) as taken, as_interrupts() as received:
        run(create_app(service), taken, grace_s=1)
        gc.collect()  # nothing was begun that nobody awaited: that would be a warning, and warnings are errors
    assert received == [signal.SIGTERM]
    assert service.batchers["corners"].detect(np.zeros((8, 8, 3), np.uint8), Choice()).cancelled()
