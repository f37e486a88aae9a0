"""Which detectors cannot be exported how, and why."""

from pyrafuse.base.exported import Interface
from pyrafuse.base.spec import DetectorSpec, TwoStageSpec


def refusal(spec: DetectorSpec | None, interface: Interface) -> str | None:
    """Why no format can take the detector that ``spec`` describes so; None if one can.

    Args:
        spec: Description of the detector; None of one that was put together by hand.
        interface: What shall be exported.
    """
    if isinstance(spec, TwoStageSpec) and interface.output in ("raw", "levels"):
        return f"a two-stage detector has no output {interface.output}: choose nms, or rows"
    return None
