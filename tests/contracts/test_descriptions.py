"""What a description promises: it is whole, it means the same when defaults change, and any head has a detector."""

import pytest
import torch

from pyrafuse.assigners.max_iou import MaxIoUAssigner
from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.parts import Part, part
from pyrafuse.base.spec import TwoStageSpec
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.registry import CRITERIA
from pyrafuse.heads.registry import HEADS, PROPOSAL_HEADS
from pyrafuse.heads.retinanet import RetinaNetHead
from pyrafuse.losses.registry import LOSSES
from pyrafuse.models.building import build, resolve
from pyrafuse.models.describing import change, describe, predictions_of, write_yaml
from pyrafuse.models.factory import create_model
from pyrafuse.models.registry import MODELS
from pyrafuse.models.two_stage import STAGES
from pyrafuse.necks.fpn import fpn
from pyrafuse.necks.registry import NECKS
from pyrafuse.ops.registry import CODERS
from pyrafuse.postprocess.registry import DECODERS, PROPOSALS, SELECTIONS

REGISTRIES = {
    "backbone": BACKBONES,
    "necks": NECKS,
    "head": HEADS,
    "coder": CODERS,
    "criterion": CRITERIA,
    "decode": DECODERS,
    "postprocess": SELECTIONS,
    "proposals": PROPOSALS,
    "learning_proposals": PROPOSALS,
    "stages": STAGES,
}


def rows_of(value):
    return value if isinstance(value, tuple) else (value,)


def find_missing(registry, given: Part, place: str) -> list[str]:
    """Options that ``given``, or a part inside, leaves out."""
    entry = registry.entry(given.name)
    missing = [f"{place}.{name}" for name in registry.options(given.name) if name not in given.options]
    for name, inner in {**entry.parts, **entry.makers}.items():
        for one in rows_of(given.options.get(name)):
            assert one is None or isinstance(one, Part), f"{place}.{name} is {one!r}"
            if one is not None:
                missing += find_missing(inner, one, f"{place}.{name}")
    return missing


def shapes(detector):
    return {key: value.shape for key, value in detector.state_dict().items()}


@pytest.mark.parametrize("name", MODELS.names())
def test_a_detectors_card_leaves_nothing_out_and_builds_it_again(name):
    with torch.device("meta"):
        detector = create_model(name, num_classes=3)
        again = build(detector.card.spec)
    spec = detector.card.spec
    registries = {**REGISTRIES, "head": PROPOSAL_HEADS if isinstance(spec, TwoStageSpec) else HEADS}
    missing = []
    for field, registry in registries.items():
        for one in rows_of(getattr(spec, field, None)):
            missing += find_missing(registry, one, field) if one is not None else []
    assert missing == []
    assert again.card.spec == spec
    assert shapes(again) == shapes(detector)


def test_what_is_missing_is_found():
    whole = create_model("retinanet", backbone=part("resnet18", width=8), num_classes=2).card.spec.criterion
    assigner = whole.options["assigner"]
    cut = {key: value for key, value in assigner.options.items() if key != "match_ties"}
    sparse = whole.with_options(assigner=Part(assigner.name, cut))
    assert find_missing(CRITERIA, sparse, "criterion") == ["criterion.assigner.match_ties"]
    assert ASSIGNERS.options("max_iou")["match_ties"] is True


DEFAULTS = [
    ("assigner", MaxIoUAssigner.__init__, "match_ties", False, lambda d: d.criterion.assigner.match_ties),
    ("loss", LOSSES.get("focal"), "gamma", 3.5, lambda d: d.card.spec.criterion.options["class_loss"].options["gamma"]),
    ("head", RetinaNetHead.__init__, "num_convs", 1, lambda d: sum("towers" in k or "convs" in k for k in shapes(d))),
    ("neck", fpn, "out_channels", 24, lambda d: d.neck.features.channels),
]


