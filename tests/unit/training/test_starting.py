"""What a training starts from: model, preprocessing and weights of a checkpoint, and what may be changed of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file

from pyrafuse.backbones.published import BUNDLED
from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.base.paths import looks_like_file
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.base.spec import read_spec
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model
from pyrafuse.recipes.small import small
from pyrafuse.training.preparing import check_model, create_detector
from pyrafuse.training.settings import DataSettings, ModelSettings, Recipe, RunSettings
from pyrafuse.training.start_files import check_start_files
from pyrafuse.training.starting import choose_preprocessing, holds_start, read_start, settle

CAFFE = Preprocessing(
    size=(96, 160),
    fit="keep_ratio",
    interpolation="opencv",
    mean=(0.5, 0.4, 0.3),
    std=(1 / 255, 1 / 255, 1 / 255),
    pad_multiple=64,
    bgr=True,
)
OPTIONS = {
    "backbone": {"name": "resnet18", "width": 8, "frozen_stages": 1, "norm_eval": True},
    "neck": ("fpn", "bfp"),
    "necks": {"fpn": {"out_channels": 16}, "bfp": {"level": 1}},
    "head": {"channels": 16, "num_convs": 1},
}


def data_of(*names: str) -> DetectionData:
    record = ImageRecord(
        Path("a.jpg"), 1, 100, 100, np.ones((1, 4), np.float32), np.zeros(1, np.int64), np.zeros(1, bool), np.ones(1)
    )
    return DetectionData((record,), names, tuple(range(1, len(names) + 1)), "coco", "train")


@pytest.fixture(scope="module")
def retinanet(tmp_path_factory):
    """(file, detector) of a RetinaNet whose options, defaults and preprocessing are not today's."""
    path = tmp_path_factory.mktemp("start") / "best.ckpt"
    torch.manual_seed(0)
    detector = create_model("retinanet", num_classes=3, **{**OPTIONS, "postprocess": {"nms_iou": 0.3}})
    detector.card = replace(detector.card, preprocessing=CAFFE, names=("ant", "bee", "cat"), category_ids=(1, 2, 3))
    save(detector, path)
    return path, detector


def start_from(path, *, data=None, **model) -> Recipe:
    return Recipe(model=ModelSettings(start_from=str(path), **model), data=data or DataSettings())


def create(recipe, *names):
    said = []
    return create_detector(recipe, data_of(*names), say=said.append), said


