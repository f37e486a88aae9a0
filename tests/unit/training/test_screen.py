"""What is said before the first epoch: in order, with figures of the data and of this machine."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.models.factory import create_model
from pyrafuse.recipes.small import small
from pyrafuse.training import run
from pyrafuse.training.precision import spare
from pyrafuse.training.screen import describe_objects, describe_time
from pyrafuse.training.trial import estimate_seconds, pass_over, time_image

CPU = torch.device("cpu")


def data_of(*boxes, crowd=()) -> DetectionData:
    flags = np.isin(np.arange(len(boxes)), crowd)
    record = ImageRecord(
        Path("a.jpg"), 1, 200, 100, np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.int64), flags,
        np.ones(len(boxes)),
    )  # fmt: skip
    return DetectionData((record,), ("thing",), (1,), "coco", "train")


def test_objects_are_measured_as_the_network_sees_them():
    # in an image of 200 x 100 px, seen as 100 x 100: sides of 5, 10, 40 and 50 px
    data = data_of((0, 0, 10, 5), (0, 0, 20, 10), (0, 0, 80, 40), (0, 0, 100, 50), (0, 0, 200, 100), crowd=[4])
    said = describe_objects(data, Preprocessing(size=(100, 100)))
    assert said == (
        "4 in the training images; at 100 px half of them are under 25 px, 50 % under 32 px and 25 % under 8 px"
    )
    assert "at 100 x 200 px half of them are under 35 px" in describe_objects(data, Preprocessing(size=(100, 200)))
    assert describe_objects(data_of(), Preprocessing()) == "none in the training images"


def test_times_are_those_of_an_image_many_times():
    epoch, all_of_it = estimate_seconds(0.5, num_train=100, num_val=30, epochs=10, validations=4)
    assert (epoch, all_of_it) == (50.0, 500.0 + 4 * 5.0)
    assert describe_time(epoch, all_of_it, epochs=10).startswith("about 50 s an epoch, 9 min for 10 with validations;")


TRUNK = {"neck": {"out_channels": 16}, "backbone": {"name": "resnet18", "width": 8}}


@pytest.mark.parametrize(
    ("model", "options"), [("yolov3_small", TRUNK), ("faster_rcnn", {**TRUNK, "stages": {"head": {"channels": 16}}})]
)
def test_a_pass_leaves_the_detector_as_it_is(model, options):
    torch.manual_seed(0)
    detector = create_model(model, num_classes=2, **options).train()
    detector.card = replace(detector.card, preprocessing=Preprocessing(size=(64, 64)))
    spare(detector)  # as every training does: narrow strided convolutions can end the process
    before, state = {k: v.clone() for k, v in detector.state_dict().items()}, torch.get_rng_state()
    pass_over(detector, torch.zeros(1, 3, 64, 64), precision="32")
    assert time_image(detector, small(), precision="bf16", device=CPU) > 0
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())
    assert all(parameter.grad is None for parameter in detector.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_one_screen_says_all_before_the_first_epoch(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "FIRST_ESTIMATE", 1)  # as if the steps were many
    monkeypatch.setattr(run, "time_image", lambda *_, **__: 2.0)
    monkeypatch.setattr(run, "fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    recipe = small()
    recipe = replace(
        recipe,
        data=replace(recipe.data, path="shapes:train=6,val=3,size=64", size=64, workers=0),
        run=replace(recipe.run, epochs=2, batch_size=4, accelerator="cpu", precision="32", output=str(tmp_path / "r")),
    )
    console = Console(width=600, record=True, file=io.StringIO())
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, console=console)
    rows = [line.partition(" ") for line in console.export_text().splitlines()]
    said = {label: text.strip() for label, _, text in rows}
    assert list(said) == ["data", "hints", "objects", "advice", "model", "start", "batch", "time", "output"]
    assert said["data"].startswith("shapes (generated images): 6 training and 3 validation images, 5 classes: circle")
    assert "at 64 px half of them are under" in said["objects"]
    assert said["model"] == "yolov3_asff_small, 3.4 M parameters, 64 px"
    assert said["start"] == "306 of 306 entries of the backbone read from pyrafuse/mobilenet_v2"
    assert said["batch"] == "4 images a step, 2 epochs of 2 batches, on 1 x CPU"
    assert said["time"].startswith("about 12 s an epoch, 28 s for 2 with validations")
    assert said["hints"].endswith(" on what may be wrong; pyrafuse data check tells them")
    assert said["advice"] == "--advice applies this"  # the last of its rows
    assert said["output"] == str(tmp_path / "r")
