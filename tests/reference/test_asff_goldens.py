"""Whole models and their training, against what the original code computed in float64."""

import numpy as np
import pytest
import torch

import pyrafuse
from pyrafuse.core.targets import Targets
from pyrafuse.importers.asff import ASFF, LAYOUTS, asff_naming
from pyrafuse.models.checkpoint import save
from pyrafuse.postprocess.dense import DensePostprocess
from pyrafuse.postprocess.yolov3 import decode_yolov3

TERMS = ("anchor", "iou", "l1", "objectness", "classification")
MODELS = ("mobile_asff", "asff")


def layout_of(model: str):
    return LAYOUTS[model.startswith("mobile"), "asff" in model]


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return request.param


@pytest.fixture(scope="module")
def detector(model, goldens, tmp_path_factory):
    """The official checkpoint, through a file and the front door."""
    path = tmp_path_factory.mktemp("official") / f"{model}.pth"
    torch.save({f"module.{key}": value for key, value in goldens.state(model).items()}, path)
    loaded = pyrafuse.load(path)
    path.unlink()
    return loaded


@pytest.fixture(scope="module")
def images(goldens):
    return goldens.image(0, 2, 3, 320, 320)


@pytest.fixture(scope="module")
def forward(model, detector, images, goldens):
    """The pyramid before fusion, predictions, and the vectors they should equal."""
    with torch.no_grad():
        yolo, asff = detector.neck.necks
        pyramid = yolo(detector.backbone(images))
        return pyramid, detector.head(asff(pyramid)), goldens.load(f"eval_{model}_320.npz")


def test_candidates(forward, goldens):
    _, predictions, golden = forward
    boxes = decode_yolov3(predictions).boxes
    rows = torch.cat(
        (
            (boxes[..., :2] + boxes[..., 2:]) / 2,
            boxes[..., 2:] - boxes[..., :2],
            predictions.objectness.sigmoid()[..., None],
            predictions.classes.sigmoid(),
        ),
        dim=-1,
    )
    goldens.compare.check_pred(golden, rows.numpy(), rtol=2e-4, atol=1e-4)
    np.testing.assert_allclose(rows.double().mean((0, 1)).numpy(), golden["channel_mean"], rtol=2e-4, atol=1e-4)


def fuse(part, pyramid):
    """The weights (B, S, H, W) of one level and what is fused by them."""
    seen = []
    hook = part.weights.register_forward_hook(lambda _, given, fused: seen.append((given[0], fused)))
    with torch.no_grad():
        part(pyramid)
    hook.remove()
    return seen[0]


