"""Files from a server of this machine: whole and checked, or an error that says what to type."""

import hashlib
import http.server
import io
import socket
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torchvision.models import get_model_weights

import pyrafuse
from pyrafuse.base import downloading
from pyrafuse.base.downloading import _Redirections, open_address, read_pieces
from pyrafuse.base.errors import CheckpointError, PyrafuseError, UnknownNameError
from pyrafuse.base.paths import find_checkpoint
from pyrafuse.base.published_files import DETECTORS, find_published
from pyrafuse.cli.train import read_weights
from pyrafuse.importers import origins
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model


@dataclass
class Server:
    """What the server of a test gives, and how."""

    port: int
    content: bytes = b"x" * 1000
    length: int | None = None
    status: int = 200
    pause_s: float = 0.0
    leads_to: str = ""
    asked: list[str] = field(default_factory=list)
    logins: list[str | None] = field(default_factory=list)

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/files/{name}"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server of this machine; caches are empty, and it has half a second to answer."""
    monkeypatch.setattr(downloading, "ANSWER_WITHIN_S", 0.5)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("PYRAFUSE_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.asked.append(self.path)
            state.logins.append(self.headers["Authorization"])
            if state.leads_to:
                self.send_response(302)
                self.send_header("Location", state.leads_to)
                self.end_headers()
                return
            if state.status != 200:
                self.send_error(state.status)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(state.content) if state.length is None else state.length))
            self.end_headers()
            half = len(state.content) // 2
            self.wfile.write(state.content[:half])
            self.wfile.flush()
            time.sleep(state.pause_s)
            self.wfile.write(state.content[half:])

        def log_message(self, *_):
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(listening.server_address[1])
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield state
    listening.shutdown()
    thread.join()
    listening.server_close()


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_file_is_fetched_once_and_compared_with_its_name(server, tmp_path, capsys):
    digest = hashlib.sha256(server.content).hexdigest()[:8]
    assert not digest.isdecimal()
    address = server.address(f"w-{digest}.pth")
    first = find_published(address)
    assert first.read_bytes() == server.content
    assert first.name == f"w-{digest}.pth"
    assert find_checkpoint(Path(address)) == first  # a path has a single slash
    assert server.asked == [f"/files/w-{digest}.pth"]
    assert f"fetching {address} (0.0 MB)" in capsys.readouterr().err
    assert files_in(tmp_path / "cache") == [first]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"content": b"y" * 1000}, r"its SHA-256 begins with [0-9a-f]{8}, and should with d1beef00; download http"),
        ({"length": 2000}, r"127\.0\.0\.1:\d+ ended after 1,000 of 2,000 bytes; download http"),
        (
            {"status": 404},
            r"127\.0\.0\.1:\d+ answers 404 Not Found; download http.* where there is a network, ",
        ),
        ({"status": 503}, r"127\.0\.0\.1:\d+ answers 503 Service Unavailable; "),
    ],
)
def test_what_is_not_the_file_leaves_nothing(server, tmp_path, change, said):
    vars(server).update(change)
    with pytest.raises(CheckpointError, match=rf"^cannot fetch http://127.*w-d1beef00\.pth: {said}"):
        find_published(server.address("w-d1beef00.pth"))
    assert files_in(tmp_path) == []


def test_a_slow_server_is_waited_for_and_one_that_stalls_is_not(server, monkeypatch, tmp_path):
    server.pause_s = 0.7  # longer than an answer may take
    assert find_published(server.address("slow.pth")).read_bytes() == server.content
    monkeypatch.setattr(downloading, "STALLED_AFTER_S", 0.2)
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1:\d+ sent nothing for 0\.2 s; download http"):
        find_published(server.address("stalled.pth"))
    assert [path.name for path in files_in(tmp_path)] == ["slow.pth"]


def test_a_server_that_sends_a_little_now_and_then_is_not_waited_for(server, monkeypatch):
    server.pause_s = 0.1
    monkeypatch.setattr(downloading, "STALLED_AFTER_S", 0.05)
    monkeypatch.setattr(downloading, "SLOWEST", 100_000)
    with open_address(server.address("drip.png"), timeout_s=5) as answer:
        pieces = read_pieces(answer, "a.org")
        assert next(pieces) == server.content[:500]
        with pytest.raises(TimeoutError, match=r"a\.org sends less than 100,000 bytes a second"):
            next(pieces)


def test_redirections_stay_within_http_and_lead_here_only_from_here(server):
    server.leads_to = "ftp://127.0.0.1/x.pth"
    with pytest.raises(CheckpointError, match=r"answers 302 and leads to ftp://127.0.0.1/x.pth, where nothing is"):
        find_published(server.address("model.pth"))
    server.leads_to = server.address("there.pth")
    with pytest.raises(urllib.error.HTTPError, match="redirect"):  # in a circle: it is followed
        open_address(server.address("model.pth"))
    elsewhere = urllib.request.Request("http://203.0.113.7/model.pth")
    with pytest.raises(urllib.error.HTTPError, match=r"leads to http://127.0.0.1:\d+/files/there.pth"):
        _Redirections().redirect_request(elsewhere, None, 302, "Found", {}, server.leads_to)
    assert _Redirections().redirect_request(elsewhere, None, 302, "Found", {}, "https://203.0.113.8/x") is not None


