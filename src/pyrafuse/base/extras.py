"""Libraries that only some uses need: which extra of the package brings each of them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from traceback import walk_tb

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.printable import printable

EXTRA_OF = {
    **dict.fromkeys(("torch", "torchvision", "timm", "safetensors", "tensorboard"), "train"),
    **dict.fromkeys(("onnxruntime", "openvino", "matplotlib", "faster_coco_eval"), "runtime"),
    **dict.fromkeys(("onnx", "onnxscript", "nncf"), "export"),
    **dict.fromkeys(("fastapi", "uvicorn", "pydantic", "starlette", "anyio"), "serve"),
    "gradio": "app",
    "optuna": "search",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
    **dict.fromkeys(("ray", "pandas"), "ray"),
    "pyarrow": "parquet",
    "fsspec": "shards",
}
"""The smallest extra that brings a library, by the name that is imported."""


class MissingLibraryError(PyrafuseError, ImportError):
    """A library that is not installed; the message holds the line to type."""


@contextmanager
def naming_extras() -> Iterator[None]:
    """A block that imports: a library that is missing is named with the extra that brings it.

    Raises:
        MissingLibraryError: If one of `EXTRA_OF` is missing, or is there and fails as it is imported. Any other error
            of an import is its own.
    """
    try:
        yield
    except ImportError as error:
        missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if missing in EXTRA_OF:
            raise MissingLibraryError(
                f"this needs {missing}, which is not installed: {describe_install(EXTRA_OF[missing])}"
            ) from error
        broken = _place_of(error).partition(".")[0]
        if broken in EXTRA_OF:
            raise MissingLibraryError(
                f"{broken} is installed and cannot be imported: {printable(error, limit=300)}; install it anew: "
                f"pip install --force-reinstall {broken}"
            ) from error
        raise


def describe_install(extra: str) -> str:
    """The line to type for ``extra``, and which environment is meant where `pip` is that of another one."""
    found = which("pip")
    is_ours = found is not None and Path(found).parent == Path(sys.executable).parent
    return f'pip install "pyrafuse[{extra}]"' + ("" if is_ours else f", in the environment {sys.prefix}")


def require(name: str) -> None:
    """Refuse to go on without the library ``name``, which is not imported yet.

    Raises:
        MissingLibraryError: If it is not installed.
    """
    with naming_extras():
        if find_spec(name) is None:
            raise ModuleNotFoundError(name=name)


def _place_of(error: ImportError) -> str:
    """Name of the module that raised ``error``."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", ""))
