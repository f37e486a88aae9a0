"""mmdetection's files under their published names: recognised, with the preprocessing and test settings of each."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import pyrafuse
from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.cli.main import main
from pyrafuse.data.images.fitting import fit_image
from pyrafuse.importers.loading import build
from vectors import FOLDER, compare, fill

RGB = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False)
CAFFE = ((123.675, 116.28, 103.53), (1, 1, 1), True)
DETECTRON = ((122.7717, 115.9465, 102.9801), (1, 1, 1), True)
USES = {
    "retinanet_r50_fpn": ("retinanet", "pytorch", RGB, (800, 1333), 32, 0.5),
    "atss_r50_fpn": ("atss", "pytorch", RGB, (800, 1333), 32, 0.6),
    "ddod_r50_fpn": ("ddod", "pytorch", RGB, (800, 1333), 32, 0.6),
    "fcos_r50-caffe_fpn_gn": ("fcos", "caffe", DETECTRON, (800, 1333), 32, 0.5),
    "libra-retinanet_r50_fpn": ("libra_retinanet", "pytorch", RGB, (800, 1333), 32, 0.5),
    "ga-retinanet_r50-caffe_fpn": ("ga_retinanet", "caffe", CAFFE, (800, 1333), 32, 0.5),
    "retinanet_r50_nasfpn": ("retinanet_nas_fpn", "pytorch", RGB, (640, 640), 128, 0.5),
}


@pytest.fixture(scope="module")
def folder():
    return FOLDER / "mmdet"


def read_manifest(folder, name):
    return json.loads((folder / f"{name}.manifest.json").read_text())


def zeros(folder, name):
    return {key: torch.zeros(shape) for key, shape in read_manifest(folder, name)}


@pytest.mark.parametrize("name", USES)
def test_published_files(folder, name):
    url = json.loads((folder / "published.json").read_text())[name]["weights"]
    detector = build({"state_dict": zeros(folder, name), "meta": {"epoch": 12}}, source=url.rpartition("/")[2])
    model, style, (mean, std, bgr), limits, multiple, nms_iou = USES[name]
    assert detector.card.model == model
    assert detector.card.spec.backbone.options["style"] == style
    given = detector.card.preprocessing
    assert (given.size, given.fit, given.interpolation) == (limits, "keep_ratio", "opencv")
    assert (given.pad_multiple, given.bgr) == (multiple, bgr)
    assert ([255 * m for m in given.mean], [255 * s for s in given.std]) == (
        pytest.approx(mean),
        pytest.approx(std),
    )
    test = detector.postprocess
    assert (test.score, test.nms_iou, test.max_detections, test.max_per_level) == (0.05, nms_iou, 100, 1000)
    assert (detector.names[0], detector.names[79], len(detector.names)) == ("person", "toothbrush", 80)
    assert "used as its name says" in detector.card.origin


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("faster-rcnn_r50_fpn", "faster_rcnn"),
        ("faster-rcnn_r50_pafpn", "faster_rcnn"),
        ("libra-faster-rcnn_r50_fpn", "libra_rcnn"),
        ("cascade-rcnn_r50-rfp", "cascade_rcnn_rfp"),
    ],
)
def test_published_files_of_two_stages(folder, name, model):
    url = json.loads((folder / "published.json").read_text())[name]["weights"]
    detector = build({"state_dict": zeros(folder, name)}, source=url.rpartition("/")[2])
    assert detector.card.model == model
    given = detector.card.preprocessing
    assert (given.size, given.fit, given.pad_multiple, given.bgr) == ((800, 1333), "keep_ratio", 32, False)
    assert [255 * s for s in given.std] == pytest.approx(RGB[1])
    test = detector.postprocess
    assert (test.score, test.nms_iou, test.max_detections) == (0.05, 0.5, 100)
    with pytest.raises(CheckpointError, match="neither settings in it nor its name"):
        build({"state_dict": zeros(folder, name)}, source="model.pth")


def test_from_the_image_to_detections_and_back(folder, tmp_path, capsys):
    """A whole file, through the command line: its detections are those of the original's network and arithmetic."""
    name = "atss_r50_fpn"
    meta = json.loads((folder / f"{name}.meta.json").read_text())
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": fill_in(folder, name, meta["gains"]), "meta": {}}, path)
    assert main(["import", str(path), "-o", str(tmp_path / "a.ckpt")]) == 2
    assert "neither settings in it nor its name" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="--as NAME"):
        pyrafuse.load(path)
    assert main(["import", str(path), "-o", str(tmp_path / "a.ckpt"), "--as", "atss_r50_fpn_1x_coco"]) == 0
    assert "mmdetection checkpoint: ATSS on ResNet-50, 80 classes" in capsys.readouterr().out
    detector = pyrafuse.load(tmp_path / "a.ckpt")
    torch.testing.assert_close(
        detector.state_dict(), pyrafuse.load(path, source="atss_r50_fpn_1x_coco").state_dict(), rtol=0, atol=0
    )

    images = torch.from_numpy(fill.image(0, (1, 3, 320, 416)))
    (found,) = detector.detect(images)
    missed = compare.check_dets(
        np.load(folder / f"{name}.npz"), "det", found.boxes.numpy(), found.scores.numpy(), found.labels.numpy()
    )
    assert missed <= 1

    pixels = np.random.default_rng(0).integers(0, 256, (90, 150, 3), dtype=np.uint8)
    detector.card = replace(detector.card, preprocessing=detector.card.preprocessing.at_size((128, 200)))
    (seen,) = detector.predict(pixels, score=0.05)
    fitted, fit = fit_image(pixels, detector.card.preprocessing)
    assert (fit.size, tuple(fitted.shape)) == ((120, 200), (3, 128, 224))
    (expected,) = detector.detect(normalize(detector.card.preprocessing, fitted[None], [fit.size]), sizes=[fit.size])
    assert len(seen) == len(expected) > 0
    torch.testing.assert_close(seen.boxes, expected.boxes * 150 / 200, atol=1e-3, rtol=0)
    assert expected.boxes[:, 3].max() <= 120
    assert expected.boxes[:, 2].max() <= 200


