"""Which files are taken for SSD, M2Det, EfficientDet and torchvision's, and what is said of those that do not fit."""

import pytest
import torch

import pyrafuse
from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.cli.main import main
from pyrafuse.importers.class_names import COCO_NAMES, name_classes, tell_classes
from pyrafuse.importers.m2det import M2DET, naming_mlfpn
from pyrafuse.importers.mmdetection.ssd import name_ssd
from pyrafuse.importers.registry import find_importer
from pyrafuse.models.factory import create_model
from pyrafuse.models.uninitialized import Uninitialized

CHANNELS = {"num_levels": 2, "channels": 8, "shallow_channels": 8, "deep_channels": 16, "attention": False}


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return create_model("m2det", num_classes=3, backbone="resnet18", head={"size": 320}, neck=CHANNELS).eval()


@pytest.fixture(scope="module")
def state(detector):
    """The detector as M2Det's authors would have saved it, shared layers once for each that uses them."""
    naming = naming_mlfpn(2, 6)
    saved = {"base.fc.weight": torch.zeros(10, 512), "base.fc.bias": torch.zeros(10)}
    for key, value in detector.state_dict().items():
        part, _, rest = key.partition(".")
        if part == "backbone":
            saved[f"base.{name_resnet(rest)}"] = value
        elif part == "neck":
            saved[naming(rest)] = value
            if rest.startswith("reduce."):
                saved[naming(rest).replace("leach.1.", "leach.0.")] = value
        elif rest.startswith("classes."):
            saved[rest.replace("classes", "conf")] = value.unflatten(0, (6, 4)).roll(1, dims=1).flatten(0, 1)
        else:
            saved[rest.replace("deltas", "loc")] = value
    return saved


def test_the_weights_arrive(detector, state, tmp_path, capsys):
    file, out = tmp_path / "M2Det_320_resnet18.pth", tmp_path / "ours.ckpt"
    torch.save({f"module.{key}": value for key, value in state.items()}, file)
    assert main(["import", str(file), "-o", str(out), "--names", "cat,dog,hen"]) == 0
    said = capsys.readouterr().out
    assert "official M2Det-320 on resnet18, 3 classes" in said
    assert "input 320 x 320 px (stretch)" in said
    ours = pyrafuse.load(out)
    for (name, got), expected in zip(ours.state_dict().items(), detector.state_dict().values(), strict=True):
        assert torch.equal(got, expected), name
    assert ours.postprocess == detector.postprocess
    assert ours.postprocess.suppression == "soft"
    preprocessing = ours.card.preprocessing
    assert preprocessing.bgr
    pixels = torch.tensor([123, 117, 104], dtype=torch.uint8).view(1, 3, 1, 1)
    assert normalize(preprocessing, pixels).abs().max() < 1e-4
    assert normalize(preprocessing, pixels + 10)[0, 0, 0, 0].item() == pytest.approx(10)


def test_a_size_that_nothing_tells_must_be_said(state, tmp_path, capsys):
    file = tmp_path / "final.pth"
    torch.save(state, file)
    with pytest.raises(CheckpointError, match="tells the size of its input; name it by one of m2det320, m2det512"):
        pyrafuse.load(file)
    assert main(["import", str(file), "-o", str(tmp_path / "a"), "--as", "m2det400"]) == 2
    assert "m2det704" in capsys.readouterr().err
    assert main(["import", str(file), "-o", str(tmp_path / "a"), "--as", "m2det512_vgg"]) == 0
    assert pyrafuse.load(tmp_path / "a").card.preprocessing.size == (512, 512)
    assert M2DET.build(state, source="x", published="m2det704").card.preprocessing.size == (704, 704)


