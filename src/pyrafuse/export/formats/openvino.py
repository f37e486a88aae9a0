"""OpenVINO's own files, for processors and graphics of Intel.

captured graph -> ONNX -> OpenVINO's graph -> .xml, and .bin with the weights beside it
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyrafuse.base.exported import METADATA_KEY, Interface
from pyrafuse.base.spec import DetectorSpec
from pyrafuse.base.telemetry import refuse_telemetry
from pyrafuse.export.formats.onnx import to_onnx
from pyrafuse.export.quantizing import Node, quantize
from pyrafuse.export.registry import FORMATS, Capture, ExportFormat, Run
from pyrafuse.runtime.engines import openvino as engine


@FORMATS.register("openvino")
class OpenVINO(ExportFormat):
    """Graph in ``.xml``, weights in ``.bin`` beside it; card and interface in its runtime information."""

    summary = "OpenVINO: processors and graphics of Intel"
    suffix = ".xml"
    modules = ("onnx", "onnxscript", "openvino")
    precisions = ("fp32", "fp16", "int8")

    def refusal(self, spec: DetectorSpec | None, interface: Interface) -> str | None:  # noqa: ARG002
        # measured with 2026.4: the same file with its sizes fixed is right
        if interface.precision == "int8" and interface.size is None:
            return (
                "OpenVINO computes convolutions of int8 wrongly where height and width are free: fix them (--static), "
                "or take --input image, whose network has one size"
            )
        return None

    def write(self, capture: Capture, path: Path) -> None:
        core = _start()
        core.add_extension(_translations())
        # its stable TopK took 412 ms for two rows of 10,000 values, where the other took 2
        model = core.read_model(to_onnx(capture, is_topk_stable=False).SerializeToString(), b"")
        if capture.interface.precision == "int8":
            _save(model, path)
            model = core.read_model(path)  # without what conversion left over, on which NNCF stumbles
            model = quantize(model, _list_nodes(model), capture.calibration)
        model.set_rt_info(capture.metadata[METADATA_KEY], [METADATA_KEY])
        _save(model, path, in_half=capture.interface.precision == "fp16")

    def open(self, path: Path) -> Run:
        return engine.OpenVINO(path).run


def _start() -> Any:
    refuse_telemetry()
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # a file that is read may be written again
    return core


def _save(model: Any, path: Path, *, in_half: bool = False) -> None:
    import openvino

    try:
        openvino.save_model(model, path, compress_to_fp16=in_half)
    except RuntimeError as error:
        if "iostream" not in str(error):
            raise
        raise OSError(f"OpenVINO wrote a part of it alone ({error})") from error


def _list_nodes(model: Any) -> list[Node]:
    return [
        Node(
            node.get_friendly_name(),
            node.get_type_name(),
            tuple(port.get_source_output().get_node().get_friendly_name() for port in node.inputs()),
        )
        for node in model.get_ordered_ops()
    ]


def _translations() -> Sequence[Any]:
    """OpenVINO's forms of ONNX operations that it does not read by itself."""
    import openvino.opset8 as ops
    from openvino.frontend.onnx import ConversionExtension

    def deform_conv(node: Any) -> Any:
        images, weights, offsets, bias, *mask = (node.get_input(i) for i in range(node.get_input_size()))
        pads = node.get_attribute("pads")
        found = ops.deformable_convolution(
            images,
            offsets,
            weights,
            strides=node.get_attribute("strides"),
            pads_begin=pads[: len(pads) // 2],
            pads_end=pads[len(pads) // 2 :],
            dilations=node.get_attribute("dilations"),
            mask=mask[0] if mask else None,
            group=node.get_attribute("group"),
            deformable_group=node.get_attribute("offset_group"),
            bilinear_interpolation_pad=True,  # what lies outside is 0, as ONNX and torchvision take it
        )
        return ops.add(found, ops.unsqueeze(bias, [0, 2, 3])).outputs()

    return [ConversionExtension("DeformConv", deform_conv)]
