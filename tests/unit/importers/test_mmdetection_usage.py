"""How a file of mmdetection is used: by the settings in it, by its published name, by hand, never by a guess."""

import pytest

from pyrafuse.base.errors import CheckpointError
from pyrafuse.importers.engine import File
from pyrafuse.importers.mmdetection.config import find_config, parse_config
from pyrafuse.importers.mmdetection.families import DENSE, TWO_STAGE
from pyrafuse.importers.mmdetection.names import is_like, parse_name
from pyrafuse.importers.mmdetection.trunks import Trunk
from pyrafuse.importers.mmdetection.usage import read_classes, tell_usage

FAMILIES = {
    "retinanet_level_norms": next(f for f in DENSE if "norms" in f.title),
    "faster_rcnn_pafpn": next(f for f in TWO_STAGE if "PAFPN" in f.title),
    "detectors_cascade_rcnn": TWO_STAGE[0],
    **{f.model: f for f in (*DENSE, *TWO_STAGE)},  # of several of one model, the plainest is the last
}
OF_2 = """
norm = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
model = dict(
    type='RetinaNet',
    backbone=dict(type='ResNet', depth=50, style='caffe', norm_cfg=dict(type='BN', requires_grad=False)),
    neck=dict(type='FPN', start_level=1, add_extra_convs='on_input', num_outs=5),
    bbox_head=dict(
        type='RetinaHead', num_classes=3,
        anchor_generator=dict(octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0],
                              strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(target_means=[.0, .0, .0, .0], target_stds=[1.0, 1.0, 1.0, 1.0]),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True)),
    test_cfg=dict(
        nms_pre=500, min_bbox_size=0, score_thr=0.1, nms=dict(type='nms', iou_threshold=0.55), max_per_img=50))
steps = [dict(type='LoadImageFromFile'), dict(type='MultiScaleFlipAug', img_scale=(1000, 600), flip=False, transforms=[
    dict(type='Resize', keep_ratio=True), dict(type='Normalize', **norm), dict(type='Pad', size_divisor=64)])]
data = dict(samples_per_gpu=2, test=dict(type='CocoDataset', pipeline=steps))
work_dir = os.path.join('somewhere', 'else')
"""
OF_3 = """
model = dict(
    type='FCOS',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=True,
                           pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=50),
    neck=dict(type='FPN', start_level=1, add_extra_convs='on_output', relu_before_extra_convs=True, num_outs=5),
    bbox_head=dict(type='FCOSHead', num_classes=80, centerness_on_reg=True, norm_on_bbox=False),
    test_cfg=dict(nms_pre=1000, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile', backend_args=None), dict(type='Resize', scale=(1333, 800), keep_ratio=True)]))
"""


def tell(content, *, source="model.pth", published=None, family="retinanet", depth=50, grouping=""):
    groups, _, width = grouping.removesuffix("d").partition("x")
    trunk = Trunk(depth, {"groups": int(groups), "base_width": int(width)} if grouping else {})
    return tell_usage(
        File(content, {}, source, published),
        layout="mmdetection's RetinaNet",
        examples=FAMILIES[family].examples,
        trunk=trunk,
        known=FAMILIES[family].known,
    )