def test_what_does_not_fit_is_named(state):
    torn = {key: value for key, value in state.items() if key != "unet2.toplayer.0.conv.weight"}
    with pytest.raises(CheckpointError, match=r"M2Det-320 on resnet18, but does not fit; missing: unet2.toplayer.0"):
        M2DET.build(torn, source="m2det320.pth")
    with pytest.raises(CheckpointError, match=r"extra: attention\.weight"):
        M2DET.build({**state, "attention.weight": torch.zeros(1)}, source="m2det320.pth")
    trunkless = {key: value for key, value in state.items() if not key.startswith("base.layer3")}
    with pytest.raises(CheckpointError, match="trunk that is neither VGG-16 nor a ResNet"):
        M2DET.build(trunkless, source="m2det320.pth")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("leach.9.conv.weight", torch.zeros(1), r"extra: leach\.9\.conv\.weight$"),
        ("leach.0.other.weight", torch.zeros(1), r"extra: leach\.0\.other\.weight$"),
        ("leach.0.conv.weight", torch.zeros(3, 3), r"of another shape: leach\.0\.conv\.weight is \(3, 3\), needs"),
        ("leach.1.conv.weight", torch.zeros(()), r"of another shape: leach\.1\.conv\.weight is \(\)"),
        ("base.fc.other", torch.zeros(1), r"extra: base\.fc\.other$"),
        ("reduce.conv.weight", torch.zeros(()), r"of another shape: reduce\.conv\.weight is \(\)"),
        ("up_reduce.conv.weight", torch.zeros(()), r"of another shape: up_reduce\.conv\.weight is \(\)"),
        ("loc.0.weight", torch.zeros(()), r"of another shape: loc\.0\.weight is \(\)"),
        ("loc.0.weight", torch.zeros(3, 16, 3, 3), r"of another shape: loc\.0\.weight is \(3"),
        ("conf.4.bias", torch.zeros(25), r"of another shape: conf\.4\.bias is \(25,\), needs \(24,\)$"),
        ("conf.4.bias", torch.zeros(()), r"of another shape: conf\.4\.bias is \(\), needs \(24,\)$"),
        ("unet1.toplayer.0.conv.weight", None, r"missing: unet1\.toplayer\.0\.conv\.weight$"),
        ("loc.0.weight", None, r"missing: loc\.0\.weight$"),
        ("leach.1.conv.weight", None, r"missing: leach\.1\.conv\.weight$"),
    ],
)
def test_damage_is_named(state, key, value, said):
    torn = {name: kept for name, kept in state.items() if name != key}
    torn |= {} if value is None else {key: value}
    with pytest.raises(CheckpointError, match=rf"but does not fit; {said}"):
        find_importer(torn).build(torn, source="m2det320.pth", published=None)


def test_entries_that_are_no_tensors_are_named(state):
    counted = {**state, "unet1.count.num_batches_tracked": 3}
    assert (
        find_importer(counted).build(counted, source="m2det320.pth", published=None).card.spec.head.options["size"]
        == 320
    )
    torn = {**state, "Norm.bias": "hi"}
    with pytest.raises(CheckpointError, match=r"x\.pth has entries .* are no tensors: Norm\.bias is of type str; save"):
        find_importer(torn).build({"state_dict": torn}, source="x.pth", published="m2det320")


@pytest.mark.parametrize(
    ("keys", "origin"),
    [
        (("leach.0.conv.weight", "unet1.toplayer.0.conv.weight", "loc.0.weight"), "official M2Det"),
        (
            ("class_net.predict.conv_pw.weight", "box_net.predict.conv_pw.weight", "backbone.conv_stem.weight"),
            "effdet",
        ),
        (("bbox_head.cls_convs.0.0.weight", "backbone.features.31.weight"), "mmdetection's SSD"),
        (("bbox_head.cls_convs.0.weight", "backbone.features.31.weight"), "mmdetection's SSD"),
        (("backbone.body.conv1.weight", "head.classification_head.cls_logits.weight"), "torchvision's"),
        (("backbone.body.conv1.weight",), None),
        (("backbone.features.31.weight",), None),
    ],
)
def test_files_are_told_apart(keys, origin):
    importer = find_importer({"state_dict": {key: torch.zeros(1) for key in keys}})
    assert (importer is None) if origin is None else importer.origin.name.startswith(origin)


