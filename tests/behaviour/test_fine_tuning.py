"""Fine-tuning at a rate of 0 gives the AP of evaluating its start, whatever its images look like."""

import json
import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.formats.layout import read_split
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.importers.loading import load
from pyrafuse.models.checkpoint import save
from pyrafuse.models.detector import Detector
from pyrafuse.models.evaluating import evaluate
from pyrafuse.models.factory import create_model
from pyrafuse.models.transfer import find_class_rows
from pyrafuse.recipes.small import small
from pyrafuse.training import run as running
from pyrafuse.training.settings import (
    DataSettings,
    ModelSettings,
    Recipe,
    RunSettings,
)

UNIT = (1 / 255, 1 / 255, 1 / 255)
DENSE = {
    "backbone": {"name": "resnet18", "width": 8},
    "necks": {"fpn": {"out_channels": 16}},
    "head": {"channels": 16, "num_convs": 1, "scale": 1.5},
}
STARTS = {
    "ours": ("yolov3_small", {"backbone": {"width": 0.25}}, Preprocessing(size=(96, 96), fit="letterbox")),
    "caffe": (
        "retinanet",
        DENSE,
        Preprocessing(
            size=(64, 96),
            fit="keep_ratio",
            interpolation="opencv",
            mean=(0.4857, 0.4560, 0.4061),
            std=UNIT,
            bgr=True,
        ),
    ),
    "SSD": (
        "ssd300",
        {
            "backbone": {"name": "resnet18", "width": 8, "strides": (8, 16)},
            "necks": {"ssd_extra": {"out_channels": (16, 16, 16, 16)}},
            "head": {"sizes": (10, 20, 30, 40, 50, 60, 70)},
        },
        Preprocessing(size=(96, 96), interpolation="opencv", mean=(0.4823, 0.4588, 0.4078), std=UNIT),
    ),
    "effdet _ap": (
        "efficientdet_d0",
        {
            "backbone": {"name": "resnet18", "width": 8},
            "necks": {"bifpn": {"out_channels": 8, "repeats": 1}},
            "head": {"num_convs": 1, "scale": 1.5},
        },
        Preprocessing(size=(128, 128), fit="letterbox", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), padding="black"),
    ),
    "YOLOv3": (
        "yolov3_plain",
        {
            "backbone": {"width": 0.125, "depths": (1, 1, 1, 1, 1)},
            "necks": {"yolo_fpn": {"width": 1 / 16}},
            "head": {"anchors": (((8, 8),), ((16, 16),), ((32, 32),))},
        },
        Preprocessing(size=(96, 96), fit="keep_ratio", interpolation="opencv", mean=(0, 0, 0), std=(1, 1, 1)),
    ),
    "Faster R-CNN": (
        "faster_rcnn",
        {
            "backbone": {"name": "resnet18", "width": 8},
            "necks": {"fpn": {"out_channels": 16}},
            "head": {"scales": (2.0,)},
            "stages": {"head": {"channels": 16}},
            "proposals": {"max_per_level": 100, "max_regions": 50},
        },
        Preprocessing(size=(64, 96), fit="keep_ratio", mean=(0.4, 0.4, 0.4), std=UNIT, bgr=True, round_down=True),
    ),
}


NAMES = ("circle", "square", "star")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", num_train=4, num_val=4, size=96)


def create_start(kind: str) -> Detector:
    """A detector of fresh weights that tells classes and colours apart."""
    name, options, preprocessing = STARTS[kind]
    torch.manual_seed(0)
    detector = create_model(name, num_classes=len(NAMES), **options)
    with torch.no_grad():
        for key in find_class_rows(detector):
            parameter = detector.get_parameter(key)
            if parameter.ndim > 1:
                # pixels of up to 150 would let scores end at 1, where none is larger than another
                parameter.normal_(std=0.002 if preprocessing.std == UNIT else 0.2)
        for part in detector.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(std=0.1)
    detector.card = replace(detector.card, names=NAMES, category_ids=(1, 2, 3), preprocessing=preprocessing)
    return detector.eval()


def annotate(images: Path, detector: Detector, folder: Path, names: tuple[str, ...]) -> None:
    """Write a data set to ``folder``: its objects are what ``detector`` is surest of, its classes ``names``."""
    plain = json.loads((images / "instances_train.json").read_text())
    annotations = []
    for image in plain["images"]:
        path = next(images.rglob(image["file_name"]))
        shutil.copy(path, folder / image["file_name"])
        (found,) = detector.predict(str(path), score=0.0)
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        found = found[sides.min(dim=1).values > 4]
        for box, label in list(zip(found.boxes.tolist(), found.labels.tolist(), strict=True))[:6]:
            x, y, right, bottom = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": names.index(NAMES[label]) + 1,
                    "bbox": [x, y, right - x, bottom - y],
                    "area": (right - x) * (bottom - y),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    content = {"images": plain["images"], "annotations": annotations, "categories": categories}
    for split in ("train", "val"):
        (folder / f"instances_{split}.json").write_text(json.dumps(content))


def figures(result):
    """AP of all kinds, of each class too, without what there are no objects for."""
    every = {**result.figures(), **{of_class.name: of_class.ap for of_class in result.classes}}
    return {name: value for name, value in every.items() if not math.isnan(value)}


@pytest.mark.parametrize("kind", STARTS)
def test_at_a_rate_of_0_nothing_changes(kind, images, tmp_path):
    start, folder = create_start(kind), tmp_path / "data"
    folder.mkdir()
    save(start, tmp_path / "start.ckpt")
    annotate(images, start, folder, ("star", "circle", "square"))
    data = read_split(str(folder), "val").data
    measure = partial(evaluate, data=data, batch_size=4, workers=0)
    expected = figures(measure(start))
    assert expected["ap"] > 0.02
    recipe = Recipe(
        model=ModelSettings(start_from=str(tmp_path / "start.ckpt")),
        data=DataSettings(path=str(folder), workers=0),
        optimizer=replace(small().optimizer, lr=0.0),
        run=RunSettings(
            epochs=1, batch_size=4, ema=0.9, precision="32", accelerator="cpu", output=str(tmp_path / "run")
        ),
    )
    trained = running.train(recipe, console=Console(quiet=True))
    assert figures(trained.evaluation) == expected
    best = load(trained.best)
    assert best.card.preprocessing == start.card.preprocessing
    assert best.names == data.names == ("star", "circle", "square")
    assert figures(measure(best)) == expected
    # made ready as images are without a start, they give another AP: the equality above is no accident
    best.card = replace(best.card, preprocessing=Preprocessing(size=(96, 96), bgr=kind == "ours"))
    assert figures(measure(best))["ap"] < expected["ap"]