class TestNames:
    @pytest.mark.parametrize(
        ("name", "family", "depth", "is_caffe"),
        [
            ("retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth", "retinanet", 50, False),
            ("retinanet_r101_caffe_fpn_mstrain_3x_coco_20210721_063439-88a8a944.pth", "retinanet", 101, True),
            ("retinanet_r50-caffe_fpn_ms-2x_coco", "retinanet", 50, True),
            ("retinanet_x101_64x4d_fpn_1x_coco", "retinanet", 101, False),
            ("https://example.org/v2.0/atss/atss_r50_fpn_1x_coco_20200209-985f7bd0.pth", "atss", 50, False),
            ("fcos_r50_caffe_fpn_gn-head_1x_coco-821213aa.pth", "fcos", 50, True),
            ("fcos_r50-caffe_fpn_gn-head_1x_coco", "fcos", 50, True),
            ("ga_retinanet_r50_caffe_fpn_1x_coco_20201020-39581c6f.pth", "ga_retinanet", 50, True),
            ("retinanet_r50_nasfpn_crop640_50e_coco-0ad1f644.pth", "retinanet", 50, False),
            ("retinanet_r50_nasfpn_crop640-50e_coco.pth", "retinanet", 50, False),
            ("libra_retinanet_r50_fpn_1x_coco_20200205-804d94ce.pth", "libra_retinanet", 50, False),
            ("ddod_r50_fpn_1x_coco_20220523_223737-29b2fc67.pth", "ddod", 50, False),
            ("fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_1x_coco-0a0d75a8.pth", "fcos", 50, True),
            ("fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco", "fcos", 50, True),
            ("detectors_cascade_rcnn_r50_1x_coco-32a10ba0.pth", "cascade_rcnn", 50, False),
            ("faster_rcnn_r50_fpn_bounded_iou_1x_coco-98ad993b.pth", "faster_rcnn", 50, False),
            ("retinanet_r18_fpn_1x8_1x_coco_20220407_171255-4ea310d7.pth", "retinanet", 18, False),
            (
                "faster_rcnn_r50_pafpn_1x_coco_bbox_mAP-0.375_20200503_105836-b7b4b9bd.pth",
                "faster_rcnn",
                50,
                False,
            ),
        ],
    )
    def test_published(self, name, family, depth, is_caffe):
        parsed = parse_name(name)
        assert (parsed.family, parsed.depth, parsed.is_caffe) == (family, depth, is_caffe)

    @pytest.mark.parametrize(
        "name",
        [
            "model.pth",
            "retinanet.pth",
            "best_epoch_12.pth",
            "atss_r50_fpn_dconv_c3-c5_1x_coco.pth",
            "retinanet_r50_fpn_mdcn_coco.pth",
        ],
    )
    def test_others(self, name):
        assert parse_name(name) is None

    def test_preprocessing(self):
        usage = tell({}, source="a/retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth")
        assert usage.style == "pytorch"
        given = usage.preprocessing
        assert (given.fit, given.size, given.pad_multiple, given.bgr) == ("keep_ratio", (800, 1333), 32, False)
        assert given.interpolation == "opencv"
        assert [255 * m for m in given.mean] == pytest.approx([123.675, 116.28, 103.53])
        assert [255 * s for s in given.std] == pytest.approx([58.395, 57.12, 57.375])

    def test_caffe_and_detectron(self):
        usage = tell({}, source="fcos_r50_caffe_fpn_gn-head_1x_coco-821213aa.pth", family="fcos")
        given = usage.preprocessing
        assert (usage.style, given.bgr) == ("caffe", True)
        assert [255 * m for m in given.mean] == pytest.approx([122.7717, 115.9465, 102.9801])
        assert [255 * s for s in given.std] == pytest.approx([1, 1, 1])
        other = tell({}, source="retinanet_r50_caffe_fpn_1x_coco.pth").preprocessing
        assert [255 * m for m in other.mean] == pytest.approx([123.675, 116.28, 103.53])

    def test_crop_of_640(self):
        name = "retinanet_r50_nasfpn_crop640_50e_coco-0ad1f644.pth"
        given = tell({}, source=name, family="retinanet_nas_fpn").preprocessing
        assert (given.size, given.pad_multiple) == ((640, 640), 128)
        name = "retinanet_r50_fpn_crop640_50e_coco-9b953d76.pth"
        plain = tell({}, source=name, family="retinanet_level_norms").preprocessing
        assert (plain.size, plain.pad_multiple) == ((640, 640), 64)

    def test_pascal_voc(self):
        assert tell({}, source="retinanet_r50_fpn_1x_voc0712_20200617-47cbdd0e.pth").preprocessing.size == (600, 1000)

    @pytest.mark.parametrize("source", ["model.pth", "retinanet_r101_fpn_1x_coco.pth", "retinanet_r50_fpn.pth"])
    def test_nothing_is_guessed(self, source):
        with pytest.raises(CheckpointError, match=r"neither settings in it nor its name tell.*--as NAME or load\("):
            tell({}, source=source)

    @pytest.mark.parametrize(
        "name",
        [
            "fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_1x_coco-0a0d75a8.pth",
            "fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.pth",
        ],
    )
    def test_later_fcos(self, name):
        usage = tell({}, source=name, family="fcos")
        assert usage.changes == {
            "postprocess": {"nms_iou": 0.6},
            "head": {"distances": "scaled_relu", "centerness_on_boxes": True},
        }
        assert [255 * m for m in usage.preprocessing.mean] == pytest.approx([123.675, 116.28, 103.53])
        assert (usage.style, usage.preprocessing.bgr) == ("caffe", True)
        centred = tell({}, source="fcos_center_r50_caffe_fpn_gn-head_1x_coco-ae4d8b3d.pth", family="fcos")
        assert centred.changes == {}
        assert [255 * m for m in centred.preprocessing.mean] == pytest.approx([122.7717, 115.9465, 102.9801])

    def test_layers_that_are_not_there_make_another_detector(self):
        with pytest.raises(CheckpointError, match="neither settings in it nor its name"):
            tell(
                {}, source="fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_dcn_1x_coco.pth", family="fcos"
            )

    @pytest.mark.parametrize(
        ("name", "style", "bgr", "std"),
        [
            ("faster_rcnn_x101_32x8d_fpn_mstrain_3x_coco_20210604_182954-002e082a.pth", "pytorch", True, 57.375),
            ("faster_rcnn_x101_64x4d_fpn_mstrain_3x_coco_20210524_124528-26c63de6.pth", "pytorch", False, 57.375),
            ("faster_rcnn_r101_caffe_fpn_mstrain_3x_coco_20210526_095742-a7ae426d.pth", "caffe", False, 57.375),
            ("faster_rcnn_r101_caffe_fpn_1x_coco_bbox_mAP-0.398_20200504_180057-b269e9dd.pth", "caffe", True, 1),
        ],
    )
    def test_backbones_with_a_preprocessing_of_their_own(self, name, style, bgr, std):
        grouping = next((word for word in ("32x8d", "64x4d") if word in name), "")
        usage = tell({}, source=name, family="faster_rcnn", depth=101, grouping=grouping)
        assert (usage.style, usage.preprocessing.bgr) == (style, bgr)
        assert 255 * usage.preprocessing.std[2] == pytest.approx(std)

    def test_a_published_file_whose_name_leaves_out_its_data(self):
        name = "atss_r101_fpn_1x_20200825-dfcadd6f.pth"
        assert tell({}, source=name, family="atss", depth=101).style == "pytorch"

    def test_by_hand(self):
        assert tell({}, published="retinanet_r50_caffe_fpn").style == "caffe"
        assert tell({}, published="https://a.b/retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth").style == "pytorch"

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("atss_r50_fpn_1x_coco", "names atss on 50 layers; such as retinanet_r50_fpn_1x_coco"),
            ("retinanet_r101_fpn_1x_coco", "names retinanet on 101 layers"),
            ("my_model", "is no name that mmdetection's RetinaNet on a ResNet of 50 layers was published under"),
        ],
    )
    def test_by_hand_but_wrong(self, name, said):
        with pytest.raises(CheckpointError, match=said):
            tell({}, published=name)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_every_family_s_examples_are_its_own(self, family):
        assert len(FAMILIES) == len(DENSE) + len(TWO_STAGE)
        for example in FAMILIES[family].examples:
            parsed = parse_name(example)
            assert [other for other in FAMILIES if is_like(parsed, FAMILIES[other].examples[0])] == [family]
            told = tell({}, published=example, family=family, depth=parsed.depth, grouping=parsed.grouping)
            assert told.origin == f"used as {example}"

    @pytest.mark.parametrize(
        ("family", "name", "said"),
        [
            ("retinanet", "retinanet_r50_nasfpn_crop640_50e_coco", "50 layers with crop640, nasfpn; such as .*r50_fpn"),
            ("retinanet", "retinanet_r50_fpn_crop640_50e_coco", "with crop640; such as retinanet_r50_fpn_1x_coco"),
            ("retinanet_nas_fpn", "retinanet_r50_fpn_1x_coco", "such as retinanet_r50_nasfpn_crop640_50e_coco$"),
            ("retinanet_nas_fpn", "retinanet_r50_nasfpn", "with nasfpn; such as retinanet_r50_nasfpn_crop640_50e_coco"),
            ("faster_rcnn", "faster_rcnn_r50_pafpn_1x_coco", "with pafpn; such as faster_rcnn_r50_fpn_1x_coco"),
            ("faster_rcnn_pafpn", "faster_rcnn_r50_fpn_1x_coco", "such as faster_rcnn_r50_pafpn_1x_coco$"),
            ("cascade_rcnn_rfp", "cascade_rcnn_r50_fpn_1x_coco", "such as cascade_rcnn_r50_rfp_1x_coco$"),
            ("cascade_rcnn", "detectors_cascade_rcnn_r50_1x_coco", "with detectors; such as cascade_rcnn_r50_fpn"),
            ("ddod", "nonsense", "such as ddod_r50_fpn_1x_coco$"),
            ("fcos", "nonsense", "such as fcos_r50_caffe_fpn_gn-head_1x_coco or fcos_center-"),
            ("retinanet", "retinanet_x50_32x8d_fpn_1x_coco", "50 layers in groups of 32x8d; such as"),
        ],
    )
    def test_a_name_of_other_layers_is_refused(self, family, name, said):
        with pytest.raises(CheckpointError, match=said):
            tell({}, published=name, family=family)
        with pytest.raises(CheckpointError, match="neither settings in it nor its name tell"):
            tell({}, source=f"{name}_20200130-c2398f9e.pth", family=family)


