"""Backbones, their classifiers and ECA, against what the published implementations computed."""

import json
import re

import numpy as np
import pytest
import torch

from pyrafuse.backbones.dpn import DualPathBlock, name_dpn_part
from pyrafuse.backbones.registry import create_backbone
from pyrafuse.backbones.weights import load_exactly
from pyrafuse.layers.eca import ECA, eca_kernel_size
from pyrafuse.models.classifier import CLASSIFIERS, create_classifier
from vectors import FOLDER, fill

ALL_STRIDES = (4, 8, 16, 32)


class Vectors:
    """A folder of vectors, and checkpoint files made from its manifests."""

    def __init__(self, folder, scratch) -> None:
        self.folder, self.scratch = folder, scratch

    def image(self, seed, *shape):
        return torch.from_numpy(fill.image(seed, shape))

    def value(self, key, shape, gain):
        return torch.from_numpy(np.array(fill.value(key, shape, gain)))

    def read_json(self, name):
        return json.loads((self.folder / name).read_text())

    def checkpoint(self, model, gain=0.7):
        """A file as it is published: wrapped, trained in parallel."""
        manifest = self.read_json(f"misc/manifest_{model}.json")
        return self.save({f"module.{key}": self.value(key, shape, gain) for key, shape in manifest})

    def mmdet_checkpoint(self, model):
        """A detector's file, its head apart."""
        gains = self.read_json(f"mmdet/{model}.meta.json")["gains"]
        assert all(not isinstance(gain, str) for pattern, gain in gains if "backbone" in pattern)
        manifest = self.read_json(f"mmdet/{model}.manifest.json")
        state = {}
        for key, shape in manifest:
            if not key.startswith(("backbone.", "neck.")):
                continue
            gain = next((gain for pattern, gain in gains if re.search(pattern, key)), 1.0)
            state[key] = self.value(key, shape, gain if isinstance(gain, int | float) else 1.0)
        return self.save(state)

    def save(self, state):
        path = self.scratch / "published.pth"
        torch.save({"state_dict": state, "epoch": 100}, path)
        return path


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    return Vectors(FOLDER, tmp_path_factory.mktemp("published"))


def check(golden, name, value, rtol):
    """The error relative to the golden's largest magnitude."""
    value = value.detach().numpy()
    assert value.shape == tuple(golden[f"{name}__shape"])
    ours = value.reshape(-1)[:: int(golden[f"{name}__stride"])].astype("f8")
    theirs = golden[name].reshape(-1).astype("f8")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=rtol * abs(theirs).max())


@pytest.mark.parametrize("name", ["dpn68", "dpn68b"])
@torch.no_grad()
def test_dpn(vectors, name):
    golden, weights = np.load(vectors.folder / "misc/dpn.npz"), vectors.checkpoint(name)
    images = vectors.image(0, 1, 3, 224, 224)
    classifier = create_classifier(name, weights=weights)
    check(golden, f"{name}/logits", classifier(images), 1e-5)
    closed = classifier.head.closing(classifier.trunk(images)[-1])
    check(golden, f"{name}/final", closed, 1e-5)
    backbone = create_backbone(name, weights=weights, strides=ALL_STRIDES).eval()
    check(golden, f"{name}/stage0", backbone.stem[:3](images), 1e-5)
    for stage, level in enumerate(backbone(images), start=1):
        check(golden, f"{name}/stage{stage}", level, 1e-5)


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("kind", ["proj", "down", "normal"])
@torch.no_grad()
def test_dpn_block(vectors, kind, is_split):
    name = f"block_{kind}_{'b' if is_split else 'a'}"
    described = vectors.read_json("misc/index_dpn.json")[name]
    args = described["args"]
    block = DualPathBlock(
        args["in_chs"],
        residual=args["num_1x1_c"],
        growth=args["inc"],
        bottleneck=args["num_3x3_b"],
        groups=args["groups"],
        stride=2 if kind == "down" else 1,
        projects=kind != "normal",
        is_split=is_split,
    ).eval()
    state = {key: vectors.value(key, shape, 1.0) for key, shape in described["manifest"]}
    load_exactly(block, state, source=name, naming=lambda key: name_dpn_part(key, strides=kind == "down"))
    golden = np.load(vectors.folder / "misc/dpn.npz")
    check(golden, f"{name}/out", block(vectors.image(1, 2, args["in_chs"], 9, 7)), 3e-6)


