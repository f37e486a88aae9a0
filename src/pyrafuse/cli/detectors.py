"""The detector that a command is given: from a checkpoint, or from an exported file, which needs no PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pyrafuse.base.errors import PyrafuseError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrafuse.base.terminal import Terminal
    from pyrafuse.base.views.cutting import Merge, Views
    from pyrafuse.evaluation.coco import CocoEvaluator
    from pyrafuse.inference.predicting import Predictor
    from pyrafuse.models.detector import Detector
    from pyrafuse.runtime.detector import ExportedDetector


Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Speedups:
    """What a detector is made faster by: see `Detector.optimized`."""

    optimize: bool = False
    compiled: bool = False
    precision: Precision = "fp32"

    @property
    def given(self) -> str:
        """The options that ask for them, as they are typed."""
        options = ("--optimize" * self.optimize, "--compile" * self.compiled)
        return " ".join(filter(None, (*options, "--precision bf16" * (self.precision == "bf16"))))

    def apply(self, detector: "Detector") -> "Detector":
        """A faster copy of ``detector``; itself if nothing is asked for."""
        return detector.optimized(precision=self.precision, compiled=self.compiled) if self.given else detector


NO_SPEEDUPS = Speedups()


def load_any(
    model: Path, device: str, speedups: Speedups = NO_SPEEDUPS, *, threads: int | None = None
) -> "Detector | ExportedDetector":
    """Read ``model`` by its suffix: an exported file, or else a checkpoint, and make it faster if asked.

    Args:
        model: The file.
        device: ``auto``, ``cpu``, ``gpu`` or the number of a GPU.
        speedups: What makes it faster.
        threads: Number of threads; by default what the library chooses.

    Raises:
        CheckpointError: If it cannot be read.
        PyrafuseError: If there is no such device, or an exported file is asked to run on another than the processor, or
            to be made faster.
    """
    from pyrafuse.runtime.loading import is_exported, load

    if is_exported(model):
        if device not in {"auto", "cpu"}:
            raise PyrafuseError(f"{model} is exported and runs on the processor: leave --device {device} out")
        if speedups.given:
            raise PyrafuseError(f"{model} is exported, and computes as it was exported: leave {speedups.given} out")
        return load(model, threads=threads)
    from pyrafuse.core.devices import choose_device
    from pyrafuse.importers.loading import load as load_checkpoint

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return speedups.apply(load_checkpoint(model, device=choose_device(device)))


def choose_views(
    model: Path,
    console: "Terminal",
    *,
    tile: int | None,
    overlap: float | None,
    augment: "Sequence[str]",
    merge: "Merge | None",
) -> "Views":
    """The views that the options ask for; without ``tile`` the tiles that ``model`` was trained on, which is said.

    Raises:
        PyrafuseError: On the same faults as `read_views`.
    """
    from pyrafuse.base.views.cutting import read_views
    from pyrafuse.cli.own_data import read_tiles

    if tile is None and (trained_on := read_tiles(model)) is not None:
        tile, own_overlap = trained_on
        overlap = own_overlap if overlap is None else overlap
        console.print(
            f"in tiles of {tile} px, overlap {overlap:g}, as {model} was trained; --tile 0 takes whole images"
        )
    return read_views(tile=tile, overlap=overlap, augment=augment, merge=merge)


def describe_views(detector: object) -> dict[str, str]:
    """Name and value of what a page tells of the tiles of ``detector``; nothing of one that takes whole images."""
    views: Views | None = getattr(detector, "views", None)
    return {} if views is None or views.tile is None else {"tiles": f"{views.tile} px, overlap {views.overlap:g}"}


def load_detecting(
    model: Path, device: str, speedups: Speedups = Speedups(), views: "Views | None" = None
) -> "tuple[Predictor, Callable[..., CocoEvaluator]]":
    """What `load_any` gives, in ``views`` of each image, and what detects with it in a whole data set."""
    from pyrafuse.base.views.detecting import InViews, in_views
    from pyrafuse.runtime.loading import is_exported

    detector = in_views(load_any(model, device, speedups), views)
    if is_exported(model) or isinstance(detector, InViews):
        from pyrafuse.inference.evaluating import detect_all
    else:
        from pyrafuse.models.evaluating import detect_all
    return detector, detect_all


def strides_of(detector: object) -> tuple[int, ...]:
    """Pixels a cell of each pyramid level, finest first; none where the detector does not tell: an exported file."""
    neck = getattr(getattr(detector, "detector", detector), "neck", None)  # of a detector in views, its own
    return () if neck is None else tuple(neck.features.strides)
