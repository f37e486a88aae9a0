"""M2Det's detectors, anchors, losses and detections, against what the authors' code computed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pyrafuse.core.predictions import Candidates, DensePredictions
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.registry import CRITERIA
from pyrafuse.heads.multibox import M2DET_FORMS, m2det_head
from pyrafuse.importers.m2det import M2DET as IMPORTER
from pyrafuse.models.factory import create_model
from pyrafuse.models.families.m2det import m2det
from pyrafuse.ops.registry import CODERS
from pyrafuse.postprocess.dense import DensePostprocess

MAPS = {
    320: (40, 20, 10, 5, 3, 1),
    512: (64, 32, 16, 8, 4, 2),
    704: (88, 44, 22, 11, 6, 4),
    800: (100, 50, 25, 13, 7, 5),
}
M2DET = m2det()
CODER = CODERS.build(M2DET.coder)
SPEC = PyramidSpec(channels=(1,) * 6, strides=(8, 16, 32, 64, 128, 256))


def grid_at(size: int):
    head = m2det_head(SPEC, num_classes=1, size=size)
    return head(tuple(torch.zeros(1, 1, side, side) for side in MAPS[size])).grid


@pytest.mark.parametrize("size", M2DET_FORMS)
def test_anchors(vectors, size):
    anchors = grid_at(size).anchors / size
    ours = torch.cat(((anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]), dim=1).numpy()
    golden, index = vectors.npz("misc/m2det_priors.npz"), vectors.json("misc/index_m2det.json")
    assert len(ours) == index[f"priors{size}"]["count"]
    if f"priors{size}" in golden.files:
        np.testing.assert_allclose(ours, golden[f"priors{size}"], atol=1e-6)
    else:
        assert vectors.error(golden, f"priors{size}_sub", torch.from_numpy(ours)) < 1e-6


@pytest.mark.parametrize("case", ["loss", "loss_one_empty"])
def test_losses_and_gradients(vectors, case):
    golden = vectors.npz("misc/m2det_loss_post.npz")
    deltas = vectors.image("image(11,(2,12810,4))").requires_grad_()
    logits = vectors.image("image(12,(2,12810,81))").requires_grad_()
    # in an input of one pixel: theirs are fractions, and of overlaps that are alike the last bit decides
    grid, form = grid_at(320), M2DET_FORMS[320]
    predictions = DensePredictions(logits.roll(-1, dims=2), deltas, None, replace(grid, anchors=grid.anchors / 320))
    rows = [torch.from_numpy(golden[f"{case}/target{i}"]) for i in (0, 1)]
    rows = [image[image[:, 4] > 0] for image in rows]  # label 0 stands for an image without objects
    targets = Targets.pad([image[:, :4] for image in rows], [image[:, 4] - 1 for image in rows])
    head = m2det_head(SPEC, num_classes=80, size=1, sizes=form.sizes, steps=[step / 320 for step in form.steps])
    losses = CRITERIA.build(M2DET.criterion, coder=CODER, head=head, num_classes=80)(predictions, targets)
    assert losses["box"].item() == pytest.approx(float(golden[f"{case}/loss_l"]), rel=1e-5)
    assert losses["classification"].item() == pytest.approx(float(golden[f"{case}/loss_c"]), rel=1e-5)

    sum(losses.values()).backward()
    images, anchors = torch.from_numpy(golden[f"{case}/pos_index"]).long().unbind(1)
    assert deltas.grad is not None
    assert logits.grad is not None
    assert vectors.error(golden, f"{case}/loc_grad_pos", deltas.grad[images, anchors]) < 1e-5
    deltas.grad[images, anchors] = 0
    assert deltas.grad.abs().max() == 0
    images, anchors = torch.from_numpy(golden[f"{case}/conf_used_index"]).long().unbind(1)
    assert vectors.error(golden, f"{case}/conf_grad_used", logits.grad[images, anchors]) < 1e-5
    logits.grad[images, anchors] = 0
    assert logits.grad.abs().max() == 0


def test_boxes(vectors):
    boxes = CODER.decode(grid_at(320).anchors, vectors.image("image(13,(12810,4))")) / 320
    assert vectors.error(vectors.npz("misc/m2det_loss_post.npz"), "decode/boxes", boxes) < 1e-5


def test_from_outputs_to_detections(vectors):
    golden = vectors.npz("misc/m2det_loss_post.npz")
    grid = grid_at(320)
    scores = (2.5 * vectors.image("image(14,(12810,21))")).softmax(dim=1)[:, 1:]
    boxes = CODER.decode(grid.anchors, vectors.image("image(13,(12810,4))"))
    postprocess = DensePostprocess(**{**m2det_settings(), "score": 0.4})
    (found,) = postprocess(Candidates(boxes[None], scores[None], grid.levels), [(320, 320)], [(320 / 640, 320 / 480)])
    dets = torch.from_numpy(golden["chain/dets"])
    assert len(found) == len(dets)
    in_image = found.boxes * torch.tensor([640 / 320, 480 / 320, 640 / 320, 480 / 320])
    for label in range(20):
        theirs = dets[dets[:, 5] == label + 1]
        theirs = theirs[theirs[:, 4].argsort(descending=True)]
        ours = found.labels == label
        torch.testing.assert_close(found.scores[ours], theirs[:, 4], rtol=0, atol=1e-5)
        torch.testing.assert_close(in_image[ours], theirs[:, :4], rtol=0, atol=1e-2)


def m2det_settings() -> dict:
    return dict(M2DET.postprocess.options)


def test_settings_of_the_detector():
    with torch.device("meta"):
        postprocess = create_model("m2det", backbone="resnet18", neck={"num_levels": 1}).postprocess
    assert postprocess == DensePostprocess(**m2det_settings())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m2det320_vgg", "m2det512_vgg", "m2det320_vgg_sfam", "m2det320_resnet101"])
@torch.no_grad()
def test_whole_detectors(vectors, name):
    golden = vectors.npz("misc/m2det_forward.npz")
    gains = 0.6 if "resnet" in name else [(r"^base\.", 1.0), ("", 0.7)]
    state = vectors.state(vectors.json(f"misc/manifest_{name}.json"), gains)
    assert IMPORTER.recognizes({"state_dict": state})
    detector = IMPORTER.build({"state_dict": state}, source=f"folder/{name}.pth").eval()
    size = 512 if "512" in name else 320
    assert detector.card.preprocessing.size == (size, size)
    classifier = vectors.json("misc/index_m2det.json")[name]
    unused = 2048 * 1000 + 1000 if "resnet" in name else 0  # the trunk's classifier
    assert sum(p.numel() for p in detector.parameters()) == classifier["unique_params"] - unused
    if f"{name}/loc" not in golden.files:
        pytest.skip("no vector of this detector's outputs")
    predictions = detector(vectors.image(f"image(0,(1,3,{size},{size}))"))
    logits = predictions.classes.roll(1, dims=2)
    assert vectors.error(golden, f"{name}/loc", predictions.deltas) < 1e-5
    assert vectors.error(golden, f"{name}/conf", logits) < 1e-5
    assert vectors.error(golden, f"{name}/conf_softmax", logits[0].softmax(dim=1)) < 1e-5
