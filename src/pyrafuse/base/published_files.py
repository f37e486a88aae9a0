"""Detectors that are published under a name or an address: in a cache, or fetched into it.

``torchvision/NAME`` or ``https://...`` -> address -> file in the cache; free of torch, so that faults are told at once.
"""

import hashlib
import os
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pyrafuse.base.downloading import download
from pyrafuse.base.errors import CheckpointError, unknown_name
from pyrafuse.base.folders import cache_folder

DETECTORS = {
    f"torchvision/{name}": f"https://download.pytorch.org/models/{name}_coco-{digest}.pth"
    for name, digest in {
        "fasterrcnn_resnet50_fpn": "258fb6c6",
        "fasterrcnn_resnet50_fpn_v2": "dd69338a",
        "fcos_resnet50_fpn": "99b0c9b7",
        "retinanet_resnet50_fpn": "eeacb38b",
        "retinanet_resnet50_fpn_v2": "5905b1c5",
        "ssd300_vgg16": "b556d3b4",
        "ssdlite320_mobilenet_v3_large": "a79551df",
    }.items()
}
"""Name of a detector -> address of its file, whose name ends in the beginning of its SHA-256."""

_ADDRESS = re.compile(r"(https?):/+", re.IGNORECASE)
_DIGEST = re.compile(r"-(?=\d*[a-f])([0-9a-f]{8,64})\.\w+$")
"""How publishers name files after their SHA-256; eight numerals alone are a date."""


def is_address(text: str) -> bool:
    """Whether ``text`` is the address of a file, http or https."""
    return _ADDRESS.match(text) is not None


def is_published_detector(text: str) -> bool:
    """Whether ``text`` is the name of a published detector, and no file lies there."""
    return text in DETECTORS and not os.path.exists(text)


def find_published(text: str) -> Path | None:
    """The file that is published as ``text``; fetched unless the cache holds it. None where ``text`` is a path.

    Raises:
        CheckpointError: If it cannot be fetched.
        UnknownNameError: If it is the name of something else, with the detectors that are published.
    """
    if is_published_detector(text):
        return fetch_torch_file(DETECTORS[text], what=text)
    if is_address(text):
        address = _ADDRESS.sub(lambda found: f"{found[1].lower()}://", text, count=1)  # a path has a single slash
        folder = cache_folder() / "weights" / hashlib.sha256(address.encode()).hexdigest()[:16]
        return _fetch(address, folder, what=address)
    if text.startswith("torchvision/") and not os.path.splitext(text)[1] and not os.path.exists(text):
        raise unknown_name("published detector", text, DETECTORS)
    return None


def fetch_torch_file(address: str, *, what: str, remedy: str = "") -> Path:
    """The file of ``address`` in the cache that torch fetches into as well; fetched unless it is there.

    Args:
        address: Its name ends in the beginning of its SHA-256.
        what: Name of the file, for messages.
        remedy: What to type instead, behind the other remedies.

    Raises:
        CheckpointError: If it cannot be fetched.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("TORCH_HOME") or Path(caches, "torch"), "hub", "checkpoints")
    return _fetch(address, folder, what=what, remedy=remedy)


def _fetch(address: str, folder: Path, *, what: str, remedy: str = "") -> Path:
    try:
        path = urlsplit(address).path
    except ValueError as error:
        raise CheckpointError(f"{address} is no address ({error}); write https://HOST/PATH") from error
    name = re.sub(r"[^\w.@+-]", "_", posixpath.basename(unquote(path))).lstrip(".")[-200:] or "weights"
    file = folder / name
    if not file.is_file():
        digest = _DIGEST.search(name)
        download(address, file, what=what, digest=digest[1] if digest else "", remedy=remedy)
    return file
