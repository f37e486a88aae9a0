"""PyTorch's own exported programs, for programs that have torch but not this package."""

from copy import copy
from io import BytesIO
from pathlib import Path

import torch

from pyrafuse.export.registry import FORMATS, Capture, ExportFormat, Feeds, Run, quiet


@FORMATS.register("exported_program")
class ExportedProgramFormat(ExportFormat):
    """``torch.export.load(file).module()(images)``, and ``pyrafuse.json`` in its extra files."""

    summary = "programs that have torch: torch.export.load"
    suffix = ".pt2"

    def write(self, capture: Capture, path: Path) -> None:
        extra = {"pyrafuse.json": capture.metadata["pyrafuse"], "outputs": " ".join(capture.outputs)}
        # without the example nobody's images are in the file, nor what held for its sizes and is asked of every input
        program = copy(capture.program)
        program.example_inputs = None
        written = BytesIO()  # torch ends the process where it meets a full disk itself
        with quiet():
            torch.export.save(program, written, extra_files=extra)
        path.write_bytes(written.getbuffer())

    def open(self, path: Path) -> Run:
        extra = {"outputs": ""}
        with quiet():
            module = torch.export.load(path, extra_files=extra).module()
        names = extra["outputs"].split()

        def run(feeds: Feeds) -> dict:
            with torch.no_grad():
                found = module(*(torch.from_numpy(values) for values in feeds.values()))
            found = found if isinstance(found, tuple | list) else (found,)
            return {name: values.numpy() for name, values in zip(names, found, strict=True)}

        return run
