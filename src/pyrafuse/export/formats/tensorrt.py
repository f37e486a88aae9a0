"""TensorRT: an engine that ``trtexec`` builds of the ONNX file, on the machine that will run it."""

import shutil
import subprocess
from pathlib import Path

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.printable import printable
from pyrafuse.export.formats.onnx import ONNX
from pyrafuse.export.registry import FORMATS, Capture, ExportFormat, Run


@FORMATS.register("tensorrt")
class TensorRT(ExportFormat):
    """The engine, and the ONNX file that it was built of beside it.

    Without ``trtexec`` the ONNX file alone is written. It is what is compared with the detector; no engine was ever
    run here.
    """

    summary = "NVIDIA's TensorRT, by trtexec where it is there; untested"
    suffix = ".engine"
    modules = ONNX.modules
    inputs = ("fitted", "scaled", "tensor")
    outputs = ("rows", "raw", "levels")
    needs_static = True

    def write(self, capture: Capture, path: Path) -> None:
        onnx = path.with_suffix(".onnx")
        ONNX().write(capture, onnx)
        if shutil.which("trtexec") is None:
            return
        built = subprocess.run(_command(onnx, path), capture_output=True, text=True, check=False)
        if built.returncode:
            words = printable((built.stderr or built.stdout)[-600:], limit=600)
            raise PyrafuseError(f"trtexec builds no engine of this detector (exit status {built.returncode}): {words}")

    def open(self, path: Path) -> Run:
        return ONNX().open(path.with_suffix(".onnx"))

    def made(self, path: Path) -> Path:
        return path if path.exists() else path.with_suffix(".onnx")

    def remark(self, path: Path) -> str:
        onnx = path.with_suffix(".onnx")
        if shutil.which("trtexec") is not None:
            return f"{path} is untested: what was compared with the detector is {onnx}, of which trtexec built it"
        return (
            f"trtexec is not there, so {onnx} alone was written and compared. On the machine with TensorRT type "
            f"{' '.join(_command(onnx, path))} (untested)"
        )


def _command(onnx: Path, engine: Path) -> list[str]:
    return ["trtexec", f"--onnx={onnx}", f"--saveEngine={engine}"]
