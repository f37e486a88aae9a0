"""Weights from the network: whoever has them must answer within seconds, or the error says what to type instead.

name -> file in the library's own cache, or address -> does it answer? -> the library fetches
"""

import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlparse

import huggingface_hub
import timm
import torch

from pyrafuse.base.errors import CheckpointError

ANSWER_WITHIN_S = 8.0
"""Seconds that a server has to answer, name look-up and redirections included."""

STALLED_AFTER_S = 30.0
"""Seconds without any data after which a download that began has failed."""

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm looks for on Hugging Face's hub, in this order."""

T = TypeVar("T")


def fetch(load: Callable[[], T], *, what: str, address: str | None) -> T:
    """Call ``load``, which downloads, if the server at ``address`` answers in time.

    Args:
        load: Downloads and reads.
        what: Name of the weights, ``torchvision/resnet50``, for messages.
        address: URL of the file; None where nothing has to be downloaded.

    Raises:
        CheckpointError: If the server does not answer, or the download fails.
    """
    try:
        if address is not None:
            _require_answer(address)
        with _stalling_ends():
            return load()
    except (OSError, RuntimeError) as error:
        remedy = "give a file, or check the connection"
        if address is not None:
            remedy = (
                f"download {address} where there is a network, and give that file in place of the name: "
                f"--weights {os.path.basename(urlparse(address).path)}"
            )
        raise CheckpointError(f"cannot fetch the weights {what}: {error}; {remedy}") from error


def locate_torch_file(url: str) -> str | None:
    """``url``, or None if the file lies in torch's cache already."""
    name = os.path.basename(urlparse(url).path)
    return None if os.path.isfile(os.path.join(torch.hub.get_dir(), "checkpoints", name)) else url


def locate_timm_file(name: str) -> tuple[str | None, str | None]:
    """(file in the cache of Hugging Face's hub, URL of what is to be downloaded) of a timm model; one of them is None.

    Both are None for a model without published weights, and where the hub is told to stay offline.
    """
    published: Any = timm.get_pretrained_cfg(name)
    if published is None or huggingface_hub.constants.HF_HUB_OFFLINE:
        return None, None
    if not (hub := published.hf_hub_id):
        return None, locate_torch_file(published.url) if published.url else None
    repository, _, revision = hub.partition("@")
    names = (published.hf_hub_filename,) if published.hf_hub_filename else HUB_FILES
    for file in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(cached, str):
            return cached, None
    return None, huggingface_hub.hf_hub_url(repository, names[0], revision=revision or None)


def _require_answer(address: str) -> None:
    """Raise an `OSError` unless the server at ``address`` answers in time, be it with an error.

    In a thread of its own: a name look-up that hangs cannot be interrupted.
    """
    found: list[Exception | None] = []

    def ask() -> None:
        request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "pyrafuse"})
        try:
            urllib.request.urlopen(request, timeout=ANSWER_WITHIN_S).close()
            found.append(None)
        except urllib.error.HTTPError:
            found.append(None)  # an answer: what the library asks for may be there all the same
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN_S)
    host = urlparse(address).netloc
    if not found:
        raise TimeoutError(f"{host} does not answer within {ANSWER_WITHIN_S:g} s")
    if found[0] is not None:
        reason = getattr(found[0], "reason", None) or found[0]
        raise ConnectionError(f"{host} cannot be reached ({reason})")


@contextmanager
def _stalling_ends() -> Iterator[None]:
    """Let sockets that are opened within the block give up when nothing comes; torch's downloads would wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before or STALLED_AFTER_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