class TestSettings:
    def test_of_2(self):
        content = {"meta": {"config": OF_2, "CLASSES": ["cat", "dog", "hen"]}}
        usage = tell(content)
        assert usage.style == "caffe"
        given = usage.preprocessing
        assert (given.fit, given.size, given.pad_multiple, given.bgr) == ("keep_ratio", (600, 1000), 64, True)
        assert [255 * m for m in given.mean] == pytest.approx([123.675, 116.28, 103.53])
        assert usage.changes == {
            "postprocess": {"score": 0.1, "max_per_level": 500, "max_detections": 50, "nms_iou": 0.55},
            "necks": {"fpn": {"extra": "input", "relu_before_extra": False}},
            "head": {},
        }
        assert read_classes(File(content, {}, "a.pth"), 3)[0] == ("cat", "dog", "hen")

    @pytest.mark.parametrize("place", ["text", "mapping", "hub"])
    def test_of_3(self, place):
        content = {
            "text": {"meta": {"cfg": OF_3, "dataset_meta": {"classes": ("cat",)}}},
            "mapping": {"meta": {"cfg": parse_config(OF_3), "dataset_meta": {"CLASSES": ("cat",)}}},
            "hub": {"message_hub": {"runtime_info": {"cfg": OF_3, "dataset_meta": {"classes": ["cat"]}}}},
        }[place]
        usage = tell(content, family="fcos")
        assert (usage.style, usage.preprocessing.bgr, usage.preprocessing.size) == ("pytorch", False, (800, 1333))
        assert [255 * m for m in usage.preprocessing.mean] == pytest.approx([1, 2, 3])
        assert usage.changes["necks"] == {"fpn": {"extra": "output", "relu_before_extra": True}}
        assert usage.changes["head"] == {"centerness_on_boxes": True, "distances": "exp"}
        late = {"meta": {"cfg": OF_3.replace("norm_on_bbox=False", "norm_on_bbox=True")}}
        assert tell(late, family="fcos").changes["head"] == {"centerness_on_boxes": True, "distances": "scaled_relu"}
        assert read_classes(File(content, {}, "a.pth"), 1)[0] == ("cat",)

    def test_settings_come_before_the_file_s_name_and_a_name_by_hand_before_both(self):
        content = {"meta": {"config": OF_2}}
        assert tell(content, source="retinanet_r50_fpn_1x_coco.pth").style == "caffe"
        assert tell(content, published="retinanet_r50_fpn_1x_coco").style == "pytorch"

    @pytest.mark.parametrize("missing", ["steps = [", "norm = "])
    def test_what_settings_leave_out_the_file_s_name_tells(self, missing):
        content = {"meta": {"config": OF_2.replace(missing, "other = [" if "[" in missing else "other = ")}}
        usage = tell(content, source="retinanet_r50_fpn_1x_coco.pth")
        assert (usage.style, usage.preprocessing.size) == ("pytorch", (800, 1333))
        with pytest.raises(CheckpointError, match=r"cannot be used as its own settings say: the settings .*--as NAME"):
            tell(content)

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            (
                "scales_per_octave=3",
                "scales_per_octave=1",
                r"bbox_head.anchor_generator.scales_per_octave = 1; known here is 3",
            ),
            ("strides=[8, 16", "strides=[4, 16", r"bbox_head.anchor_generator.strides = \[4, 16, 32, 64, 128\]"),
            ("type='nms'", "type='soft_nms'", r"test_cfg.nms.type = 'soft_nms'"),
            ("score_thr=0.1", "score_thr='high'", r"test_cfg.score_thr = 'high'; a number is known here"),
            ("target_stds=[1.0", "target_stds=[0.1", r"bbox_head.bbox_coder.target_stds = \[0.1, 1.0, 1.0, 1.0\]"),
            ("keep_ratio=True", "keep_ratio=False", r"Resize.keep_ratio = False"),
            ("type='ResNet'", "type='HRNet'", r"backbone.type = 'HRNet'; known here is 'ResNet' or 'ResNeXt'"),
            ("img_scale=(1000, 600)", "img_scale=[(1000, 600), (1333, 800)]", r"test at the sizes"),
            ("mean=[103.53, 116.28, 123.675]", "mean=[0.5]", "mean = \\[0.5\\]; three numbers"),
        ],
    )
    def test_what_is_not_there_here_is_named(self, old, new, said):
        assert old in OF_2
        with pytest.raises(CheckpointError, match=rf"cannot be used as its own settings say: .*{said}.*--as NAME"):
            tell({"meta": {"config": OF_2.replace(old, new)}})


