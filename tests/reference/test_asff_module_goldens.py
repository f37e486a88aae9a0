"""Single parts, against what the original code computed in float64; and its schedule."""

import numpy as np
import pytest
import torch

from pyrafuse.core.predictions import Candidates
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.importers.asff import _fusion_pairs, _reorder
from pyrafuse.layers.deformable import FeatureAdaption
from pyrafuse.layers.dropblock import DropBlock, drop_rate
from pyrafuse.layers.rfb import RFB
from pyrafuse.layers.spp import YOLOSPP
from pyrafuse.necks.asff import ASFF
from pyrafuse.ops.boxes import paired_iou, pairwise_iou, shape_iou
from pyrafuse.postprocess.dense import DensePostprocess
from pyrafuse.training.schedule import lr_factor
from pyrafuse.training.settings import ScheduleSettings


def fill(module, goldens, theirs, gains):
    """Give ``module`` the original's values; ``theirs`` maps our key to the original's."""
    shapes = {theirs(key): value.shape for key, value in module.state_dict().items()}
    values = goldens.fill_in(shapes, gains)
    module.load_state_dict({key: _reorder(f".{key}", values[theirs(key)]) for key in module.state_dict()})


def build_asff(goldens, finest: int, *, rfb: bool, activation: str) -> ASFF:
    neck = ASFF(
        PyramidSpec((finest, 256, 512), (8, 16, 32)),
        out_channels=(256, 512, 1024),
        weight_channels=8 if rfb else 16,
        activation=activation,
    )
    pairs = {ours.removeprefix("neck.necks.1."): theirs.split(".")[1] for ours, theirs in _fusion_pairs("fusion")}

    def theirs(key: str) -> str:
        prefix = max((p for p in pairs if f"levels.{key}".startswith(p)), key=len)
        return pairs[prefix] + f"levels.{key}".removeprefix(prefix).replace(".norm.", ".batch_norm.")

    for number, level in enumerate(neck.levels):
        which = "module_asff" if activation == "leaky_relu" else "module_asffmobile"
        fill(level, goldens, lambda key, number=number: theirs(f"{number}.{key}"), which)
    return neck.double().eval()


@pytest.fixture(scope="module")
def pyramid(goldens):
    return [goldens.image(10 + i, 2, (512, 256, 256)[i], 10 * 2**i, 10 * 2**i).double() for i in (2, 1, 0)]


def fuse(part, pyramid):
    """The weights (B, S, H, W) of one level and what is fused by them."""
    seen = []
    hook = part.weights.register_forward_hook(lambda _, given, fused: seen.append((given[0], fused)))
    with torch.no_grad():
        part(pyramid)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("rfb", [0, 1])
def test_asff(goldens, pyramid, rfb):
    golden = goldens.load("module_asff.npz")
    neck = build_asff(goldens, 256, rfb=bool(rfb), activation="leaky_relu")
    for level, part in enumerate(neck.levels):
        name = f"l{2 - level}_rfb{rfb}"
        with torch.no_grad():
            weights, fused = fuse(part, pyramid)
            goldens.check(golden, f"{name}_weight", weights.flip(1), rtol=1e-5, atol=1e-6)
            goldens.check(golden, f"{name}_fused_sum", fused.sum(1), rtol=1e-5, atol=1e-4)
            goldens.check(golden, f"{name}_out", part(pyramid), rtol=1e-5, atol=1e-5)
        inputs = [x.clone().requires_grad_() for x in pyramid]
        out = part.train()(tuple(inputs))
        goldens.check(golden, f"{name}_train_out", out, rtol=1e-5, atol=1e-5)
        gradients = torch.autograd.grad(out.square().mean(), inputs)
        norms = [float(g.norm()) for g in reversed(gradients)]
        np.testing.assert_allclose(norms, golden[f"{name}_train_gradinput_l2"], rtol=1e-5)


