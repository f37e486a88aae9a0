"""A higher score than that of the export: the file finds what the detector finds with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import pyrafuse.runtime
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.export.exporting import export, settle
from pyrafuse.export.graph import DetectionGraph
from pyrafuse.export.registry import FORMATS
from pyrafuse.models.factory import create_model
from pyrafuse.runtime.outputs import Limits, read_outputs

TINY = {"backbone": {"name": "resnet18", "width": 4}, "necks": {"fpn": {"out_channels": 16}}}
SMALL = {"backbone": {"width": 0.125}, "necks": {"fpn": {"out_channels": 16}}, "head": {"branches": 16}}
FREE = dict.fromkeys(("batch", "nms_iou", "max_detections"))


def detector_of(model):
    """A detector whose classes score anything between 0.01 and 1."""
    torch.manual_seed(0)
    head = {} if model == "fcos" else {"num_convs": 1}
    made = create_model(model, num_classes=3, **(SMALL if model == "yolov3_asff_small" else {**TINY, "head": head}))
    for name, weight in made.head.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=1.0 * weight[0].numel() ** -0.5)
        elif name.endswith("bias"):
            torch.nn.init.constant_(weight, 1 if model == "yolov3_asff_small" else -0.5)
    made.card = replace(made.card, names=("a", "b", "c"), preprocessing=Preprocessing(size=(64, 96)))
    return made.eval()


def image():
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


def found_by(graph, images, score):
    least = torch.full((1,), score)
    with torch.no_grad():
        given = {"score": least, "sizes": torch.tensor([[64, 96]])}
        found = graph(images, *(given[name] for name in graph.inputs[1:]))
    return {name: values[0, : found[-1][0]] for name, values in zip(graph.outputs[:-1], found[:-1], strict=True)}


@pytest.mark.parametrize(
    ("name", "threshold", "high"),
    [("atss", "input", 0.4), ("fcos", "input", 0.5), ("yolov3_asff_small", "input", 0.7), ("retinanet", "after", 0.5)],
)
def test_a_higher_score_is_applied_where_the_detector_applies_it(name, threshold, high):
    detector = detector_of(name)
    preprocessing = detector.card.preprocessing
    postprocess, interface = settle(
        detector, FORMATS.create("onnx"), preprocessing,
        input="tensor", output="nms", static=True, precision="fp32", score=0.05, **FREE,
    )  # fmt: skip
    assert interface.threshold == threshold
    graph = DetectionGraph(detector, interface, preprocessing, postprocess).eval()
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    low = found_by(graph, images, 0.01)  # below the export's own
    for score in (0.05, high):
        (expected,) = detector.detect(images, postprocess=replace(detector.postprocess, score=score))
        assert len(expected) > 3
        found = found_by(graph, images, score)
        kept = found["scores"] >= (score if threshold == "after" else 0)
        for column in ("boxes", "scores", "labels", "levels", "rows"):
            torch.testing.assert_close(found[column][kept], getattr(expected, column), rtol=0, atol=0)
    later = low["scores"] >= high  # the last ``expected`` is with this score
    is_same = bool(later.sum() == len(expected)) and torch.equal(low["boxes"][later], expected.boxes)
    assert is_same == (threshold == "after")


@pytest.mark.parametrize(
    "name", ["atss", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fcos", "retinanet"))]
)
def test_a_file_finds_what_predict_finds_with_any_score(name, tmp_path):
    detector = detector_of(name)
    path = tmp_path / "a.onnx"
    exported = export(detector, path, input="fitted", static=True, score=0.1)
    assert exported.agreement.num_compared > 20
    file = pyrafuse.runtime.load(path)
    for score in (0.1, 0.3, 0.5):
        found, (expected,) = file(image(), score=score), detector.predict(image(), score=score)
        assert len(found) == len(expected) > 3
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)  # pixels
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        assert found.labels.tolist() == expected.labels.tolist()
    with pytest.raises(PyrafuseError, match=r"score 0\.05 is below 0\.1"):
        file(image(), score=0.05)


@pytest.mark.parametrize("name", ["atss", "retinanet", "yolov3_asff_small"])
def test_rows_are_what_nms_suppresses(name):
    """Suppressed by the runtime's numpy, they are the detector's detections, every class of a box."""
    detector = detector_of(name)
    detector.postprocess = replace(detector.postprocess, vote_iou=0.0)
    preprocessing = detector.card.preprocessing
    postprocess, interface = settle(
        detector, FORMATS.create("onnx"), preprocessing,
        input="tensor", output="rows", static=True, precision="fp32", score=0.3, **FREE,
    )  # fmt: skip
    assert interface.threshold == ("fixed" if name == "atss" else "after")
    graph = DetectionGraph(detector, interface, preprocessing, postprocess).eval()
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    sizes = torch.tensor([[64, 96], [50, 60]])
    with torch.no_grad():
        (rows,) = graph(images, *((sizes,) if interface.takes_sizes else ()))
    expected = detector.detect(images, postprocess=postprocess, sizes=sizes.tolist())
    limits = Limits(interface.score, interface.nms_iou, interface.max_detections, is_scored=True)
    for found, each in zip(read_outputs({"output": rows.numpy()}, 2, interface, limits), expected, strict=True):
        assert len(found) == len(each) > 5
        ours, theirs = (np.column_stack((one.scores, one.labels, one.boxes)) for one in (found, each))
        np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])  # some score the same