@torch.no_grad()
def test_fusion(detector, forward, goldens):
    pyramid, _, golden = forward
    for level, part in enumerate(detector.neck.necks[1].levels):
        weights, fused = fuse(part, pyramid)
        # theirs count from the coarsest level
        goldens.check(golden, f"fusion_weight_{2 - level}", weights.flip(1), rtol=1e-4, atol=1e-4)
        scale = float(np.abs(golden[f"fused_sum_{2 - level}"]).max())
        goldens.check(golden, f"fused_sum_{2 - level}", fused.sum(1), rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize(("thresholds", "score", "nms_iou"), [("default", 0.7, 0.45), ("eval", 0.5, 0.65)])
def test_detections(forward, thresholds, score, nms_iou):
    _, predictions, golden = forward
    postprocess = DensePostprocess(score=score, nms_iou=nms_iou, max_detections=0, max_candidates=100_000)
    for i, found in enumerate(postprocess(decode_yolov3(predictions))):
        expected = golden[f"pp_{thresholds}_img{i}"]
        assert abs(len(found) - len(expected)) <= 1  # one score may lie within rounding of the threshold
        scores = np.sort(expected[:, 4] * expected[:, 5])[::-1]
        count = min(len(found), len(expected)) - 1
        np.testing.assert_allclose(found.scores[:count].numpy(), scores[:count], rtol=1e-3)


@pytest.fixture(scope="module")
def training(model, goldens):
    """One forward in training mode and float64; everything below asks of it."""
    detector = ASFF.build(goldens.state(model), source=model).train().double()
    predictions = detector(goldens.image(0, 2, 3, 320, 320).double())
    return detector, predictions, goldens.load(f"train_{model}.npz")


def targets_of(rows: np.ndarray) -> Targets:
    rows = torch.from_numpy(rows).double()
    valid = rows[..., :5].sum(-1) > 0
    weights = rows[..., 5] if rows.shape[-1] == 6 else torch.ones_like(rows[..., 0])
    centers, halves = rows[..., 1:3], rows[..., 3:5] / 2
    return Targets(
        boxes=torch.cat((centers - halves, centers + halves), dim=-1),
        labels=rows[..., 0].long(),
        weights=weights,
        valid=valid,
        crowd=torch.zeros_like(valid),
    )


def losses_of(training, targets: str, smoothing: int):
    detector, predictions, golden = training
    detector.criterion.label_smoothing = bool(smoothing)
    return detector.criterion.by_level(predictions, targets_of(golden[f"targets{targets[1]}"]))


@pytest.mark.parametrize("smoothing", [0, 1])
@pytest.mark.parametrize("targets", ["t5", "t6"])
def test_losses(training, targets, smoothing):
    golden = training[2]
    report = losses_of(training, targets, smoothing)
    by_level = torch.stack([report.losses[term] for term in TERMS]).detach().numpy()
    assert golden["loss_names"].tolist()[1:] == ["anchor", "iou", "l1", "conf", "cls"]
    per_level = golden[f"loss_per_level_{targets}_ls{smoothing}"]
    np.testing.assert_allclose(by_level.T[::-1], per_level[:, 1:], rtol=1e-4)
    np.testing.assert_allclose(by_level.sum(1), golden[f"loss_{targets}_ls{smoothing}"][1:], rtol=1e-4)
    np.testing.assert_allclose(by_level.sum(), golden[f"loss_{targets}_ls{smoothing}"][0], rtol=1e-4)


@pytest.mark.parametrize(("targets", "smoothing"), [("t5", 0), ("t6", 1)])
def test_gradients(model, training, targets, smoothing):
    if (model, targets) == ("asff", "t5"):
        pytest.skip("ten seconds for what t6 and the small model show as well")
    detector, _, golden = training
    report = losses_of(training, targets, smoothing)
    total = torch.stack([values.sum() for values in report.losses.values()]).sum()
    named = dict(detector.named_parameters())
    gradients = torch.autograd.grad(total, list(named.values()), retain_graph=True)
    theirs = {ours: asff_naming(layout_of(model))(ours) for ours in detector.state_dict()}
    got = {theirs[name]: float(g.norm()) for name, g in zip(named, gradients, strict=True)}
    expected = dict(zip(golden["param_names"].tolist(), golden[f"grad_l2_{targets}_ls{smoothing}"], strict=True))
    assert got.keys() == expected.keys()
    least = 1e-6 * max(expected.values())  # below stand the gradients that are mathematically zero
    names = [name for name, norm in expected.items() if norm > least]
    assert len(names) > 200
    np.testing.assert_allclose([got[n] for n in names], [expected[n] for n in names], rtol=1e-3)


def test_batch_norm_statistics(model, training):
    detector, _, golden = training
    theirs = {asff_naming(layout_of(model))(ours): ours for ours in detector.state_dict()}
    state = detector.state_dict()
    got = [float(state[theirs[key]].norm()) for key in golden["bn_after_keys"].tolist()]
    np.testing.assert_allclose(got, golden["bn_after_l2"], rtol=1e-5)


@pytest.mark.parametrize("targets", ["t5", "t6"])
def test_assignment(training, targets):
    detector, predictions, golden = training
    objects = targets_of(golden[f"targets{targets[1]}"])
    claims = detector.criterion.assigner(predictions, objects)
    logits = predictions.objectness.detach().requires_grad_()
    lone = type(predictions)(**{**vars(predictions), "objectness": logits})
    loss = detector.criterion.by_level(lone, objects).losses["objectness"].sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    wanted = torch.zeros_like(logits)
    positives = claims.positives
    for image, rows in enumerate(positives.rows):
        wanted[image, rows[positives.valid[image]]] = 1
    weight = gradient * len(logits) / (logits.detach().sigmoid() - wanted)  # what the loss must have weighed it by

    for level in range(3):
        for name, found in (("coord", positives), ("anchor", claims.shapes)):
            expected = {tuple(place) for place in golden[f"{targets}_{name}_mask_idx_L{level}"].tolist()}
            assert places_of(found, predictions.grid, 2 - level) == expected
        expected = {
            tuple(place): value
            for place, value in zip(
                golden[f"{targets}_obj_mask_not1_idx_L{level}"].tolist(),
                golden[f"{targets}_obj_mask_not1_val_L{level}"].tolist(),
                strict=True,
            )
        }
        start, (width, height) = predictions.grid.starts[2 - level, 0], predictions.grid.sizes[2 - level].tolist()
        here = weight[:, start : start + 4 * width * height].view(2, 4, height, width)
        unusual = ((here - 1).abs() > 1e-6).nonzero().tolist()
        assert {tuple(place): round(float(here[tuple(place)]), 5) for place in unusual} == {
            place: round(value, 5) for place, value in expected.items()
        }


def places_of(claims, grid, level: int) -> set[tuple[int, int, int, int]]:
    """(image, slot, y, x) of the claims on ``level``."""
    width, height = grid.sizes[level].tolist()
    places = set()
    for image, row in claims.valid.nonzero().tolist():
        index = int(claims.rows[image, row]) - int(grid.starts[level, 0])
        if 0 <= index < 4 * width * height:
            slot, cell = divmod(index, width * height)
            places.add((image, slot, *divmod(cell, width)))
    return places


@pytest.fixture(scope="module")
def whole(goldens):
    return goldens.state("mobile_asff")


@pytest.fixture
def state(whole):
    return dict(whole)


class TestFiles:
    """A mobile layout stands for all here: its files are small."""

    def test_half_precision(self, state, tmp_path):
        halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        torch.save(halves, tmp_path / "a.pth")
        loaded = pyrafuse.load(tmp_path / "a.pth")
        wide = ASFF.build({key: value.float() for key, value in halves.items()}, source="memory")
        for (name, got), expected in zip(loaded.state_dict().items(), wide.state_dict().values(), strict=True):
            assert got.dtype == expected.dtype
            assert torch.equal(got, expected), name

    @pytest.mark.parametrize(("prefix", "is_zip"), [("", True), ("module.", True), ("", False), ("module.", False)])
    def test_every_form_of_file_gives_the_same_detector(self, state, tmp_path, prefix, is_zip):
        path = tmp_path / "official.pth"
        content = {prefix + key: value for key, value in state.items()}
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
        loaded = pyrafuse.load(path)
        direct = ASFF.build(state, source="memory")
        assert not loaded.training
        assert loaded.card == direct.card
        assert loaded.card.preprocessing.size == (416, 416)
        assert loaded.card.names[0] == "person"
        assert loaded.card.category_ids[-1] == 90
        for (name, got), expected in zip(loaded.state_dict().items(), direct.state_dict().values(), strict=True):
            assert torch.equal(got, expected), name

    def test_saved_as_our_own(self, state, goldens, tmp_path):
        detector = ASFF.build(state, source="memory").eval()
        save(detector, tmp_path / "ours.ckpt")
        again = pyrafuse.load(tmp_path / "ours.ckpt")
        images = goldens.image(5, 1, 3, 64, 64)
        assert again.card.origin == detector.card.origin
        assert again.card.category_ids == detector.card.category_ids
        got, expected = again.decode(images), detector.decode(images)
        assert torch.equal(got.boxes, expected.boxes)
        assert torch.equal(got.scores, expected.scores)


@pytest.mark.parametrize("model", ["mobile", "mobile_asff"])
def test_twenty_classes(goldens, model):
    shapes = dict(goldens.read_json(f"manifest_{model}.json"))
    for level in range(3):
        for kind in ("weight", "bias"):
            shapes[f"level_{level}_header.conv.{kind}"][0] = 4 * (5 + 20)
    detector = ASFF.build(goldens.fill_in(shapes, "mobile"), source="voc").eval()
    assert detector.card.origin.endswith(", 20 classes")
    assert detector.names == tuple(str(i) for i in range(20))
    with torch.no_grad():
        assert detector.decode(torch.zeros(1, 3, 64, 64)).scores.shape == (1, 336, 20)


class TestComplaints:
    def test_missing(self, state):
        del state["level_1_header.guide_wh.bias"]
        with pytest.raises(pyrafuse.PyrafuseError, match=r"^a\.pth .*missing: level_1_header\.guide_wh\.bias$"):
            ASFF.build(state, source="a.pth")

    def test_extra(self, state):
        state["level_3_header.conv.bias"] = torch.zeros(1)
        with pytest.raises(pyrafuse.PyrafuseError, match=r"extra: level_3_header\.conv\.bias$"):
            ASFF.build(state, source="a.pth")

    def test_shape(self, state):
        state["level_2_conv.expand.conv.weight"] = torch.zeros(3, 4, 1, 1)
        with pytest.raises(
            pyrafuse.PyrafuseError, match=r"level_2_conv\.expand\.conv\.weight is \(3, 4, 1, 1\), needs"
        ):
            ASFF.build(state, source="a.pth")

    def test_no_head(self, state):
        for level in range(3):
            for kind in ("weight", "bias"):
                del state[f"level_{level}_header.conv.{kind}"]
        with pytest.raises(pyrafuse.PyrafuseError, match=r"level_2_header\.conv\.weight is missing"):
            ASFF.build(state, source="a.pth")

    @pytest.mark.parametrize(
        "key", ["module_list.0.0.weight", "level_2_header.conv.weight", "level_0_conv.weight_level_0.conv.weight"]
    )
    def test_the_entries_that_tell_the_layout(self, state, key):
        """One of them at fault is named alone: the layout is still told by the others."""
        shape = tuple(state[key].shape)
        state[key] = torch.zeros(shape[0] + 4, *shape[1:])
        with pytest.raises(pyrafuse.PyrafuseError) as caught:
            ASFF.build(state, source="a.pth")
        found, needed = f"({shape[0] + 4}, {str(shape)[1:].partition(', ')[2]}", shape
        assert str(caught.value).endswith(f"ASFF on MobileNetV2, but does not fit; of another shape: {key} is {found}, "
                                          f"needs {needed}")  # fmt: skip
        del state[key]
        with pytest.raises(pyrafuse.PyrafuseError) as caught:
            ASFF.build(state, source="a.pth")
        assert str(caught.value).endswith(f"ASFF on MobileNetV2, but does not fit; missing: {key}")

    @pytest.mark.parametrize("key", ["level_0_fusion.stride_level_1.x", "y.rfb.z", "module_list.0.conv.weight"])
    def test_a_stray_key_does_not_change_the_layout(self, goldens, key):
        state = {**goldens.state("mobile"), key: torch.zeros(1)}
        with pytest.raises(pyrafuse.PyrafuseError) as caught:
            ASFF.build(state, source="a.pth")
        assert str(caught.value) == f"a.pth looks like YOLOv3 on MobileNetV2, but does not fit; extra: {key}"