def fill_in(folder, name, gains):
    values = compare.apply_rules(read_manifest(folder, name), gains)
    return {key: torch.from_numpy(np.array(value)) for key, value in values.items()}


def test_a_resnext_and_fewer_classes(folder):
    state = zeros(folder, "retinanet_r50_fpn")
    for key in list(state):
        if found := key.split(".layer")[1:]:
            stage = int(found[0][0]) - 1
            width = 128 * 2**stage
            planes = 64 * 2**stage
            if ".downsample." in key:
                continue
            shape = list(state[key].shape)
            if "conv2.weight" in key:
                shape = [width, width // 32, 3, 3]
            elif "conv3.weight" in key:
                shape[1] = width
            elif any(f".{part}." in key for part in ("conv1", "bn1", "bn2")) and shape and shape[0] == planes:
                shape[0] = width
            state[key] = torch.zeros(shape)
    state["bbox_head.retina_cls.weight"] = torch.zeros(9 * 3, 256, 3, 3)
    state["bbox_head.retina_cls.bias"] = torch.zeros(9 * 3)
    meta = {"CLASSES": ("cat", "dog", "hen")}
    detector = build({"state_dict": state, "meta": meta}, source="a", published="retinanet_x50_32x4d_fpn_1x_coco")
    trunk = {"style": "pytorch", "groups": 32, "base_width": 4}
    assert trunk.items() <= detector.card.spec.backbone.options.items()
    assert detector.names == ("cat", "dog", "hen")
    assert detector.card.category_ids == (1, 2, 3)


@pytest.mark.parametrize("key", ["backbone.layer1.0.conv2.conv_offset.weight", "neck.extra.weight"])
def test_what_cannot_be_mapped_is_named(folder, key):
    state = {**zeros(folder, "retinanet_r50_fpn"), key: torch.zeros(1)}
    with pytest.raises(CheckpointError, match=rf"(does not fit; extra|which are not read here): {key}"):
        build({"state_dict": state}, source="retinanet_r50_fpn_1x_coco.pth")
