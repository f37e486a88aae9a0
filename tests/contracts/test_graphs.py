"""What every detector promises as a graph: any batch and any size, with what it finds itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pyrafuse.base.exported import Interface, write_metadata
from pyrafuse.export.checking import compare
from pyrafuse.export.graph import DetectionGraph, capture
from pyrafuse.export.registry import FORMATS, Capture
from pyrafuse.export.support import VALIDATED

FAST = {("exported_program", name) for name in ("yolov3_asff_small", "atss", "m2det")}
"""A graph of free sizes takes from ten seconds to two minutes to record."""
CASES = [
    pytest.param(form, name, marks=() if (form, name) in FAST else pytest.mark.slow)
    for form, names in {**VALIDATED, "exported_program": (*VALIDATED["exported_program"], "yolo-timm")}.items()
    for name in names
    if form != "web"  # its test is one of the page in a browser
]


WEIGHTS = {"cascade_rcnn": 0.5, "cascade_rcnn_rfp": 0.1}
"""Deviation of the heads' weights, in relation to their inputs' number, where not 0.7: boxes of three stages would end
outside the images or be slivers that overlap by a hair, more so behind an untrained recursion."""


def graph_of(detector) -> DetectionGraph:
    """The graph of a detector that finds something: its last layers start from small weights, and few scores differ."""
    weight = WEIGHTS.get(detector.card.model, 0.7)
    generator = torch.Generator().manual_seed(1)
    for part in (detector.head, *(stage.head for stage in getattr(detector, "stages", ()))):
        for layer in (p for p in part.parameters() if p.ndim > 1):
            torch.nn.init.normal_(layer, std=weight * layer[0].numel() ** -0.5, generator=generator)
    detector.postprocess = replace(detector.postprocess, score=0.0, max_detections=50)
    takes_sizes = detector.postprocess.clip or hasattr(detector, "stages")
    stride = max(detector.backbone.features.strides)
    interface = Interface(input="tensor", stride=stride, max_detections=50, takes_sizes=takes_sizes)
    return DetectionGraph(detector.eval(), interface, detector.card.preprocessing, detector.postprocess).eval()


def inputs_of(graph, batch, height, width) -> tuple[torch.Tensor, ...]:
    images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(batch))
    sizes = torch.tensor([[height - 9, width - 21]]).expand(batch, -1).contiguous()
    return (images, sizes) if graph.interface.takes_sizes else (images,)


def check(graph, run) -> None:
    """What ``run`` finds in other batches and sizes than the graph was recorded with is what the detector finds."""
    for batch, height, width in ((1, 128, 192), (3, 192, 64)):
        inputs = inputs_of(graph, batch, height, width)
        with torch.no_grad():
            expected = dict(zip(graph.outputs, graph(*inputs), strict=True))
            found = dict(zip(graph.outputs, run(*inputs), strict=True))
        assert (expected["count"] > 0).all()
        assert torch.equal(found["count"], expected["count"])
        theirs, ours = ({name: values.numpy() for name, values in each.items()} for each in (found, expected))
        for each in (theirs, ours):  # untrained detectors guide anchors to a million pixels: few bits are left
            each["boxes"] = each["boxes"].clip(-1000, 1000)
        agreement = compare(lambda _: theirs, lambda _: ours, [{}], "nms")  # noqa: B023
        assert agreement.strangers == ()
        assert agreement.num_compared > 0


@pytest.fixture(scope="module")
def recorded(request, build):
    """(graph, program) of the detector that is named."""
    graph = graph_of(build(request.param))
    return graph, capture(graph, inputs_of(graph, 2, 128, 128))


@pytest.mark.parametrize(("form", "recorded"), CASES, indirect=["recorded"])
def test_a_file_takes_any_batch_and_size(form, recorded, tmp_path):
    graph, program = recorded
    example = dict(zip(graph.inputs, (values.numpy() for values in inputs_of(graph, 2, 128, 128)), strict=True))
    metadata = write_metadata(graph.detector.card, graph.interface)
    form = FORMATS.create(form)
    path = tmp_path / f"a{form.suffix}"
    form.write(Capture(graph, program, example, graph.inputs, graph.outputs, graph.interface, metadata), path)
    run = form.open(path)

    def find(*inputs):
        found = run({name: values.numpy() for name, values in zip(graph.inputs, inputs, strict=True)})
        return [torch.from_numpy(np.asarray(found[name])) for name in graph.outputs]

    check(graph, find)
