"""Libraries that only some uses need: which extra of the package brings each of them."""

from collections.abc import Iterator
from contextlib import contextmanager

from pyrafuse.base.errors import PyrafuseError

EXTRA_OF = {
    **dict.fromkeys(("torch", "torchvision", "timm", "safetensors", "tensorboard"), "train"),
    **dict.fromkeys(("onnxruntime", "openvino", "matplotlib", "faster_coco_eval"), "runtime"),
    **dict.fromkeys(("onnx", "onnxscript", "nncf"), "export"),
    "optuna": "search",
    "ray": "ray",
}
"""The smallest extra that brings a library, by the name that is imported."""


class MissingLibraryError(PyrafuseError, ImportError):
    """A library that is not installed; the message holds the line to type."""


@contextmanager
def naming_extras() -> Iterator[None]:
    """A block that imports: a library that is missing is named with the extra that brings it.

    Raises:
        MissingLibraryError: If one of `EXTRA_OF` is missing. Any other missing module is its own error.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRA_OF:
            raise
        raise MissingLibraryError(
            f'this needs {library}, which is not installed: pip install "pyrafuse[{EXTRA_OF[library]}]"'
        ) from error