@pytest.mark.parametrize(
    ("function", "option", "value", "look"), [row[1:] for row in DEFAULTS], ids=lambda v: str(v)[:9]
)
def test_a_whole_description_does_not_follow_defaults(function, option, value, look, monkeypatch):
    with torch.device("meta"):
        sparse = describe("retinanet", num_classes=3, backbone=part("resnet18", width=8))
        before = build(sparse)
        monkeypatch.setitem(function.__kwdefaults__, option, value)
        again, follower = build(before.card.spec), build(sparse)
    assert look(again) == look(before)
    assert look(follower) != look(before)
    assert again.card.spec == before.card.spec
    assert shapes(again) == shapes(before)
    assert follower.card.spec != before.card.spec


SMALL = {name: {"channels": 32, "num_convs": 1} for name in ("atss", "ddod", "fcos", "ga_retinanet", "retinanet")}
SMALL |= {"efficientdet": {"num_convs": 1}, "yolov3": {"adaption": False}, "yolov3_plain": {"adaption": False}}
NARROW = {"yolo_fpn": {"width": 1 / 16}, "fpn": {"out_channels": 32}, "ssd_extra": {"out_channels": (16, 16, 16, 16)}}
NECKS_OF = {
    "yolov3": "yolo_fpn",
    "yolov3_plain": "yolo_fpn",
    "ssd": "ssd_extra",
    "m2det": "ssd_extra",
}


@pytest.fixture
def few_targets():
    boxes = torch.tensor([[4.0, 4, 40, 50], [30, 10, 90, 64]])
    return Targets.pad([boxes, boxes[:0]], [torch.tensor([0, 2]), torch.zeros(0)])


def learn(detector, images, targets):
    losses = detector.criterion(detector.train()(images, targets), targets)
    assert all(loss.isfinite() for loss in losses.values())
    total = sum(losses.values())
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.head.parameters() if p.requires_grad)
    return total.item()


def detect(detector, images):
    with torch.no_grad():
        found = detector.eval()(images)
        candidates = detector.decode(images)
    assert candidates.boxes.shape[0] == len(images)
    assert candidates.scores.shape[-1] == 3
    assert candidates.boxes.isfinite().all()
    return found


@pytest.mark.parametrize("head", HEADS.names())
def test_any_head_by_its_name(head, few_targets):
    torch.manual_seed(0)
    neck = NECKS_OF.get(head, "fpn")
    detector = create_model(
        head={"name": head, **SMALL.get(head, {})},
        backbone=part("resnet18", width=8, strides=(8, 16)) if neck == "ssd_extra" else part("resnet18", width=8),
        necks={neck: NARROW[neck]},
        num_classes=3,
    )
    assert detector.card.spec.head.name == head
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    learn(detector, images, few_targets)
    detect(detector, images)
    assert create_model(detector.card.spec, num_classes=3).card.spec == detector.card.spec


def test_a_new_head_has_a_detector(few_targets, monkeypatch):
    monkeypatch.setattr(HEADS, "_entries", dict(HEADS._entries))

    @HEADS.register("of_a_test", predictions="anchors", shares_levels=True)
    class OwnHead(RetinaNetHead):
        """A head of one convolution."""

        def __init__(self, features, *, num_classes: int, channels: int = 8) -> None:
            super().__init__(features, num_classes=num_classes, channels=channels, num_convs=1)

    torch.manual_seed(0)
    detector = create_model(head="of_a_test", backbone=part("resnet18", width=8), num_classes=3)
    assert isinstance(detector.head, OwnHead)
    assert detector.card.spec.head == part("of_a_test", channels=8)
    assert detector.card.spec.criterion.options["class_loss"].name == "focal"
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    first = learn(detector, images, few_targets)
    optimizer.step()
    optimizer.zero_grad()
    assert learn(detector, images, few_targets) < first
    detect(detector, images)


def test_a_head_that_does_not_say_what_it_predicts(monkeypatch):
    monkeypatch.setattr(HEADS, "_entries", dict(HEADS._entries))
    HEADS.add("silent", RetinaNetHead)
    said = (
        "the head silent does not say what it predicts: register it with predictions= one of anchors, "
        "anchors_with_quality, cells, guided_anchors, multibox, plain_cells, points, proposals"
    )
    with pytest.raises(PyrafuseError, match=f"^{said}$"):
        create_model(head="silent", num_classes=3)


