"""A folder that is a web page: the model, onnxruntime-web and one page; drop an image, see the boxes.

captured graph -> model.onnx, model.json -> beside them the page, and the runtime from its npm package
"""

import json
from importlib.resources import files
from pathlib import Path

from pyrafuse.base.exported import Precision, read_metadata
from pyrafuse.export.formats.onnx import ONNX
from pyrafuse.export.npm import Runtime, find_npm, find_runtime, pack_runtime
from pyrafuse.export.registry import FORMATS, Capture, ExportFormat, Run

FIRST_SCORE = 0.25
"""Where the page's slider stands at first."""


@FORMATS.register("web")
class Web(ExportFormat):
    """A folder for any static server; nothing in it asks for anything outside.

    Args:
        ort: Folder of onnxruntime-web, as its npm package has it; by default npm fetches it.
    """

    summary = "a web page that runs the model in the browser, on any static server"
    suffix = ""
    modules = ONNX.modules
    inputs = ("image",)
    outputs = ("nms",)

    def __init__(self, *, ort: str | Path | None = None) -> None:
        self._ort = ort

    def require(self, precision: Precision) -> None:
        super().require(precision)
        if self._ort is None:
            find_npm()
        else:
            find_runtime(Path(self._ort))

    def write(self, capture: Capture, path: Path) -> None:
        path.mkdir()
        ONNX().write(capture, path / "model.onnx")
        runtime = pack_runtime() if self._ort is None else find_runtime(Path(self._ort))
        for name, content in runtime.files.items():
            (path / "ort").mkdir(exist_ok=True)
            (path / "ort" / name).write_bytes(content)
        (path / "model.json").write_text(json.dumps(_describe(capture, runtime), indent=1) + "\n", encoding="utf-8")
        for page in files("pyrafuse.export").joinpath("page").iterdir():
            (path / page.name).write_bytes(page.read_bytes())

    def open(self, path: Path) -> Run:
        """The folder's model, in onnxruntime: the same file that the page runs, and the page itself is not tested."""
        return ONNX().open(path / "model.onnx")


def _describe(capture: Capture, runtime: Runtime) -> dict[str, object]:
    """What the page needs to know of the model."""
    card, interface = read_metadata(capture.metadata, source="the model")
    return {
        "model": card.model or "detector",
        "names": list(card.names) or [str(label) for label in range(card.num_classes)],
        "network": list(interface.size or card.preprocessing.size),
        "score": max(FIRST_SCORE, interface.score),
        "least_score": interface.score,
        "runtime": f"onnxruntime-web {runtime.version}",
    }
