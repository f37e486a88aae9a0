"""Weights from the network: a file that is there needs none, and a server that does not answer ends the wait."""

import hashlib
import http.server
import io
import socket
import threading
from types import SimpleNamespace

import pytest
import timm
import torch
from torchvision.models import get_model_weights

from pyrafuse.backbones import fetching
from pyrafuse.backbones.fetching import find_timm_file, find_torchvision_file
from pyrafuse.backbones.registry import create_backbone
from pyrafuse.backbones.weights import read_published
from pyrafuse.base import downloading
from pyrafuse.base.errors import CheckpointError
from pyrafuse.training.preparing import check_model
from pyrafuse.training.settings import ModelSettings, Recipe


@pytest.fixture
def silent_port():
    """A port of this machine that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return port


@pytest.fixture
def file_server():
    """Serves a file of torch.save to GET; HEAD is refused with a status, as some mirrors do."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(403)

        def do_GET(self):
            content = io.BytesIO()
            torch.save({"a": torch.arange(3.0)}, content)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content.getvalue())))
            self.end_headers()
            self.wfile.write(content.getvalue())

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def published_at(monkeypatch, tmp_path):
    """Let torchvision's and timm's weights lie at a port of this machine, and no cache hold them."""
    monkeypatch.setattr(downloading, "ANSWER_WITHIN_S", 0.5)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def move(port: int) -> None:
        address = f"http://127.0.0.1:{port}/weights-1234.pth"
        transforms = get_model_weights("resnet18").DEFAULT.transforms
        weights = SimpleNamespace(DEFAULT=SimpleNamespace(url=address, transforms=transforms))
        monkeypatch.setattr("torchvision.models.get_model_weights", lambda name: weights)
        monkeypatch.setattr(fetching.huggingface_hub, "hf_hub_url", lambda *_, **__: address)

    return move


def test_a_server_that_never_answers(published_at, silent_port):
    published_at(silent_port)
    said = rf"cannot fetch the weights torchvision/resnet18: 127\.0\.0\.1:{silent_port} (does not answer|cannot be)"
    with pytest.raises(CheckpointError, match=said) as caught:
        read_published("torchvision/resnet18")
    assert f"download http://127.0.0.1:{silent_port}/weights-1234.pth where there is a network" in str(caught.value)
    assert str(caught.value).endswith("(--weights FILE), or train from nothing: --weights none")


@pytest.mark.parametrize("weights", ["timm/resnet18", "timm/resnet18.a1_in1k"])
def test_a_closed_port(published_at, closed_port, weights):
    published_at(closed_port)
    with pytest.raises(CheckpointError, match=rf"weights {weights}: .* cannot be reached .*refused.*; download http"):
        read_published(weights)
    with pytest.raises(CheckpointError, match=rf"weights {weights}: .* cannot be reached .*refused.*; download http"):
        create_backbone("timm/resnet18", weights=weights)


def test_a_name_that_is_not_found(published_at, monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    published_at(80)
    with pytest.raises(CheckpointError, match=r"cannot be reached \(.*Name or service not known\); download"):
        create_backbone("mobilenet_v2", weights="torchvision/mobilenet_v2")


def test_a_name_look_up_that_hangs(published_at, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(60) and [])
    published_at(80)
    try:
        with pytest.raises(CheckpointError, match=r"127\.0\.0\.1:80 does not answer within 0\.5 s"):
            read_published("torchvision/resnet18")
    finally:
        released.set()


def test_a_server_that_answers(published_at, file_server):
    published_at(file_server)
    assert read_published("torchvision/resnet18")["a"].tolist() == [0, 1, 2]


def test_what_was_fetched_before_needs_no_network(published_at, closed_port, tmp_path):
    published_at(closed_port)
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "weights-1234.pth"
    cached.parent.mkdir(parents=True)
    torch.save({"a": torch.ones(2)}, cached)
    assert find_torchvision_file("resnet18") == cached
    assert read_published("torchvision/resnet18")["a"].tolist() == [1, 1]


def test_what_timm_fetched_before_needs_no_network(published_at, closed_port, tmp_path, monkeypatch):
    published_at(closed_port)
    model = timm.create_model("resnet18")
    file = tmp_path / "pytorch_model.bin"
    torch.save(model.state_dict(), file)
    monkeypatch.setattr(
        fetching.huggingface_hub,
        "try_to_load_from_cache",
        lambda repository, name, **_: str(file) if (repository, name) == CACHED else None,
    )
    assert find_timm_file("resnet18.a1_in1k") == file
    assert torch.equal(read_published("timm/resnet18.a1_in1k")["conv1.weight"], model.conv1.weight)
    backbone = create_backbone("timm/resnet18", weights="timm/resnet18.a1_in1k")
    assert torch.equal(backbone.trunk.conv1.weight, model.conv1.weight)
    with pytest.raises(CheckpointError, match=r"timm/resnet18\.tv_in1k"):
        read_published("timm/resnet18.tv_in1k")


CACHED = ("timm/resnet18.a1_in1k", "pytorch_model.bin")


def test_what_the_hub_gave_is_compared_with_its_name(published_at, file_server, monkeypatch, tmp_path):
    published_at(file_server)
    blobs = tmp_path / "hub" / "blobs"
    blobs.mkdir(parents=True)
    content = b"weights"
    for name, fits in ((hashlib.sha256(content).hexdigest(), True), ("ab" * 32, False), ("an-etag", True)):
        (blobs / name).write_bytes(content)
        link = tmp_path / f"model-{name[:4]}.safetensors"
        link.symlink_to(blobs / name)
        monkeypatch.setattr(fetching.huggingface_hub, "hf_hub_download", lambda *_, **__: str(link))  # noqa: B023
        if fits:
            assert find_timm_file("resnet18.a1_in1k") == link
            continue
        with pytest.raises(CheckpointError, match=r"its SHA-256 begins with .{8}, and should with abababab; down"):
            find_timm_file("resnet18.a1_in1k")
        assert not (blobs / name).exists()


def test_a_hub_that_is_told_to_stay_offline(published_at, closed_port, monkeypatch):
    published_at(closed_port)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"timm/resnet18: HF_HUB_OFFLINE is set, .*; download .*weights none"):
        read_published("timm/resnet18")


def test_the_waiting_time_of_others_stays_as_it_was():
    before = socket.getdefaulttimeout()
    with fetching._stalling_ends():
        assert socket.getdefaulttimeout() == (before or fetching.STALLED_AFTER_S)
    assert socket.getdefaulttimeout() == before


def test_a_training_fails_before_it_reads_data_and_says_how_to_train_from_nothing(published_at, silent_port):
    published_at(silent_port)
    model = ModelSettings(name="fcos", backbone="resnet18", backbone_weights="torchvision/resnet18")
    said = r"cannot fetch the weights torchvision/resnet18: .*nothing: --weights none"
    with pytest.raises(CheckpointError, match=said):
        check_model(Recipe(model=model))
