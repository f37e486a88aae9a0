"""Values and gradients of the losses against mmdetection's."""

from functools import partial

import pytest
import torch

from pyrafuse.losses.boxes import (
    bounded_iou_loss,
    ciou_loss,
    diou_loss,
    eiou_loss,
    giou_loss,
    iou_loss,
    siou_loss,
)
from pyrafuse.losses.classification import (
    binary_cross_entropy,
    cross_entropy,
    distribution_focal,
    focal,
    focal_of_labels,
    quality_focal,
)
from pyrafuse.losses.harmonizing import HarmonizedClassification, HarmonizedRegression
from pyrafuse.losses.regression import balanced_l1, l1, smooth_l1


def compare(golden, name: str, prediction: torch.Tensor, loss, *, rows: slice = slice(None)) -> None:
    prediction = prediction.clone().requires_grad_()
    values = loss(prediction)
    gradient = torch.autograd.grad(values.sum(), prediction)[0]
    torch.testing.assert_close(values[rows], golden[f"{name}.loss"][rows], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient[rows], golden[f"{name}.grad"][rows], rtol=1e-4, atol=1e-6)
    assert values.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("iou_log", partial(iou_loss, mode="log")),
        ("iou_linear", partial(iou_loss, mode="linear")),
        ("iou_square", partial(iou_loss, mode="square")),
        ("bounded_iou_beta0.2_eps1e-3", bounded_iou_loss),
        ("giou", giou_loss),
        ("diou", diou_loss),
        ("ciou", ciou_loss),
        ("eiou", eiou_loss),
        ("siou", partial(siou_loss, negative_gamma=False)),
    ],
)
def test_boxes(vectors, name, loss):
    golden = vectors("losses")
    # the first row of the original's CIoU is NaN: prediction and target are the same there
    rows = slice(1, None) if name == "ciou" else slice(None)
    compare(golden, name, golden["box.pred"], lambda boxes: loss(boxes, golden["box.target"]), rows=rows)


@pytest.mark.parametrize("beta", [0.11, 0.5, 1.0])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.5, 1.5), (0.2, 1.0), (1.0, 1.5)])
def test_balanced_l1(vectors, alpha, gamma, beta):
    golden = vectors("losses")
    loss = partial(balanced_l1, alpha=alpha, gamma=gamma, beta=beta)
    name = f"balanced_l1_b{beta}_a{alpha}_g{gamma}"
    compare(golden, name, golden["l1.pred"], lambda x: loss(x, golden["l1.target"]))


@pytest.mark.parametrize("beta", [0.04, 1 / 9, 1.0])
def test_smooth_l1(vectors, beta):
    golden = vectors("losses")
    target = golden["l1.target"]
    compare(golden, f"smooth_l1_b{beta:.4f}", golden["l1.pred"], lambda x: smooth_l1(x, target, beta=beta))


def test_l1_between_others(vectors):
    golden = vectors("losses")
    x, y = golden["l1.pred"], golden["l1.target"]
    torch.testing.assert_close(l1(x, y), (x - y).abs())


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.4), (0.0, 0.5)])
def test_focal(vectors, gamma, alpha):
    golden = vectors("losses")
    labels = golden["cls.labels"]
    wanted = torch.nn.functional.one_hot(labels, 8)[:, :7].float()
    loss = partial(focal, alpha=alpha, gamma=gamma)
    name = f"focal_g{gamma}_a{alpha}"
    compare(golden, name, golden["cls.logits"], lambda x: loss(x, wanted))

    logits = golden["cls.logits"].clone().requires_grad_()
    rows = focal_of_labels(logits, labels.where(labels < 7, -1), alpha=alpha, gamma=gamma)
    torch.testing.assert_close(rows, golden[f"{name}.loss"].sum(1), rtol=1e-5, atol=1e-5)
    gradient = torch.autograd.grad(rows.sum(), logits)[0]
    torch.testing.assert_close(gradient, golden[f"{name}.grad"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "beta", "activated"), [("b2.0", 2, False), ("b1.0", 1, False), ("prob_b2", 2, True)])
def test_quality_focal(vectors, name, beta, activated):
    golden = vectors("losses")
    labels = golden["cls.labels"]
    labels = labels.where(labels < 7, -1)
    loss = partial(quality_focal, beta=beta, activated=activated)
    compare(
        golden,
        f"qfl_{name}",
        golden["cls.logits"],
        lambda x: loss(x.sigmoid() if activated else x, labels, golden["qfl.score"]),
    )


def test_distribution_focal(vectors):
    golden = vectors("losses")
    compare(golden, "dfl", golden["dfl.logits"], lambda x: distribution_focal(x, golden["dfl.label"]))


def test_cross_entropies(vectors):
    golden = vectors("losses")
    weight, labels = golden["cls.weight"], golden["cls.labels"]
    softmax = cross_entropy(golden["ce.logits8"], labels)
    single = binary_cross_entropy(golden["bce.logits1"][:, 0], golden["bce.soft_target"])
    for name, value in {
        "ce_softmax.weighted_avg11": (softmax * weight).sum() / 11,
        "ce_softmax.mean": softmax.mean(),
        "ce_sigmoid_soft.avg11": single.sum() / 11,
    }.items():
        torch.testing.assert_close(value, golden[name][0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum", [0, 0.75])
def test_harmonized(vectors, momentum):
    golden = vectors("losses")
    counts = (golden["ghm.label_weight"] > 0)[:, None].expand(-1, 7)
    wanted = torch.nn.functional.one_hot(golden["cls.labels"], 8)[:, :7]
    loss = HarmonizedClassification(momentum=momentum)
    values = [loss(golden["cls.logits"] * factor, wanted, counts) for factor in (1, 0.9, 0.8)]
    got = torch.stack(values).double()
    torch.testing.assert_close(got, golden[f"ghmc_m{momentum}.losses_3calls"], rtol=1e-5, atol=1e-7)

    x, y = golden["l1.pred"], golden["l1.target"]
    regress = HarmonizedRegression(momentum=momentum)
    values = [10 * regress(x * factor, y, torch.ones_like(x, dtype=torch.bool)) for factor in (1, 0.9, 0.8)]
    got = torch.stack(values).double()
    torch.testing.assert_close(got, golden[f"ghmr_m{momentum}.losses_3calls"], rtol=1e-5, atol=1e-7)
