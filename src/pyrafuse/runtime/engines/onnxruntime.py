"""ONNX files, run by onnxruntime."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.extras import naming_extras
from pyrafuse.base.foreign_files import find_kind
from pyrafuse.base.printable import printable
from pyrafuse.runtime.engines.registry import ENGINES, Engine

_SILENT = 4
"""onnxruntime's level of logging that tells nothing: errors are raised anyway."""


@ENGINES.register("onnxruntime", suffixes=(".onnx",))
class ONNXRuntime(Engine):
    """ONNX files on the processor."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        with naming_extras():
            import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _SILENT
        options.intra_op_num_threads = threads or 0
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
            self.inputs = tuple(given.name for given in self._session.get_inputs())
            self.outputs = tuple(given.name for given in self._session.get_outputs())
        except Exception as error:  # its errors have no common base; names and metadata may be no text in UTF-8
            raise CheckpointError(_explain(path, error)) from error

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = self._session.run(None, dict(feeds))
        return {name: np.asarray(values) for name, values in zip(self.outputs, found, strict=True)}


def _explain(path: Path, error: Exception) -> str:
    """What is wrong with a file that onnxruntime refuses, and the remedy."""
    told = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    if "xternal data" in told or "external_data" in told:
        named = re.search(r'"([^"]+)"', told)
        other = printable(Path(named[1]).name, limit=100) if named else "another file"
        return f"{path} keeps its weights in {other}, which is missing, cut off or elsewhere: put it whole beside it"
    if "Protobuf parsing failed" in told:
        kind = find_kind(path)
        what = kind if kind and "ONNX" not in kind else "it is cut off or no ONNX file; copy or export it anew"
        return f"cannot read {path}: {what}"
    return f"onnxruntime refuses {path}: {printable(told, limit=300)}; update onnxruntime, or export the file anew"
