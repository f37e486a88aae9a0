"""Files of OpenVINO, .xml with .bin beside it, run by OpenVINO."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.exported import METADATA_KEY
from pyrafuse.base.extras import naming_extras
from pyrafuse.base.printable import printable
from pyrafuse.base.telemetry import refuse_telemetry
from pyrafuse.runtime.engines.registry import ENGINES, Engine


@ENGINES.register("openvino", suffixes=(".xml",))
class OpenVINO(Engine):
    """OpenVINO's own files on the processor, in 32-bit floats where these are not quantised."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        refuse_telemetry()
        with naming_extras():
            import openvino

        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise CheckpointError(f"{path} keeps its weights in {weights.name}, which is missing: put it beside it")
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}  # the default is bf16 where there is such
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model = openvino.Core().read_model(path)
            own = str(model.get_rt_info(METADATA_KEY).astype(str)) if model.has_rt_info(METADATA_KEY) else None
            self._model = openvino.Core().compile_model(model, "CPU", settings)
        except Exception as error:  # its errors have no common base
            told = str(error).strip().rpartition("\n")[2]  # lines of places in its source come first
            raise CheckpointError(
                f"OpenVINO refuses {path}: {printable(told, limit=300)}; it is cut off, or no file of OpenVINO: copy "
                "or export it anew, both .xml and .bin"
            ) from error
        self.metadata = {} if own is None else {METADATA_KEY: own}
        self.inputs = tuple(port.get_any_name() for port in self._model.inputs)
        self.outputs = tuple(port.get_any_name() for port in self._model.outputs)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = self._model(dict(feeds))
        return {name: np.array(found[name]) for name in self.outputs}