@pytest.mark.parametrize("name", [f"dpn{form}" for form in ("48b", "68", "68b", "92", "98", "107", "131")])
def test_dpn_entries_and_parameters(vectors, name):
    facts = vectors.read_json("misc/index_dpn.json")["all"][name]
    published = dict(vectors.read_json(f"misc/manifest_{name}.json"))
    with torch.device("meta"):
        classifier = create_classifier(name)
        backbone = create_backbone(name, strides=ALL_STRIDES)
    assert sum(p.numel() for p in classifier.parameters()) == facts["params"]
    assert len(classifier.state_dict()) == facts["entries"] == len(published)
    assert list(backbone.features.channels) == facts["stage_channels"][1:]
    assert type(backbone.stem.activation).__name__ == facts["stem_act"]
    assert type(classifier.head.closing.activation).__name__ == facts["final_act"]
    assert type(backbone.stages[0][0].reduce.activation).__name__ == facts["block_act"]
    if name != "dpn68b":  # its facts speak of a later training of the same form
        assert classifier.preprocessing.mean == pytest.approx(tuple(facts["mean"]), abs=1e-7)
        assert classifier.preprocessing.std == pytest.approx(tuple(facts["std"]), abs=1e-7)
    with torch.device("meta"):
        load_exactly(
            classifier,
            {key: torch.zeros(shape) for key, shape in published.items()},
            source=name,
            naming=CLASSIFIERS[name].name,
        )


@pytest.mark.parametrize("channels", [64, 256, 512])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@torch.no_grad()
def test_eca(vectors, channels, kernel_size):
    golden, name = np.load(vectors.folder / "misc/eca.npz"), f"eca_c{channels}_k{kernel_size}"
    x = vectors.image(1, 2, channels, 7, 5)
    for padding, suffix in (("zeros", "out"), ("circular", "out_circular")):
        layer = ECA(channels, kernel_size=kernel_size, padding=padding)
        layer.conv.weight.copy_(vectors.value("conv.weight", (1, 1, kernel_size), 1.0))
        check(golden, f"{name}/{suffix}", layer(x), 3e-6)
        if padding == "zeros":
            check(golden, f"{name}/gate", layer.gate(x).flatten(1), 3e-6)


def test_eca_kernel_of_every_channel_count(vectors):
    golden = np.load(vectors.folder / "misc/eca.npz")
    assert [eca_kernel_size(int(c)) for c in golden["kernel/channels"]] == golden["kernel/k"].tolist()


@pytest.mark.parametrize(("depth", "kernels"), [(18, "3333"), (18, "3557"), (18, "3577"), (50, "3333"), (50, "3557")])
@torch.no_grad()
def test_eca_resnet(vectors, depth, kernels):
    golden, model = np.load(vectors.folder / "misc/eca.npz"), f"eca_resnet{depth}_k{kernels}"
    options = {"attention": tuple(map(int, kernels)), "weights": vectors.checkpoint(model)}
    classifier = create_classifier(f"eca_resnet{depth}", **options)
    described = vectors.read_json("misc/index_eca.json")[model]
    assert sum(p.numel() for p in classifier.parameters()) == described["params"]
    assert len(classifier.state_dict()) == described["entries"]
    if f"{model}/logits" not in golden.files:
        return
    images = vectors.image(0, 1, 3, 64, 64)
    backbone = create_backbone(f"eca_resnet{depth}", **options, strides=ALL_STRIDES).eval()
    found = {f"layer{i}": level for i, level in enumerate(backbone(images), start=1)}
    for what, value in {"logits": classifier(images), **found}.items():
        if f"{model}/{what}" in golden.files:
            check(golden, f"{model}/{what}", value, 1e-5)