class TestModel:
    def test_is_the_checkpoints_with_the_defaults_of_then(self, retinanet):
        path, given = retinanet
        made, said = create(start_from(path), "cat", "ant", "bee")
        total = len(given.state_dict())
        assert said[0] == f"{total} of {total} entries taken from {path}"
        assert said[1].startswith("images: 96 x 160 px, keep_ratio, BGR, mean 127.5/102/76.5, deviation 1/1/1, opencv")
        assert said[1].endswith(f", as in {path}")
        assert (made.card.model, made.names, made.card.category_ids) == ("retinanet", ("cat", "ant", "bee"), (1, 2, 3))
        assert made.postprocess.nms_iou == 0.3
        ours, theirs = made.state_dict(), given.state_dict()
        by_class = [x["head.classes.weight"].unflatten(0, (-1, 3)) for x in (ours, theirs)]
        assert torch.equal(by_class[0], by_class[1][:, [2, 0, 1]])
        assert all(torch.equal(ours[key], theirs[key]) for key in ours if not key.startswith("head.classes"))

    def test_what_was_frozen_learns_and_norms_that_stood_still_do_so(self, retinanet):
        made, _ = create(start_from(retinanet[0]), "ant")
        assert all(parameter.requires_grad for parameter in made.parameters())
        assert not made.train().backbone.stages[3][0].bn1.training
        again = ModelSettings(start_from=str(retinanet[0]), options={"backbone": {"frozen_stages": 0}})
        made, _ = create(Recipe(model=again), "ant")
        assert not made.backbone.stem.conv1.weight.requires_grad
        assert made.backbone.stages[0][0].conv1.weight.requires_grad

    def test_settled_twice_is_settled_once(self, retinanet):
        recipe = start_from(retinanet[0], neck=("fpn",), data=DataSettings(size=64))
        settled, start = settle(recipe)
        assert settle(settled)[0] == settled
        assert start.card.preprocessing == CAFFE
        assert (settled.model.name, settled.model.neck, settled.model.options) == ("retinanet", None, {})
        (neck,) = settled.model.spec["necks"]
        assert (neck["name"], neck["out_channels"], settled.model.spec["backbone"]["width"]) == ("fpn", 16, 8)
        assert (settled.data.size, settled.data.fit) == (64, "keep_ratio")

    def test_another_neck(self, retinanet):
        path, given = retinanet
        made, said = create(start_from(path, neck=("fpn",)), "ant", "bee", "cat")
        ours, theirs = made.state_dict(), given.state_dict()
        assert said[0].startswith(f"{len(ours)} of {len(ours)} entries taken from {path}; left out of the file: ")
        assert torch.equal(ours["head.deltas.weight"], theirs["head.deltas.weight"])
        fpn = {key for key in ours if key.startswith("neck.")}
        assert fpn
        assert all(torch.equal(ours[key], theirs[f"neck.necks.0.{key[5:]}"]) for key in fpn)

    def test_another_backbone(self, retinanet):
        path, _ = retinanet
        made, said = create(start_from(path, backbone="mobilenet_v2"), "ant", "bee", "cat")
        count = len(made.backbone.state_dict())
        assert f"{count} entries of the backbone" in said[0]
        assert made.backbone.features.channels == (32, 96, 320)
        assert "entries of the neck" in said[0]

    def test_another_option(self, retinanet):
        made, said = create(start_from(retinanet[0], options={"head": {"num_convs": 2}}), "ant", "bee", "cat")
        assert "new: 4 entries of the head" in said[0]
        assert len(made.head.class_tower.convs) == 2
        assert made.head.class_tower.channels == 16

    def test_another_model(self, retinanet):
        path, given = retinanet
        options = {key: value for key, value in OPTIONS.items() if key != "head"}
        made, said = create(start_from(path, name="fcos", options=options), "ant", "bee", "cat")
        assert made.card.model == "fcos"
        assert said[0].startswith("1")
        assert "entries of the head" in said[0]
        assert torch.equal(made.backbone.stem.conv1.weight, given.backbone.stem.conv1.weight)
        assert made.card.preprocessing == CAFFE

    def test_nothing_that_fits(self, retinanet):
        with pytest.raises(PyrafuseError, match=r"nothing in .*best\.ckpt fits yolov3_small: .*leave out --model NAME"):
            create(start_from(retinanet[0], name="yolov3_small"), "ant")

    def test_frozen_layers_need_weights(self, retinanet):
        with pytest.raises(PyrafuseError, match=r"model\.frozen=2 would keep random weights: give --weights FILE"):
            create(Recipe(model=ModelSettings(name="yolov3_small", frozen=2)), "ant")


