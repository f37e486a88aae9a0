"""Published files, made here of the libraries' own models, and what is said of those that do not fit."""

from dataclasses import replace
from functools import partial

import pytest
import timm
import torch
import torchvision

from pyrafuse.backbones import weights as weights_module
from pyrafuse.backbones.registry import BACKBONES, create_backbone
from pyrafuse.backbones.resnet import ECA_KERNELS
from pyrafuse.backbones.weights import load_exactly, read_published
from pyrafuse.base.errors import CheckpointError, PyrafuseError, UnknownNameError
from pyrafuse.models.classifier import CLASSIFIERS, VGGHead, create_classifier


def randomize(model):
    """Values that tell every parameter and every statistic from its neighbour."""
    generator = torch.Generator().manual_seed(0)
    for key, value in model.state_dict().items():
        if value.is_floating_point() and value.ndim < 2:
            low = 0.5 if key.endswith(("weight", "var")) else -0.1
            value.copy_(torch.rand(value.shape, generator=generator) * (1 if low > 0 else 0.2) + low)
    return model.eval()


def save(state, tmp_path, name="published.pth"):
    torch.save(state, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("resnet18", lambda: torchvision.models.resnet18()),
        ("resnet50", lambda: torchvision.models.resnet50()),
        ("resnext50_32x4d", lambda: torchvision.models.resnext50_32x4d()),
        ("mobilenet_v2", lambda: torchvision.models.mobilenet_v2()),
        ("mobilenet_v3_large", lambda: torchvision.models.mobilenet_v3_large()),
        ("resnet34", lambda: timm.create_model("resnet34")),
        ("dpn48b", lambda: timm.create_model("dpn48b")),
        ("dpn68b", lambda: timm.create_model("dpn68b")),
        ("dpn92", lambda: timm.create_model("dpn92")),
        ("darknet53", lambda: timm.create_model("darknet53")),
    ],
)
@torch.no_grad()
def test_logits_are_those_of_the_original(name, build, tmp_path):
    torch.manual_seed(0)
    original = randomize(build())
    classifier = create_classifier(name, weights=save(original.state_dict(), tmp_path))
    assert not classifier.training
    images = torch.randn(1, 3, 65, 71)
    expected = original(images)
    torch.testing.assert_close(classifier(images), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("strides", [(8, 16), (8, 16, 32)])
@torch.no_grad()
def test_the_same_maps_however_mobilenet_v3_is_cut(strides, tmp_path):
    torch.manual_seed(0)
    original = randomize(torchvision.models.mobilenet_v3_large())
    weights = save(original.state_dict(), tmp_path)
    images = torch.randn(1, 3, 64, 96)
    plain, cut = (
        create_backbone("mobilenet_v3_large", strides=strides, weights=weights, expanded=expanded).eval()(images)
        for expanded in (False, True)
    )
    maps = [images]
    for layer in original.features:
        maps.append(layer(maps[-1]))
    widest = original.features[13].block[0](maps[13])
    for ours, theirs in zip(
        (*plain, *cut),
        (maps[7], maps[13], maps[17])[: len(strides)] + (maps[7], widest, maps[17])[: len(strides)],
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.fixture
def narrow_vgg():
    """torchvision's VGG-16 with few units in its linear layers: all of them hold half a gigabyte."""
    torch.manual_seed(0)
    with torch.device("meta"):
        original = torchvision.models.vgg16()
    original.classifier[0] = torch.nn.Linear(512 * 49, 16, device="meta")
    original.classifier[3] = torch.nn.Linear(16, 16, device="meta")
    original.classifier[6] = torch.nn.Linear(16, 10, device="meta")
    original.to_empty(device="cpu")
    for key, value in original.state_dict().items():
        value.normal_(std=0.1 if key.endswith("bias") else (2 / value[0].numel()) ** 0.5)
    return original.eval()


@pytest.mark.parametrize("size", [(225, 231), (70, 65)])
@torch.no_grad()
def test_logits_of_vgg_are_those_of_the_original(narrow_vgg, size, tmp_path, monkeypatch):
    monkeypatch.setitem(CLASSIFIERS, "vgg16", replace(CLASSIFIERS["vgg16"], head=partial(VGGHead, width=16)))
    classifier = create_classifier("vgg16", num_classes=10, weights=save(narrow_vgg.state_dict(), tmp_path))
    images = torch.randn(1, 3, *size)
    expected = narrow_vgg(images)
    torch.testing.assert_close(classifier(images), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_the_whole_vgg_fits():
    with torch.device("meta"):
        published, classifier = torchvision.models.vgg16().state_dict(), create_classifier("vgg16")
        load_exactly(classifier, published, source="torchvision", naming=CLASSIFIERS["vgg16"].name)
    assert sum(p.numel() for p in classifier.parameters()) == sum(p.numel() for p in published.values())


@pytest.mark.parametrize(("strides", "ends"), [((8, 16, 32), (23, 30, 31)), ((4,), (16,))])
@torch.no_grad()
def test_a_plain_vgg_has_the_maps_of_the_classifier(narrow_vgg, strides, ends, tmp_path):
    path = save(narrow_vgg.state_dict(), tmp_path)
    backbone = create_backbone("vgg16", reduced=False, strides=strides, weights=path).eval()
    images = torch.randn(1, 3, 65, 70)
    for level, end in zip(backbone(images), ends, strict=True):
        torch.testing.assert_close(level, narrow_vgg.features[:end](images))


@torch.no_grad()
def test_a_whole_vgg_is_thinned_out(tmp_path):
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in torchvision.models.vgg16().state_dict().items()}
    small = {key: torch.randn(shape) for key, shape in shapes.items() if not key.startswith("classifier")}
    fc6 = torch.arange(4096.0).view(-1, 1, 1, 1) + torch.arange(49.0).view(1, 1, 7, 7) / 100
    classifier = {
        "classifier.0.weight": fc6.expand(4096, 512, 7, 7).reshape(4096, -1),
        "classifier.0.bias": torch.arange(4096.0),
        "classifier.3.weight": torch.arange(4096.0)[:, None] + torch.arange(4096.0) / 10000,
        "classifier.3.bias": -torch.arange(4096.0),
        "classifier.6.weight": torch.zeros(1000, 1),
        "classifier.6.bias": torch.zeros(1000),
    }
    backbone = create_backbone("vgg16", weights=save({**small, **classifier}, tmp_path))
    first, second = (part for part in backbone.stages[-1] if getattr(part, "out_channels", 0) == 1024)
    assert torch.equal(backbone.stem[2].weight, small["features.2.weight"])
    assert first.weight[3, 7].flatten().tolist() == pytest.approx(
        [12 + tap / 100 for tap in (0, 3, 6, 21, 24, 27, 42, 45, 48)]
    )
    assert first.bias[3] == 12
    assert float(second.weight[2, 5]) == pytest.approx(8 + 20 / 10000)
    assert second.bias[2] == -8


def test_the_backbone_of_a_classifier_or_detector_of_openmmlab(tmp_path):
    state = torchvision.models.resnet18().state_dict()
    head = {"fc.weight": "head.fc.weight", "fc.bias": "head.fc.bias"}
    wrapped = {"state_dict": {head.get(k, f"backbone.{k}"): v for k, v in state.items()}, "meta": {"epoch": 1}}
    path = save({**wrapped, "state_dict": {**wrapped["state_dict"], "neck.a.weight": torch.ones(1)}}, tmp_path)
    assert torch.equal(create_classifier("resnet18", weights=path).head.fc.weight, state["fc.weight"])
    backbone = create_backbone("resnet18", weights=path, strides=(4, 8))
    assert torch.equal(backbone.stages[1][0].conv1.weight, state["layer2.0.conv1.weight"])


def test_counters_of_batches_may_be_missing(tmp_path):
    state = {k: v for k, v in torchvision.models.resnet18().state_dict().items() if "num_batches" not in k}
    backbone = create_backbone("resnet18", weights=save(state, tmp_path))
    assert torch.equal(backbone.stages[1][0].bn1.running_var, state["layer2.0.bn1.running_var"])


class TestMisfits:
    def test_missing_and_extra_keys_have_the_names_of_the_file(self, tmp_path):
        state = torchvision.models.resnet18().state_dict()
        state["layer2.1.conv7.weight"] = state.pop("layer2.1.conv1.weight")
        state["bn1.bias"] = torch.zeros(3)
        with pytest.raises(CheckpointError) as failure:
            create_backbone("resnet18", weights=save(state, tmp_path))
        message = str(failure.value)
        assert "does not fit ResNet-18" in message
        assert "missing: layer2.1.conv1.weight" in message
        assert "extra: layer2.1.conv7.weight" in message
        assert "of another shape: bn1.bias is (3,), needs (64,)" in message

    def test_a_deeper_net_is_not_cut_in_silence(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"extra: layer1\.2\.conv1\.weight"):
            create_backbone("resnet18", weights=save(torchvision.models.resnet34().state_dict(), tmp_path))

    def test_other_classes(self, tmp_path):
        path = save(torchvision.models.resnet18().state_dict(), tmp_path)
        with pytest.raises(CheckpointError, match=r"of another shape: fc\.weight is \(1000, 512\), needs \(7, "):
            create_classifier("resnet18", num_classes=7, weights=path)

    def test_eca_is_missing_in_a_plain_file(self, tmp_path):
        path = save(torchvision.models.resnet18().state_dict(), tmp_path)
        with pytest.raises(CheckpointError, match=r"missing: layer1\.0\.eca\.conv\.weight"):
            create_backbone("eca_resnet18", weights=path)

    def test_a_file_for_another_timm_model(self, tmp_path):
        path = save(torchvision.models.resnet18().state_dict(), tmp_path)
        for create in (create_backbone, create_classifier):
            with pytest.raises(CheckpointError, match=r"does not fit timm/resnet34; .*layer1\.2\.conv1\.weight"):
                create("timm/resnet34", weights=path)

    @pytest.mark.parametrize("has_head", [True, False])
    def test_a_timm_file_of_other_classes_or_none(self, tmp_path, has_head):
        state = timm.create_model("resnet18", num_classes=7).state_dict()
        state = {key: value for key, value in state.items() if has_head or not key.startswith("fc.")}
        backbone = create_backbone("timm/resnet18", weights=save(state, tmp_path))
        assert torch.equal(backbone.trunk.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])

    def test_the_same_names_and_no_others(self):
        with pytest.raises(CheckpointError, match="somewhere does not fit Linear; missing: bias; extra: basis"):
            load_exactly(
                torch.nn.Linear(1, 1), {"weight": torch.ones(1, 1), "basis": torch.ones(1)}, source="somewhere"
            )


class TestNames:
    def test_libraries_fetch(self, tmp_path, monkeypatch):
        state = torchvision.models.resnet18().state_dict()
        path, asked = save(state, tmp_path), []

        def find(name):
            asked.append(name)
            return path

        monkeypatch.setitem(weights_module._LIBRARIES, "torchvision", (find, lambda: ["resnet18"]))
        backbone = create_backbone("resnet18", weights="torchvision/resnet18")
        assert asked == ["resnet18"]
        assert torch.equal(backbone.stem.conv1.weight, state["conv1.weight"])

    def test_a_file_comes_first(self, tmp_path, monkeypatch):
        (tmp_path / "timm").mkdir()
        save({"a": torch.ones(2)}, tmp_path, "timm/resnet18")
        monkeypatch.chdir(tmp_path)
        assert list(read_published("timm/resnet18")) == ["a"]

    @pytest.mark.parametrize(("name", "near"), [("timm/dpn93", "dpn9"), ("torchvision/resnet51", "resnet5")])
    def test_unknown_models(self, name, near):
        with pytest.raises(UnknownNameError, match=f"did you mean '{near}"):
            read_published(name)

    def test_no_such_file(self):
        with pytest.raises(CheckpointError, match=r"no such checkpoint: none\.pth"):
            create_backbone("dpn68", weights="none.pth")


class TestClassifiers:
    def test_eca_kernels_of_the_published_files(self):
        with torch.device("meta"):
            classifier = create_classifier("eca_resnet50", num_classes=4)
        sizes = [stage[0].eca.conv.kernel_size[0] for stage in classifier.trunk.stages]
        assert sizes == list(ECA_KERNELS[50]) == [3, 5, 5, 7]
        assert classifier.head.fc.out_features == classifier.num_classes == 4

    def test_kernels_of_mobilenet(self):
        with torch.device("meta"):
            state = create_classifier("eca_mobilenet_v2").state_dict()
        kernels = {CLASSIFIERS["eca_mobilenet_v2"].name(k): v.shape[2] for k, v in state.items() if v.ndim == 3}
        assert len(kernels) == 17
        assert kernels["features.1.conv.3.conv.weight"] == 1
        assert kernels["features.10.conv.4.conv.weight"] == 1
        assert kernels["features.11.conv.4.conv.weight"] == 3
        assert kernels["features.17.conv.4.conv.weight"] == 3

    @pytest.mark.parametrize("name", sorted(CLASSIFIERS))
    def test_all_of_them_give_logits(self, name):
        with torch.device("meta"):
            logits = create_classifier(name, num_classes=10)(torch.zeros(2, 3, 64, 49))
        assert logits.shape == (2, 10)

    def test_preprocessing_of_timm(self):
        crop = create_classifier("timm/resnet18").preprocessing
        assert (crop.size_px, crop.resize_px, crop.interpolation) == (224, 235, "bicubic")

    def test_every_backbone_that_is_no_composition_is_one(self):
        assert set(CLASSIFIERS) == set(BACKBONES.names()) - {"recursive_fpn"}

    def test_the_slope_of_darknet(self):
        with torch.device("meta"):
            classifier, other = create_classifier("darknet53"), create_classifier("darknet53", slope=0.1)
            backbone = create_backbone("darknet53")
        slopes = [
            {part.negative_slope for part in model.modules() if isinstance(part, torch.nn.LeakyReLU)}
            for model in (classifier, other, backbone)
        ]
        assert slopes == [{0.01}, {0.1}, {0.1}]
        assert (classifier.preprocessing.size_px, classifier.preprocessing.resize_px) == (256, 288)

    def test_frozen(self):
        trunk = create_classifier("resnet18", width=8, frozen_stages=4).trunk
        assert not any(p.requires_grad for p in trunk.parameters())

    def test_bad_values(self):
        with pytest.raises(UnknownNameError, match="unknown classifier 'dpn93'; did you mean 'dpn9"):
            create_classifier("dpn93")
        with pytest.raises(PyrafuseError, match="at least one class, got num_classes=0"):
            create_classifier("dpn92", num_classes=0)
        with pytest.raises(PyrafuseError, match=r"the backbone resnet18 takes no option 'colour'"):
            create_classifier("resnet18", colour="red")
        with pytest.raises(ValueError, match="no ResNet of depth 20"):
            create_backbone("resnet50", depth=20)
        with pytest.raises(ValueError, match="no bottlenecks to group, got groups=2"):
            create_backbone("resnet18", groups=2)
        with pytest.raises(ValueError, match="four of each"):
            create_backbone("resnet18", attention=(3, 3))
