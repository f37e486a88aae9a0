"""AOTInductor: the graph compiled to machine code ahead of time, for programs that have torch and no Python."""

import os
import shutil
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import torch
from torch._inductor import aoti_compile_and_package, aoti_load_package

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.exported import METADATA_KEY, Precision
from pyrafuse.export.registry import FORMATS, Capture, ExportFormat, Feeds, Run, quiet


@FORMATS.register("aotinductor")
class AOTInductor(ExportFormat):
    """``torch._inductor.aoti_load_package(file)(images)``, on processors like this one."""

    summary = "machine code for processors like this one, run by torch without Python"
    suffix = ".pt2"
    is_named = True

    def require(self, precision: Precision) -> None:
        super().require(precision)
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            raise PyrafuseError(
                f"this format is compiled by a C++ compiler, and {compiler} is not there: install g++, or name another "
                "one in CXX"
            )

    def write(self, capture: Capture, path: Path) -> None:
        with quiet():
            aoti_compile_and_package(capture.program, package_path=str(path))
        with ZipFile(path) as package:
            root = package.namelist()[0].partition("/")[0]
        with ZipFile(path, "a", ZIP_STORED) as package:
            package.writestr(f"{root}/extra/pyrafuse.json", capture.metadata[METADATA_KEY])
            package.writestr(f"{root}/extra/outputs", " ".join(capture.outputs))

    def open(self, path: Path) -> Run:
        module = aoti_load_package(str(path))
        with ZipFile(path) as package:
            place = next(name for name in package.namelist() if name.endswith("/extra/outputs"))
            names = package.read(place).decode().split()

        def run(feeds: Feeds) -> dict:
            found = module(*(torch.from_numpy(values) for values in feeds.values()))
            found = found if isinstance(found, tuple | list) else (found,)
            return {name: values.numpy() for name, values in zip(names, found, strict=True)}

        return run