class TestFiles:
    def test_a_state_without_a_card_needs_a_model(self, retinanet, tmp_path):
        _, given = retinanet
        for name, content in (("a.pth", given.state_dict()), ("b.pth", {"state_dict": given.state_dict()})):
            torch.save(content, tmp_path / name)
            recipe = start_from(tmp_path / name, name="retinanet", options=OPTIONS)
            made, said = create(recipe, "x", "y", "z")
            assert said[0].startswith(f"{len(made.state_dict())} of {len(made.state_dict())} entries taken from ")
            assert "they are taken in their order" in said[0]
            assert torch.equal(made.head.classes.weight, given.head.classes.weight)
            assert made.card.preprocessing == Preprocessing()

    def test_a_foreign_file(self, tmp_path):
        torch.manual_seed(0)
        theirs = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights_backbone=None, num_classes=3)
        torch.save(theirs.state_dict(), tmp_path / "mine.pth")
        made, said = create(start_from(tmp_path / "mine.pth"), "ant", "bee")
        assert made.card.model == "ssdlite320"
        assert made.card.preprocessing.mean == (0.5, 0.5, 0.5)
        total = len(made.state_dict())
        assert said[0].startswith(f"{total} of {total} entries taken from ")
        assert "does not name its 2 classes" in said[0]
        settled, _ = settle(start_from(tmp_path / "mine.pth", published="ssdlite320_mobilenet_v3_large"))
        assert settled.model.published == "ssdlite320_mobilenet_v3_large"
        with pytest.raises(CheckpointError, match="names another; leave out the name"):
            settle(start_from(tmp_path / "mine.pth", published="retinanet_resnet50_fpn"))

    def test_weights_of_a_backbone_are_no_detector(self, tmp_path):
        torch.save(torchvision.models.mobilenet_v2().state_dict(), tmp_path / "mobilenet_v2.pth")
        assert not holds_start(str(tmp_path / "mobilenet_v2.pth"))
        said = r"no checkpoint of pyrafuse .*a backbone alone are given as --weights .*mobilenet_v2\.pth"
        with pytest.raises(CheckpointError, match=said):
            settle(start_from(tmp_path / "mobilenet_v2.pth"))

    def test_the_folder_of_a_run(self, retinanet):
        path, _ = retinanet
        assert read_start(path.parent).path == str(path)
        assert looks_like_file(str(path.parent))

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("runs/x/bast.ckpt", r"no such checkpoint: runs/x/bast\.ckpt; did you mean runs/x/best\.ckpt\?"),
            ("best.ckpt", r"no such checkpoint: best\.ckpt; did you mean runs/x/best\.ckpt\?"),
            ("runs/x/other.ckpt", r"no such checkpoint: runs/x/other\.ckpt; did you mean runs/y/other\.ckpt"),
            ("runs/x/abc.pth", r"runs/x/abc\.pth; beside it lie best\.ckpt"),
            ("none.pth", r"no such checkpoint: none\.pth; a training leaves best\.ckpt in its folder"),
            ("empty/", r"empty is a folder without best\.ckpt or last\.ckpt; there is no checkpoint in it"),
            (
                "runs/y",
                r"runs/y is a folder without best\.ckpt or .*; name a file in it, runs/y/other\.ckpt say",
            ),
        ],
    )
    def test_files_that_are_not_there(self, tmp_path, monkeypatch, text, said):
        monkeypatch.chdir(tmp_path)
        for folder in ("runs/x", "runs/y", "empty"):
            Path(folder).mkdir(parents=True)
        for name in ("runs/x/best.ckpt", "runs/y/other.ckpt"):
            Path(name).touch()
        for model in (ModelSettings(start_from=text), ModelSettings(backbone_weights=text)):
            with pytest.raises(CheckpointError, match=said):
                check_start_files(model)
            with pytest.raises(CheckpointError, match=said):
                check_model(Recipe(model=model))

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                "mobilenet_v2",
                "file of weights: mobilenet_v2; --weights pyrafuse/mobilenet_v2 gives ImageNet",
            ),
            ("dpn68", "no such file of weights: dpn68; --weights timm/dpn68 gives ImageNet"),
            ("resnet51", "no such file of weights: resnet51; did you mean --weights torchvision/resnet50"),
            ("imagenet", "of weights: imagenet; give --weights FILE, torchvision/NAME or timm/NAME, or none"),
        ],
    )
    def test_names_that_are_no_files(self, text, said):
        with pytest.raises(CheckpointError, match=said):
            check_start_files(ModelSettings(backbone_weights=text))

    def test_what_is_fetched_is_no_file(self):
        check_start_files(ModelSettings(backbone_weights="torchvision/mobilenet_v2"))


class TestPreprocessing:
    @pytest.mark.parametrize(
        ("given", "size", "fit"),
        [
            (DataSettings(), (96, 160), "keep_ratio"),
            (DataSettings(size=192), (192, 320), "keep_ratio"),
            (DataSettings(size=192, longest=256, fit="keep_ratio"), (192, 256), "keep_ratio"),
            (DataSettings(longest=128), (96, 128), "keep_ratio"),
            (DataSettings(fit="letterbox"), (96, 96), "letterbox"),
            (DataSettings(size=64, fit="stretch"), (64, 64), "stretch"),
        ],
    )
    def test_size_and_fit_may_be_given_and_nothing_else_changes(self, given, size, fit):
        chosen = choose_preprocessing(Recipe(data=given), CAFFE)
        assert chosen == replace(CAFFE, size=size, fit=fit)

    def test_sides_that_differ_stay(self):
        wide = Preprocessing(size=(96, 160), fit="letterbox", padding="black")
        assert choose_preprocessing(Recipe(data=DataSettings()), wide) == wide
        assert choose_preprocessing(Recipe(data=DataSettings(size=128)), wide) == replace(wide, size=(128, 128))
        assert choose_preprocessing(Recipe(data=DataSettings(fit="keep_ratio")), wide).size == (96, 160)

    def test_without_a_start(self):
        assert choose_preprocessing(Recipe(data=DataSettings())) == Preprocessing()
        assert choose_preprocessing(Recipe(data=DataSettings(size=96, fit="keep_ratio"))).size == (96, 160)

    def test_a_size_that_cannot_be_trained_at(self, retinanet, tmp_path):
        _, given = retinanet
        odd = tmp_path / "odd.ckpt"
        made = create_model("retinanet", num_classes=1, **OPTIONS)
        made.card = replace(given.card, spec=made.card.spec, names=("a",), category_ids=(1,))
        made.card = replace(made.card, preprocessing=Preprocessing(size=(100, 100)))
        save(made, odd)
        with pytest.raises(PyrafuseError, match=r"multiple of 32, got 100; give 96 or 128 .*as in .*odd\.ckpt"):
            settle(start_from(odd))
        assert settle(start_from(odd, data=DataSettings(size=96)))[0].data.size == 96
        made.card = replace(made.card, preprocessing=replace(CAFFE, size=(100, 160)))
        save(made, odd)
        assert settle(start_from(odd))[0].data.size == 100  # padded to whole multiples