@torch.no_grad()
def test_mobile_asff(goldens, pyramid):
    golden = goldens.load("module_asffmobile.npz")
    neck = build_asff(goldens, 128, rfb=False, activation="relu6")
    inputs = (goldens.image(12, 2, 128, 40, 40).double(), *pyramid[1:])
    for level, part in enumerate(neck.levels):
        weights, fused = fuse(part, inputs)
        goldens.check(golden, f"l{2 - level}_weight", weights.flip(1), rtol=1e-5, atol=1e-6)
        goldens.check(golden, f"l{2 - level}_fused_sum", fused.sum(1), rtol=1e-5, atol=1e-4)
        goldens.check(golden, f"l{2 - level}_out", part(inputs), rtol=1e-5, atol=1e-5)


def test_spp(goldens):
    out = YOLOSPP()(goldens.image(20, 2, 16, 19, 19))
    goldens.check(goldens.load("module_blocks.npz"), "spp", out, rtol=1e-6)


def test_receptive_field_block(goldens):
    golden = goldens.load("module_blocks.npz")
    block = RFB(64)
    fill(block, goldens, lambda key: key.replace("branches.", "branch_"), "module_blocks")
    x = goldens.image(21, 2, 64, 20, 20).double().requires_grad_()
    out = block.double()(x)
    goldens.check(golden, "rfb_res0", out, rtol=1e-5)
    (gradient,) = torch.autograd.grad(out.square().mean(), x)
    assert float(gradient.norm()) == pytest.approx(float(golden["rfb_res0_gradinput_l2"]), rel=1e-5)


@pytest.mark.parametrize("rfb", [0, 1])
def test_feature_adaption(goldens, rfb):
    golden = goldens.load("module_blocks.npz")
    block = FeatureAdaption(64, 4, rfb=bool(rfb))
    renamed = {"offset.": "conv_offset.", "conv.": "dconv.", "rfb.branches.": "rfb.branch_"}

    def theirs(key: str) -> str:
        ours = next(prefix for prefix in renamed if key.startswith(prefix))
        return renamed[ours] + key.removeprefix(ours)

    fill(block, goldens, theirs, "module_blocks")
    block.double()
    x = goldens.image(22, 2, 64, 20, 20).double().requires_grad_()
    guides = goldens.image(23, 2, 8, 20, 20).double().requires_grad_()
    goldens.check(golden, f"fa_rfb{rfb}_offset", block.offset(guides), rtol=1e-5)
    out = block(x, guides)
    goldens.check(golden, f"fa_rfb{rfb}_out", out, rtol=1e-5)

    out.square().mean().backward()
    assert guides.grad is None
    assert x.grad is not None
    assert float(x.grad.norm()) == pytest.approx(float(golden[f"fa_rfb{rfb}_gradinput_l2"]), rel=1e-5)
    names = golden[f"fa_rfb{rfb}_gradparam_names"].tolist()
    norms = dict(zip(names, golden[f"fa_rfb{rfb}_gradparam_l2"], strict=True))
    got = {theirs(name): float(p.grad.norm()) for name, p in block.named_parameters() if p.grad is not None}
    assert got == pytest.approx(norms, rel=1e-5)


@pytest.fixture(scope="module")
def overlaps(goldens):
    return goldens.load("module_losses.npz")


def corners(boxes):
    return torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), dim=1)


@pytest.mark.parametrize("name", ["iou", "iouwh"])
def test_overlap_losses(overlaps, name):
    prediction = torch.from_numpy(overlaps["pred"]).double().requires_grad_()
    target = torch.from_numpy(overlaps["target"]).double()
    overlap = (
        paired_iou(corners(prediction), corners(target))
        if name == "iou"
        else shape_iou(prediction[:, 2:], target[:, 2:])
    )
    loss = 1 - overlap**2
    np.testing.assert_allclose(loss.detach().numpy(), overlaps[name], rtol=1e-5, atol=1e-7)
    (gradient,) = torch.autograd.grad(loss.sum(), prediction)
    # row 0: both boxes are one, and at that kink every slope is right
    np.testing.assert_allclose(gradient[1:].numpy(), overlaps[f"{name}_gradpred"][1:], rtol=1e-5, atol=1e-7)


