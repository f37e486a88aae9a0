"""Exported detectors from files: file -> engine -> metadata -> `ExportedDetector`."""

import os
from pathlib import Path

from pyrafuse.base.errors import CheckpointError, PyrafuseError, check_count
from pyrafuse.base.exported import METADATA_KEY, Interface, read_metadata
from pyrafuse.base.paths import find_checkpoint
from pyrafuse.base.printable import list_names
from pyrafuse.runtime.detector import ExportedDetector
from pyrafuse.runtime.engines.registry import ENGINES, Engine
from pyrafuse.runtime.outputs import OUTPUTS


def load(path: str | os.PathLike[str], *, engine: str | None = None, threads: int | None = None) -> ExportedDetector:
    """Read an exported detector: an ONNX file (.onnx), or one of OpenVINO (.xml with .bin beside it).

    PyTorch is not needed, and nothing in the file is executed but its graph.

    Args:
        path: The file; what it takes and gives lies in it.
        engine: Library that runs it, by the names of `ENGINES`; by default the one that reads such files.
        threads: Number of threads; by default what the library chooses.

    Raises:
        CheckpointError: If the file cannot be read, was not exported by pyrafuse, or is not what it says.
        MissingLibraryError: If the library is not installed.
        PyrafuseError: If the file gives no detections but what other programs make them of.
    """
    path = find_checkpoint(path)
    if threads is not None:
        check_count("threads", threads, 1)
    ready = ENGINES.create(engine or _engine_of(path), path, threads=threads)
    if METADATA_KEY not in ready.metadata:
        raise CheckpointError(
            f"{path} was not exported by pyrafuse: it gives {list_names(ready.outputs) or 'nothing'} and says nothing "
            f"of its classes and images; a file of `pyrafuse export MODEL -o FILE` gives {', '.join(OUTPUTS['nms'])}"
        )
    card, interface = read_metadata(ready.metadata, source=path)
    if interface.output not in OUTPUTS:
        raise PyrafuseError(
            f"{path} gives {interface.output} predictions, for other programs: export it with --output nms or rows to "
            "detect with it here"
        )
    given = {} if card.spec is None else card.spec.postprocess.options
    if interface.output == "rows" and (given.get("suppression", "hard") != "hard" or given.get("vote_iou")):
        raise PyrafuseError(
            f"{path} gives candidates, and its detector's way of suppression is not greedy, which is all that runs "
            "here: export it with --output nms"
        )
    _check_ends(path, ready, interface)
    return ExportedDetector(ready, card, interface, path=path)


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` has the suffix of files that `load` reads."""
    return bool(_engines_of(Path(path)))


def _engine_of(path: Path) -> str:
    engines = _engines_of(path)
    if not engines:
        known = sorted({suffix for name in ENGINES.names() for suffix in ENGINES.entry(name).facts["suffixes"]})
        raise CheckpointError(
            f"{path} is no exported detector: those that run here end in {' or '.join(known)}; checkpoints are read by "
            "pyrafuse.load"
        )
    return engines[0]


def _engines_of(path: Path) -> list[str]:
    return [name for name in ENGINES.names() if path.suffix.lower() in ENGINES.entry(name).facts["suffixes"]]


def _check_ends(path: Path, engine: Engine, interface: Interface) -> None:
    """Refuse a file whose graph has other inputs or outputs than its metadata say."""
    for what, found, needed in (
        ("takes", engine.inputs, interface.inputs),
        ("gives", engine.outputs, OUTPUTS[interface.output]),
    ):
        if set(found) != set(needed):
            raise CheckpointError(
                f"{path} {what} {list_names(found) or 'nothing'}, and says that it {what} {', '.join(needed)}: export "
                "it anew"
            )