def test_a_run_that_goes_on_needs_no_file_but_its_own(retinanet, tmp_path):
    path, given = retinanet
    recipe = start_from(path, backbone_weights=None)
    settled, _ = settle(recipe)
    save(given, tmp_path / "last.ckpt")
    gone = replace(
        settled,
        model=replace(settled.model, start_from="gone.ckpt", backbone_weights="gone.pth", frozen=0),
        run=RunSettings(output=str(tmp_path), resume=True),
    )
    check_model(gone)
    made, said = create(gone, "ant", "bee", "cat")
    assert said == []
    assert made.card.preprocessing == CAFFE
    assert made.postprocess.nms_iou == 0.3
    assert made.card.spec == read_spec({**settled.model.spec, "num_classes": 3})


class TestWeightsByDefault:
    @pytest.mark.parametrize(
        ("model", "chosen"),
        [
            (ModelSettings(), "pyrafuse/mobilenet_v2"),
            (ModelSettings(name="fcos", backbone="resnet18"), "torchvision/resnet18"),
            (ModelSettings(options={"backbone": {"norm_eval": True}}), "pyrafuse/mobilenet_v2"),
            (ModelSettings(options={"backbone": {"width": 0.25}}), None),
            (ModelSettings(name="ssd300", backbone="vgg16"), "torchvision/vgg16"),
            (ModelSettings(name="yolov3"), None),
        ],
    )
    def test_are_those_of_the_backbone(self, model, chosen):
        settled, _ = settle(Recipe(model=replace(model, backbone_weights="auto")))
        assert settled.model.backbone_weights == chosen
        assert settle(settled)[0].model.backbone_weights == chosen
        assert settle(Recipe(model=model))[0].model.backbone_weights is None  # as recipes of before have it

    def test_a_detector_brings_its_own_unless_its_backbone_is_another_one(self, retinanet):
        path, given = retinanet
        assert given.card.spec.backbone.name == "resnet18"
        for backbone, chosen in ((None, None), ("resnet18", None), ("mobilenet_v2", "pyrafuse/mobilenet_v2")):
            settled, _ = settle(start_from(path, backbone=backbone, backbone_weights="auto", options={}, frozen=0))
            assert settled.model.backbone_weights == chosen

    def test_the_first_training_reads_those_of_the_package(self):
        made, _ = create(small(), "ant")
        state = load_file(BUNDLED["mobilenet_v2"])
        layer = made.backbone.layers[17].conv[2]
        assert torch.equal(layer.weight, state["features.17.conv.2.weight"].float())


class TestFromNothing:
    @pytest.mark.parametrize(
        ("model", "said"),
        [
            (ModelSettings(name="yolov3_small"), "--weights pyrafuse/mobilenet_v2 would start the backbone from"),
            (
                ModelSettings(name="retinanet", backbone="resnet18", options={"backbone": {"norm_eval": True}}),
                "--weights torchvision/resnet18 would",
            ),
            (
                ModelSettings(name="yolov3_small", options={"backbone": {"width": 0.25}}),
                "--weights FILE starts from a checkpoint",
            ),
            (ModelSettings(name="retinanet", backbone="timm/resnet18"), "--weights timm/resnet18 would"),
            (ModelSettings(name="efficientdet_d0"), "--weights timm/efficientnet_b0 would"),
        ],
    )
    def test_is_said_with_what_would_fit(self, model, said):
        _, found = create(Recipe(model=model), "ant")
        assert found == [next(text for text in found if text.startswith("weights: from nothing; "))]
        assert said in found[0]

    def test_weights_of_the_backbone_are_counted(self, tmp_path):
        torch.save(torchvision.models.mobilenet_v2().state_dict(), tmp_path / "m.pth")
        _, found = create(
            Recipe(model=ModelSettings(name="yolov3_small", backbone_weights=str(tmp_path / "m.pth"))), "ant"
        )
        assert found == [f"306 of 306 entries of the backbone read from {tmp_path}/m.pth"]
