"""Which detectors cannot be exported how, and why."""

from pyrafuse.base.exported import Interface
from pyrafuse.base.spec import DetectorSpec, TwoStageSpec
from pyrafuse.export.registry import ExportFormat
from pyrafuse.models.registry import MODELS


def refusal(spec: DetectorSpec | None, interface: Interface) -> str | None:
    """Why no format can take the detector that ``spec`` describes so; None if one can.

    Args:
        spec: Description of the detector; None of one that was put together by hand.
        interface: Form of input and output, sizes and precision.
    """
    if isinstance(spec, TwoStageSpec) and interface.output in ("raw", "levels"):
        return f"a two-stage detector has no output {interface.output}: choose nms, or rows"
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
