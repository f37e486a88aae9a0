"""The description of a detector: edits by name and by mapping, files that give it back, and what is refused."""

import json
import re

import pytest
import yaml

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.parts import part
from pyrafuse.base.spec import DetectorSpec, TwoStageSpec, read_spec
from pyrafuse.models.registry import MODELS

FIELDS = "backbone, necks, head, coder, criterion, decode, postprocess, num_classes"


@pytest.fixture
def spec():
    return DetectorSpec(
        backbone=part("resnet50", width=8),
        necks=(part("fpn", num_levels=5), part("bfp", level=1)),
        head=part("retinanet"),
        coder=part("delta"),
        criterion=part("dense", assigner=part("max_iou", positive_iou=0.5), box_loss=part("l1")),
        decode=part("dense"),
        postprocess=part("suppression", nms_iou=0.5),
    )


@pytest.fixture
def two_stage():
    return MODELS.get("cascade_rcnn")()


@pytest.mark.parametrize("name", MODELS.names())
def test_files_give_every_model_back(name):
    spec = MODELS.get(name)()
    assert read_spec(json.loads(json.dumps(spec.to_plain()))) == spec
    assert read_spec(yaml.safe_load(yaml.safe_dump(spec.to_plain(), sort_keys=False))) == spec


class TestEdits:
    def test_by_name_nothing_of_the_part_before_stays(self, spec):
        got = spec.with_parts(backbone="vgg16", head="atss", postprocess={"name": "other", "x": 1})
        assert (got.backbone, got.head, got.postprocess) == (part("vgg16"), part("atss"), part("other", x=1))
        assert (got.necks, got.criterion) == (spec.necks, spec.criterion)

    def test_by_options(self, spec):
        got = spec.with_parts(
            backbone={"depth": 3}, criterion={"assigner": {"ties": False}, "box_loss": "giou"}, num_classes=3
        )
        assert got.backbone == part("resnet50", width=8, depth=3)
        assert got.criterion == part(
            "dense", assigner=part("max_iou", positive_iou=0.5, ties=False), box_loss=part("giou")
        )
        assert got.num_classes == 3
        assert spec.num_classes == 80

    def test_necks_of_a_row_by_their_names(self, spec):
        got = spec.with_parts(necks={"bfp": {"level": 2}, "fpn": {"extra": "input"}})
        assert got.necks == (part("fpn", num_levels=5, extra="input"), part("bfp", level=2))

    def test_a_neck_that_stays_keeps_its_options(self, spec):
        got = spec.with_parts({"pafpn": {"out_channels": 8}, "fpn": {"never": 1}}, neck=("fpn", "pafpn"))
        assert got.necks == (part("fpn", num_levels=5), part("pafpn", out_channels=8))

    def test_a_neck_and_its_options_at_once(self, spec):
        got = spec.with_parts(neck="bifpn", necks={"bifpn": {"repeats": 2}})
        assert got.necks == (part("bifpn", repeats=2),)

    def test_options_of_the_only_neck(self, spec):
        got = spec.with_parts(neck="fpn").with_parts(neck={"extra": "output"})
        assert got.necks == (part("fpn", num_levels=5, extra="output"),)

    def test_a_mapping_changes_every_stage_and_a_list_each(self, two_stage):
        got = two_stage.with_parts(stages={"sampler": {"number": 7}})
        assert isinstance(got, TwoStageSpec)
        assert [stage.options["sampler"].options["number"] for stage in got.stages] == [7, 7, 7]
        assert [s.options["weight"] for s in got.stages] == [1.0, 0.5, 0.25]
        got = two_stage.with_parts(stages=[{}, {"weight": 2.0}, {"sampler": {"number": 9}}])
        assert [stage.options["weight"] for stage in got.stages] == [1.0, 2.0, 0.25]
        assert [stage.options["sampler"].options["number"] for stage in got.stages] == [512, 512, 9]
        assert two_stage.with_parts(stages=two_stage.stages[:1]).stages == two_stage.stages[:1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"haed": "atss"},
            "a detector has no 'haed'; did you mean 'head'? choose from "
            "backbone, coder, criterion, decode, head, necks, num_classes, postprocess",
        ),
        (
            {"stages": {}},
            "a detector has no 'stages'; choose from "
            "backbone, coder, criterion, decode, head, necks, num_classes, postprocess",
        ),
        ({"num_classes": 0}, "num_classes must be a whole number, 1 to 100,000, got 0"),
        ({"num_classes": "3"}, "num_classes must be a whole number, 1 to 100,000, got '3'"),
        ({"backbone": 50}, "the part resnet50 is changed by a name or a mapping of options, not by 50"),
        ({"neck": []}, "a detector needs a neck; identity leaves the backbone's maps as they are"),
        ({"neck": 3}, "a part is a name, or a mapping of its name and options, not 3"),
        (
            {"neck": {"num_levels": 3}},
            "the necks are fpn, bfp: options of each are given by its name, as necks={NAME: {...}}",
        ),
        ({"necks": {"asff": {}}}, "options are given for asff, but the necks are fpn, bfp"),
        ({"necks": ["fpn"]}, "necks is a mapping of options by the name of each neck, got ['fpn']"),
    ],
)
def test_edits_that_are_refused(spec, change, said):
    with pytest.raises(PyrafuseError, match=f"^{re.escape(said)}$"):
        spec.with_parts(**change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hed": "atss"}, f"a detector has no 'hed'; choose from {FIELDS}"),
        ({"head": None}, "a part is a name, or a mapping of its name and options, not None"),
        ({"necks": []}, "necks is a list of parts, got []"),
        ({"necks": {"name": "fpn"}}, "necks is a list of parts, got {'name': 'fpn'}"),
        ({"necks": [3]}, "a part is a name, or a mapping of its name and options, not 3"),
        ({"num_classes": "many"}, "num_classes must be a whole number, 1 to 100,000, got 'many'"),
    ],
)
def test_files_that_describe_no_detector(spec, change, said):
    with pytest.raises(PyrafuseError, match=f"^{re.escape(said)}$"):
        read_spec({**spec.to_plain(), **change})


def test_files_that_leave_something_out(spec):
    values = spec.to_plain()
    del values["decode"], values["head"]
    said = "a detector needs head, decode; pyrafuse models NAME --spec shows a whole one"
    with pytest.raises(PyrafuseError, match=f"^{said}$"):
        read_spec(values)
    with pytest.raises(PyrafuseError, match=r"^a detector is described by a mapping of its parts, not by \[\]$"):
        read_spec([])
    with pytest.raises(PyrafuseError, match=r"^a detector needs proposals, learning_proposals; "):
        read_spec({**spec.to_plain(), "stages": [{"name": "roi"}]})


@pytest.mark.parametrize("field", ["backbone", "head", "criterion", "decode", "postprocess"])
def test_a_part_that_every_detector_has_cannot_be_none(spec, field):
    with pytest.raises(PyrafuseError, match=f"^a detector needs {field}, got None"):
        spec.with_parts(**{field: None})


def test_a_two_stage_detector_needs_a_stage(two_stage):
    with pytest.raises(PyrafuseError, match=re.escape("a detector needs stages, got ()")):
        two_stage.with_parts(stages=[])
