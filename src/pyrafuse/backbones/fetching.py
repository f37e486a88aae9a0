"""Pretrained weights by their published name: the file in a cache, fetched unless it is there.

``torchvision/NAME`` or ``timm/NAME`` -> address, or file on Hugging Face's hub -> file
"""

import hashlib
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torchvision

from pyrafuse.base.downloading import STALLED_AFTER_S, answer_in_time, describe_failure, describe_remedy, host_of
from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.published_files import fetch_torch_file

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm looks for on Hugging Face's hub, in this order."""

REMEDY = " (--weights FILE), or train from nothing: --weights none"


def find_torchvision_file(name: str) -> Path:
    """The file of a model of torchvision.

    Raises:
        CheckpointError: If it cannot be fetched.
    """
    published: Any = torchvision.models.get_model_weights(name)
    return fetch_torch_file(published.DEFAULT.url, what=f"the weights torchvision/{name}", remedy=REMEDY)


def find_timm_file(name: str) -> Path | None:
    """The file of a model of timm; None for a model without published weights.

    Raises:
        CheckpointError: If it cannot be fetched.
    """
    published: Any = timm.get_pretrained_cfg(name)
    if published is None:
        return None
    what = f"the weights timm/{name}"
    if not (hub := published.hf_hub_id):
        return fetch_torch_file(published.url, what=what, remedy=REMEDY) if published.url else None
    repository, _, revision = hub.partition("@")
    names = (published.hf_hub_filename,) if published.hf_hub_filename else HUB_FILES
    for file in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    address = huggingface_hub.hf_hub_url(repository, names[0], revision=revision or None)
    remedy = describe_remedy(address, REMEDY)
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise CheckpointError(f"cannot fetch {what}: HF_HUB_OFFLINE is set, and the hub's cache lacks it; {remedy}")
    try:
        with suppress(urllib.error.HTTPError):  # an answer: a mirror may refuse the question, and have the file
            answer_in_time(lambda: _ask(address), host_of(address))
        with _stalling_ends():
            file = Path(huggingface_hub.hf_hub_download(repository, names[0], revision=revision or None))
    except (OSError, RuntimeError) as error:
        reason = describe_failure(error, host_of(address))
        raise CheckpointError(f"cannot fetch {what}: {reason}; {remedy}") from error
    if fault := _compare_blob(file):
        raise CheckpointError(f"cannot fetch {what}: {fault}; {remedy}")
    return file


def _ask(address: str) -> None:
    request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "pyrafuse"})
    urllib.request.urlopen(request, timeout=STALLED_AFTER_S).close()


def _compare_blob(file: Path) -> str:
    """How a file differs from its name in the hub's cache, its SHA-256 where the hub tells one; then it is removed."""
    blob = Path(os.path.realpath(file))
    if not re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return ""
    with blob.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found == blob.name:
        return ""
    blob.unlink()
    return f"its SHA-256 begins with {found[:8]}, and should with {blob.name[:8]}"


@contextmanager
def _stalling_ends() -> Iterator[None]:
    """Let sockets that are opened within the block give up when nothing comes, however the library asks."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before or STALLED_AFTER_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