OF_TWO_STAGES = """
model = dict(
    type='FasterRCNN',
    data_preprocessor=dict(mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=50),
    neck=dict(type='FPN', num_outs=5),
    rpn_head=dict(anchor_generator=dict(scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64])),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
                                featmap_strides=[4, 8, 16, 32]),
        bbox_head=dict(bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2]))),
    test_cfg=dict(rpn=dict(nms_pre=900, max_per_img=800, nms=dict(type='nms', iou_threshold=0.6)),
                  rcnn=dict(score_thr=0.1, nms=dict(type='nms', iou_threshold=0.4), max_per_img=70)))
test_pipeline = [dict(type='Resize', scale=(1333, 800), keep_ratio=True)]
"""


class TestTwoStages:
    def test_both_stages_test_settings(self):
        usage = tell({"meta": {"cfg": OF_TWO_STAGES}}, family="faster_rcnn")
        assert usage.changes["postprocess"] == {"score": 0.1, "nms_iou": 0.4, "max_detections": 70}
        assert usage.changes["proposals"] == {"max_per_level": 900, "max_regions": 800, "nms_iou": 0.6}

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("scales=[8]", "scales=[4, 8]", r"rpn_head.anchor_generator.scales = \[4, 8\]"),
            ("RoIAlign", "RoIPool", "roi_layer.type = 'RoIPool'; known here is 'RoIAlign'"),
            ("sampling_ratio=0", "sampling_ratio=2", "roi_layer.sampling_ratio = 2"),
            ("0.2, 0.2]", "0.3, 0.3]", "bbox_coder.target_stds"),
        ],
    )
    def test_what_is_not_there_here_is_named(self, old, new, said):
        with pytest.raises(CheckpointError, match=said):
            tell({"meta": {"cfg": OF_TWO_STAGES.replace(old, new)}}, family="faster_rcnn")


class TestConfig:
    def test_nothing_is_run(self, tmp_path):
        text = (
            f"import os\nos.mkdir({str(tmp_path / 'x')!r})\na = __import__('os').getcwd()\nb = [1, -2.5]\nc = dict(b=b)"
        )
        assert parse_config(text) == {"b": [1, -2.5], "c": {"b": [1, -2.5]}}
        assert not (tmp_path / "x").exists()

    @pytest.mark.parametrize("text", ["model = dict(", "a" * 2_000_000, "x = " + "(" * 5000, "\0"])
    def test_what_is_no_python(self, text):
        assert parse_config(text) is None
        assert find_config({"meta": {"config": text}}) is None

    def test_spread_and_dictionaries(self):
        text = "a = dict(x=1)\nb = dict(**a, y={'z': (1, 2), **a})\nc = f(b)\na = unknown\nd = dict(a=a)"
        assert parse_config(text) == {"b": {"x": 1, "y": {"z": (1, 2), "x": 1}}}