def test_overlap_of_pairs(overlaps):
    prediction, target = (corners(torch.from_numpy(overlaps[k]).double()) for k in ("pred", "target"))
    overlap = pairwise_iou(prediction[:20], target[20:50])
    np.testing.assert_allclose(overlap.numpy(), overlaps["pair_iou_cxcywh"], rtol=1e-5, atol=1e-7)


class TestDropBlock:
    def test_rates(self, goldens):
        for keep_prob, block, width, gamma in goldens.load("dropblock.npz")["gamma_table"]:
            rate = drop_rate(int(width), block_size=int(block), keep_prob=keep_prob)
            assert rate == pytest.approx(gamma, rel=1e-6)

    @pytest.mark.parametrize("block_size", [1, 3, 7])
    def test_squares(self, goldens, monkeypatch, block_size):
        golden = goldens.load("dropblock.npz")
        seeds = torch.from_numpy(golden[f"bs{block_size}_seedmask"]).float()
        monkeypatch.setattr(torch, "bernoulli", lambda rate: seeds.to(rate.dtype))
        out = DropBlock(block_size, keep_prob=0.9)(goldens.image(30 + block_size, 2, 8, 15, 15))
        np.testing.assert_allclose(out.numpy(), golden[f"bs{block_size}_out"], rtol=1e-5)


@pytest.mark.parametrize("setting", range(4))
def test_postprocess(goldens, setting):
    golden = goldens.load("postprocess.npz")
    score, nms_iou = golden[f"thr{setting}"].tolist()
    rows = torch.from_numpy(golden["pred"])
    centers, halves = rows[..., :2], rows[..., 2:4] / 2
    candidates = Candidates(
        boxes=torch.cat((centers - halves, centers + halves), dim=-1),
        scores=rows[..., 4:5] * rows[..., 5:],
        levels=torch.zeros(rows.shape[1], dtype=torch.int64),
    )
    postprocess = DensePostprocess(score=score, nms_iou=nms_iou, max_detections=0)
    *found, nothing = postprocess(candidates)
    assert len(nothing) == 0
    for image, detections in enumerate(found):
        assert (detections.scores[:-1] >= detections.scores[1:]).all()
        got = torch.cat((detections.boxes, detections.scores[:, None], detections.labels[:, None]), dim=1)
        expected = golden[f"out{setting}_img{image}"]
        expected = np.column_stack((expected[:, :4], expected[:, 4] * expected[:, 5], expected[:, 6]))
        assert sorted(map(tuple, got.tolist())) == sorted(map(tuple, expected.tolist()))


class TestSchedule:
    """The original counts 2365 iterations an epoch where 2366 pass; given its number, every rate is equal."""

    COSINE = ScheduleSettings(burn_in_epochs=5, hold_epochs=20, min_lr=0.01, closing_epochs=31, by_epoch=True)
    STEPS = ScheduleSettings(kind="step", burn_in_epochs=5, steps=(180, 240))

    def rate(self, settings: ScheduleSettings, epoch: int, step: int = 0) -> float:
        return 1e-3 * lr_factor(settings, epoch=epoch, step=step, steps_per_epoch=2365, epochs=301)

    def test_burn_in(self, goldens):
        for place, rate in goldens.read_json("lr_schedule.json")["burn_in"].items():
            assert self.rate(self.COSINE, *map(int, place.split(":"))) == pytest.approx(rate, rel=1e-12, abs=1e-30)

    def test_cosine(self, goldens):
        rates = goldens.read_json("lr_schedule.json")["per_epoch_first_iter"]
        assert len(rates) == 301
        for epoch, rate in rates.items():
            assert self.rate(self.COSINE, int(epoch)) == pytest.approx(rate, rel=1e-12)

    def test_steps(self, goldens):
        for epoch, rate in goldens.read_json("lr_schedule.json")["step_mode_cos_false"].items():
            # at the epoch's last iteration
            assert self.rate(self.STEPS, int(epoch), 2365) == pytest.approx(rate, rel=1e-12)
