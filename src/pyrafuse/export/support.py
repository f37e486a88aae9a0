"""Which detectors can be exported how, which of that tests validate, and why others cannot."""

from collections.abc import Mapping

from pyrafuse.base.exported import Interface
from pyrafuse.base.spec import DetectorSpec, TwoStageSpec
from pyrafuse.export.registry import FORMATS, ExportFormat
from pyrafuse.models.registry import MODELS

_ONE_STAGE = (
    "atss", "ddod", "ddod_fcos", "efficientdet_d0", "fcos", "ga_retinanet", "libra_retinanet", "m2det", "retinanet",
    "retinanet_nas_fpn", "ssd300", "ssdlite320", "tf_efficientdet_d0", "yolov3", "yolov3_asff",
    "yolov3_asff_small", "yolov3_plain", "yolov3_small",
)  # fmt: skip
_TWO_STAGE = ("cascade_rcnn", "cascade_rcnn_rfp", "faster_rcnn", "libra_rcnn")

VALIDATED: Mapping[str, tuple[str, ...]] = {
    "exported_program": (*_ONE_STAGE, *_TWO_STAGE),
    "onnx": (*_ONE_STAGE, *_TWO_STAGE),
    "openvino": (
        "cascade_rcnn", "cascade_rcnn_rfp", "faster_rcnn", "libra_rcnn", "libra_retinanet", "ssd300", "ssdlite320",
        "yolov3", "yolov3_asff", "yolov3_asff_small", "yolov3_plain", "yolov3_small",
    ),
    "web": ("ssdlite320",),
}  # fmt: skip
"""The models by format whose files tests compare with the detector. These tests take their cases from here."""


def refusal(spec: DetectorSpec | None, interface: Interface) -> str | None:
    """Why no format can take the detector that ``spec`` describes so; None if one can.

    Args:
        spec: Description of the detector; None of one that was put together by hand.
        interface: Form of input and output, sizes and precision.
    """
    if isinstance(spec, TwoStageSpec) and interface.output in ("raw", "levels"):
        return (
            f"a two-stage detector has no output {interface.output}: choose nms, or rows, and a format that gives them"
        )
    return None


def find_refused(form: ExportFormat) -> dict[str, list[str]]:
    """The models that ``form`` cannot take in its first forms of input and output, by the reason."""
    interface = Interface(input=form.inputs[0], output=form.outputs[0], batch=1 if form.needs_static else 0)
    refused: dict[str, list[str]] = {}
    for name in MODELS.names():
        spec = MODELS.get(name)()
        if reason := refusal(spec, interface) or form.refusal(spec, interface):
            refused.setdefault(reason, []).append(name)
    return refused


def tabulate_support() -> tuple[list[list[str]], list[str]]:
    """Rows of models by formats, the first of names: validated, available or refused; and the reasons of refusals."""
    forms = FORMATS.names()
    refused = {form: find_refused(FORMATS.create(form)) for form in forms}

    def cell(form: str, model: str) -> str:
        if any(model in models for models in refused[form].values()):
            return "refused"
        return "validated" if model in VALIDATED.get(form, ()) else "available"

    rows = [["model", *forms], *([model, *(cell(form, model) for form in forms)] for model in MODELS.names())]
    reasons = [
        f"{form} refuses {', '.join(models)}: {reason}" for form in forms for reason, models in refused[form].items()
    ]
    return rows, reasons