@torch.no_grad()
def test_eca_resnet_of_timm(vectors):
    weights, images = vectors.checkpoint("timm_ecaresnet50d"), vectors.image(0, 1, 3, 64, 64)
    classifier = create_classifier("timm/ecaresnet50d", weights=weights)
    backbone = create_backbone("timm/ecaresnet50d", weights=weights, strides=(2, *ALL_STRIDES)).eval()
    filled = vectors.value("layer3.0.se.conv.weight", (1, 1, 5), 0.7)
    assert torch.equal(classifier.trunk.layer3[0].se.conv.weight, filled)
    golden, levels = np.load(vectors.folder / "misc/eca.npz"), backbone(images)
    for what, value in {"logits": classifier(images), **{f"feat{i}": x for i, x in enumerate(levels)}}.items():
        if f"timm_ecaresnet50d/{what}" in golden.files:
            check(golden, f"timm_ecaresnet50d/{what}", value, 1e-5)


@pytest.mark.parametrize(
    ("model", "name", "options", "size"),
    [
        ("retinanet_r50_fpn", "resnet50", {"strides": ALL_STRIDES}, (320, 416)),
        ("fcos_r50-caffe_fpn_gn", "resnet50", {"strides": ALL_STRIDES, "style": "caffe"}, (320, 416)),
        ("ssd300", "vgg16", {}, (300, 300)),
    ],
)
@torch.no_grad()
def test_backbones_of_mmdetection(vectors, model, name, options, size):
    golden = np.load(vectors.folder / f"mmdet/{model}.npz")
    backbone = create_backbone(name, weights=vectors.mmdet_checkpoint(model), **options).eval()
    for i, level in enumerate(backbone(vectors.image(0, 1, 3, *size))):
        assert tuple(golden[f"backbone.{i}.shape"]) == level.shape
        ours = level.numpy().reshape(-1)[:: int(golden[f"backbone.{i}.stride"])]
        np.testing.assert_allclose(ours, golden[f"backbone.{i}.sub"], rtol=0, atol=1e-5 * abs(ours).max())


@torch.no_grad()
def test_vgg_of_m2det(vectors):
    """M2Det's first fused layer, a 3x3 convolution with norm and ReLU on conv4_3, is what is stored of its trunk."""
    manifest = vectors.read_json("misc/manifest_m2det320_vgg.json")
    trunk = vectors.save({k.removeprefix("base."): vectors.value(k, s, 1.0) for k, s in manifest if k[:5] == "base."})
    backbone = create_backbone("vgg16", weights=trunk).eval()
    golden = np.load(vectors.folder / "misc/m2det_forward.npz")
    for tap, part in ((0, "reduce"), (1, "up_reduce")):
        name, shapes = f"m2det320_vgg/{part}", {k: s for k, s in manifest if k.startswith(f"{part}.")}
        values = {k.removeprefix(f"{part}."): vectors.value(k, s, 0.7) for k, s in shapes.items()}
        level = backbone(vectors.image(0, 1, 3, 320, 320))[tap]
        kernel = values["conv.weight"]
        y = torch.nn.functional.conv2d(level, kernel, padding=kernel.shape[-1] // 2)
        y = torch.nn.functional.batch_norm(
            y, values["bn.running_mean"], values["bn.running_var"], values["bn.weight"], values["bn.bias"]
        ).relu()
        if tuple(golden[f"{name}__shape"])[-1] == 2 * y.shape[-1]:
            y = torch.nn.functional.interpolate(y, scale_factor=2)
        check(golden, name, y, 1e-5)


@torch.no_grad()
def test_resnet_of_m2det_takes_the_first_map_of_a_stride():
    backbone = create_backbone("resnet18", downsampling=(1, 2, 1, 2), strides=(8, 16)).eval()
    assert backbone.features.channels == (128, 512)
    assert [tuple(m.shape[1:]) for m in backbone(torch.zeros(1, 3, 64, 96))] == [(128, 8, 12), (512, 4, 6)]
