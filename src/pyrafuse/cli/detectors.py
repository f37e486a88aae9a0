"""The detector that a command is given: from a checkpoint, or from an exported file, which needs no PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING

from pyrafuse.base.errors import PyrafuseError

if TYPE_CHECKING:
    from pyrafuse.models.detector import Detector
    from pyrafuse.runtime.detector import ExportedDetector


def load_any(model: Path, device: str) -> "Detector | ExportedDetector":
    """Read ``model`` by its suffix: an exported file, or else a checkpoint.

    Raises:
        CheckpointError: If it cannot be read.
        PyrafuseError: If there is no such device, or an exported file is asked to run on another than the processor.
    """
    from pyrafuse.runtime.loading import is_exported, load

    if is_exported(model):
        if device not in {"auto", "cpu"}:
            raise PyrafuseError(f"{model} is exported and runs on the processor: leave --device {device} out")
        return load(model)
    from pyrafuse.core.devices import choose_device
    from pyrafuse.importers.loading import load as load_checkpoint

    return load_checkpoint(model, device=choose_device(device))