def test_ssd_of_other_levels_is_refused():
    state = {f"bbox_head.cls_convs.{level}.0.weight": torch.zeros(1) for level in range(5)}
    state["backbone.features.31.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"an SSD of 5 levels; known are those of 6 \(300 px\) and 7"):
        find_importer(state).build(state, source="x.pth", published=None)


SETTINGS = """
model = dict(type='SingleStageDetector',
    data_preprocessor=dict(mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=False, pad_size_divisor=1),
    bbox_head=dict(type='SSDHead', anchor_generator=dict(basesize_ratio_range=(0.2, 0.9))),
    test_cfg=dict(nms_pre=900, nms=dict(type='nms', iou_threshold=0.6), min_bbox_size=0, score_thr=0.3, max_per_img=50))
"""


@pytest.fixture(scope="module")
def ssd():
    """An SSD's parameters, all of them one value, under mmdetection's names."""
    with Uninitialized():
        detector = create_model("ssd300", num_classes=3)
    return {name_ssd(key): torch.zeros(()).expand(value.shape) for key, value in detector.state_dict().items()}


def test_ssd_is_used_as_the_settings_in_the_file_say(ssd):
    content = {"state_dict": ssd, "meta": {"cfg": SETTINGS, "dataset_meta": {"classes": ("cat", "dog", "hen")}}}
    told = find_importer(content).build(content, source="x.pth", published=None)
    given = told.card.preprocessing
    assert (given.fit, given.size, given.bgr) == ("stretch", (300, 300), True)
    assert [255 * m for m in given.mean] == pytest.approx([3, 2, 1])
    assert [255 * s for s in given.std] == pytest.approx([6, 5, 4])
    settings = told.postprocess
    assert (settings.score, settings.nms_iou, settings.max_detections, settings.max_per_level) == (0.3, 0.6, 50, 900)
    assert told.card.names == ("cat", "dog", "hen")
    named = find_importer(content).build(content, source="x.pth", published="ssd300_coco")
    assert (named.postprocess.score, named.card.preprocessing.bgr) == (0.02, False)


def test_ssd_whose_settings_ask_for_what_is_not_there(ssd):
    content = {"state_dict": ssd, "meta": {"cfg": SETTINGS.replace("type='nms'", "type='soft_nms'")}}
    with pytest.raises(CheckpointError, match=r"test_cfg.nms.type = 'soft_nms'.*--as NAME .*such as ssd300_coco"):
        find_importer(content).build(content, source="x.pth", published=None)


@pytest.mark.parametrize("key", ["bbox_head.cls_convs.0.0.weight", "bbox_head.cls_convs.1.0.weight"])
def test_a_key_that_an_ssd_lacks_is_named(ssd, key):
    torn = {name: value for name, value in ssd.items() if name != key}
    with pytest.raises(CheckpointError, match=rf"SSD300, but does not fit; missing: {key}$"):
        find_importer(torn).build(torn, source="x.pth", published="ssd300_coco")
    torn[key] = torch.zeros(())
    with pytest.raises(CheckpointError, match=rf"SSD300, but does not fit; of another shape: {key} is \(\)"):
        find_importer(torn).build(torn, source="x.pth", published="ssd300_coco")


def test_names_that_are_not_one_for_each_class_are_refused(ssd):
    content = {"state_dict": ssd, "meta": {"CLASSES": ("cat", "dog")}}
    with pytest.raises(CheckpointError, match=r"names 2 classes \(cat, dog\), and its parameters tell 3 apart"):
        find_importer(content).build(content, source="x.pth", published="ssd300_coco")


def test_names_of_old_are_coco_s_too():
    old = tuple(name.replace(" ", "_") for name in COCO_NAMES)
    assert tell_classes(old, 80, source="x.pth") == name_classes(80)
    assert tell_classes(("a",) * 80, 80, source="x.pth") == (("a",) * 80, tuple(range(1, 81)))