@pytest.mark.parametrize("head", HEADS.names())
def test_another_head_brings_what_learns_and_decodes_for_it(head):
    with torch.device("meta"):
        spec = create_model("retinanet", num_classes=3, head=head).card.spec
        other = create_model(head=head, num_classes=3).card.spec
    if predictions_of(head) != "anchors":
        assert (spec.criterion.name, spec.decode, spec.postprocess) == (
            other.criterion.name,
            other.decode,
            other.postprocess,
        )
    assert spec.necks[0].name == "fpn"


class TestWhatIsWorkedOutAnew:
    def test_the_ranges_of_points_follow_the_levels(self):
        with torch.device("meta"):
            five = create_model("fcos", num_classes=3, backbone=part("resnet18", width=8)).card.spec
            three = create_model(five, num_classes=3, neck=part("fpn", num_levels=3)).card.spec
        ranges = [spec.criterion.options["assigner"].options["ranges"] for spec in (five, three)]
        assert [len(row) for row in ranges] == [5, 3]
        assert ranges[1][0] == ranges[0][0]

    def test_chosen_ranges_stay(self):
        ranges = ((0, 50), (50, 100), (100, 1e8))
        with torch.device("meta"):
            spec = create_model(
                "fcos",
                num_classes=3,
                backbone=part("resnet18", width=8),
                neck=part("fpn", num_levels=3),
                criterion={"assigner": {"ranges": ranges}},
            ).card.spec
            again = create_model(spec, num_classes=3, necks={"fpn": {"out_channels": 32}}).card.spec
        assert again.criterion.options["assigner"].options["ranges"] == ranges

    def test_fitted_anchors_stay(self):
        fitted = (((8, 9), (10, 11), (12, 13)), ((20, 21), (22, 23), (24, 25)), ((40, 41), (42, 43), (44, 45)))
        with torch.device("meta"):
            spec = create_model("yolov3_small", num_classes=3, head={"anchors": fitted}).card.spec
        for edits in ({"neck": "pafpn"}, {"criterion": {"box_weight": 3.0}}, {"backbone": {"width": 0.5}}):
            assert change(spec, **edits).head.options["anchors"] == fitted

    def test_anchors_that_were_worked_out_follow_the_strides(self):
        with torch.device("meta"):
            small = create_model("yolov3_small", num_classes=3).card.spec
            fine = create_model(small, num_classes=3, backbone={"strides": (4, 8, 16)}).card.spec
            alone = create_model("yolov3_small", num_classes=3, backbone=part("mobilenet_v2", strides=(4, 8, 16)))
        assert fine.head.options["anchors"] == alone.card.spec.head.options["anchors"]
        assert fine.head.options["anchors"] != small.head.options["anchors"]


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("retinanet", {"coder": None}, "the criterion dense needs a coder, and the description has none"),
        ("retinanet", {"criterion": {"assigner": None}}, "the criterion dense needs the option 'assigner'"),
        ("retinanet", {"criterion": {"box_loss": None}}, "the criterion dense needs the option 'box_loss'"),
        ("faster_rcnn", {"stages": {"sampler": None}}, "the stage roi needs the option 'sampler'"),
        ("retinanet", {"head": {"channels": -1}}, "cannot build the head retinanet: .*negative dimension"),
        ("retinanet", {"head": None}, "a detector needs head, got None"),
        ("yolov3", {"neck": "asff", "necks": {"asff": {"activation": "rellu"}}},
         "unknown activation 'rellu'; did you mean 'relu'?"),
        ("yolov3_small", {"criterion": {"assigner": {"name": "neighbours", "top_k": 0}}},
         "top_k must be a whole number, 1 or more, got 0"),
        ("yolov3", {"head": {"anchors": [[[]], [[1, 2]], [[3, 4]]]}}, "anchors of the head yolov3: expected"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_told_by_its_part(name, changes, said):
    with pytest.raises(PyrafuseError, match=f"^{said}"):
        resolve(describe(name, **changes))


def test_files_of_descriptions_know_powers_of_ten(tmp_path):
    whole = write_yaml(resolve(describe("retinanet")))
    (tmp_path / "mine.yaml").write_text(whole.replace("prior: 0.01", "prior: 1e-3"))
    assert describe(str(tmp_path / "mine.yaml")).head.options["prior"] == 0.001