def test_without_a_network(server):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server.port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(CheckpointError, match=r"127\.0\.0\.1:\d+ does not answer within 0\.5 s; download http"):
            find_published(server.address("a.pth"))
        assert time.monotonic() - began < 5
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1:\d+ cannot be reached \(.*refused.*\); download http"):
        find_published(server.address("a.pth"))


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("http://[bad/x.pth", CheckpointError, r"http://\[bad/x\.pth is no address \(.*\); write https://HOST/PATH"),
        ("https:///x.pth", CheckpointError, "cannot fetch"),
        (
            "torchvision/resnet50",
            UnknownNameError,
            "unknown published detector 'torchvision/resnet50'.* choose from",
        ),
        ("torchvision/fcos", UnknownNameError, "did you mean 'torchvision/fcos_resnet50_fpn'"),
    ],
)
def test_what_nobody_publishes(address, error, said):
    with pytest.raises(error, match=said):
        find_checkpoint(address)


def test_names_stay_in_their_folder(server, tmp_path):
    for name in ("..%2F..%2Fescaped", "..", "%00", "?a=b"):
        assert tmp_path / "cache" / "weights" in find_published(server.address(name)).parents


def test_a_full_disk_is_told_as_such(server, full_disk, tmp_path):
    server.content = b"z" * 3_000_000
    with full_disk(1_000_000), pytest.raises(PyrafuseError, match=r"cannot write .*big\.pth: .*; free space"):
        find_published(server.address("big.pth"))
    assert files_in(tmp_path) == []


def test_detectors_have_the_names_that_can_be_imported():
    assert set(DETECTORS) == {f"torchvision/{name}" for name in origins.TORCHVISION.layouts}
    assert read_weights("torchvision/fcos_resnet50_fpn") == [("model.start_from", "torchvision/fcos_resnet50_fpn")]
    assert read_weights("torchvision/resnet50") == [("model.backbone_weights", "torchvision/resnet50")]


@pytest.fixture
def checkpoint(server, tmp_path):
    """A small detector, which the server has."""
    save(create_model("yolov3_small", num_classes=2, backbone={"width": 0.25}), tmp_path / "own.ckpt")
    server.content = (tmp_path / "own.ckpt").read_bytes()
    (tmp_path / "own.ckpt").unlink()
    return hashlib.sha256(server.content).hexdigest()[:8]


def test_a_published_detector_is_fetched_by_its_name(server, checkpoint, monkeypatch, tmp_path):
    name = "torchvision/fcos_resnet50_fpn"
    assert DETECTORS[name] == get_model_weights("fcos_resnet50_fpn").DEFAULT.url
    monkeypatch.setitem(DETECTORS, name, server.address(f"fcos_resnet50_fpn_coco-{checkpoint}.pth"))
    assert pyrafuse.load(name).card.model == "yolov3_small"
    # what others fetched by torch is there too, and an importer reads `_coco` in the file's name
    (found,) = files_in(tmp_path)
    assert found == tmp_path / "torch" / "hub" / "checkpoints" / f"fcos_resnet50_fpn_coco-{checkpoint}.pth"
    assert len(server.asked) == 1


def test_an_address_is_a_detector_or_weights_of_a_backbone(server, checkpoint):
    address = server.address("own.ckpt")
    assert read_weights(address) == [("model.start_from", address)]
    assert pyrafuse.load(address).card.model == "yolov3_small"
    written = io.BytesIO()
    torch.save({"a.weight": torch.ones(2)}, written)
    server.content = written.getvalue()
    other = server.address("backbone.pth")
    assert read_weights(other) == [("model.backbone_weights", other)]
    assert len(server.asked) == 2


def test_a_login_goes_to_its_server_alone_and_into_no_message(server, capsys):
    address = server.address("a.pth").replace("://", "://me:top%3Asecret@")
    assert find_checkpoint(address).read_bytes() == server.content
    assert server.logins == ["Basic bWU6dG9wOnNlY3JldA=="]  # me:top:secret
    server.leads_to = server.address("b.pth")
    with pytest.raises(CheckpointError, match=r"cannot fetch http://127\.0\.0\.1:\d+/files/c\.pth: ") as raised:
        find_checkpoint(address.replace("a.pth", "c.pth"))
    assert server.logins[1] is not None
    assert set(server.logins[2:]) == {None}  # where a redirection led
    assert "secret" not in str(raised.value) + capsys.readouterr().err
