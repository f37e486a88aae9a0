"""Object detectors built on fused feature pyramids: any pyramid on any backbone under any head."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyrafuse.base.extras import naming_extras

if TYPE_CHECKING:
    from pyrafuse.base.detections import Detections
    from pyrafuse.base.errors import PyrafuseError
    from pyrafuse.cli.calling import diff, evaluate, export, search_necks, train
    from pyrafuse.importers.loading import load
    from pyrafuse.models.checkpoint import save
    from pyrafuse.models.classifier import create_classifier
    from pyrafuse.models.factory import create_backbone, create_model, list_models

__all__ = [
    "Detections",
    "PyrafuseError",
    "create_backbone",
    "create_classifier",
    "create_model",
    "diff",
    "evaluate",
    "export",
    "list_models",
    "load",
    "save",
    "search_necks",
    "train",
]
__version__ = "0.1.0"

_HOMES = {
    "Detections": "pyrafuse.base.detections",
    "PyrafuseError": "pyrafuse.base.errors",
    "create_backbone": "pyrafuse.models.factory",
    "create_classifier": "pyrafuse.models.classifier",
    "create_model": "pyrafuse.models.factory",
    "diff": "pyrafuse.cli.calling",
    "evaluate": "pyrafuse.cli.calling",
    "export": "pyrafuse.export",
    "list_models": "pyrafuse.models.factory",
    "load": "pyrafuse.importers.loading",
    "save": "pyrafuse.models.checkpoint",
    "search_necks": "pyrafuse.cli.calling",
    "train": "pyrafuse.cli.calling",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `pyrafuse --help` must not wait for torch."""
    if name == "runtime":
        return import_module("pyrafuse.runtime")
    if name not in _HOMES:
        raise AttributeError(f"module 'pyrafuse' has no attribute {name!r}")
    with naming_extras():
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
