"""EfficientDet's files: what keys do not tell, whose mean and standard deviation they have say, and what is damaged."""

import hashlib
import re
from dataclasses import replace

import pytest
import torch

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from pyrafuse.importers.effdet.detectors import EFFDET, edit_of, model_of, naming_of, read_layout
from pyrafuse.importers.effdet.published import PUBLISHED, Structure, find_published
from pyrafuse.importers.engine import File, create
from pyrafuse.importers.registry import find_importer

HALF = (0.5, 0.5, 0.5)
BY_LEVEL = re.compile(r"(csp|efficientdet(_q|_e|v2)).*")
"""Whose files have the norms of the heads in the second order."""
BY_CONVOLUTION = {f"{net}.bn_rep.0.0.bn.weight": torch.zeros(1) for net in ("class_net", "box_net")}
"""Tells the first order of the norms in the heads."""
DIGESTS = {
    "efficientdet_d1": "b4c83017c3d3",
    "efficientdetv2_dt": "8ec23da37b39",
    "efficientdetv2_ds": "ca1a228790e9",
    "resdet50": "7fb63c2a4d22",
    "cspresdet50": "b35945b5b2a9",
    "cspresdext50pan": "17df8c80ff48",
    "cspdarkdet53m": "7baa7952b733",
    "efficientdet_q0": "ae5570d8199c",
    "efficientdet_q1": "625ebd3dc603",
    "efficientdet_q2": "f5cf90827b04",
    "efficientdet_es": "149a58d23d18",
    "efficientdet_em": "0fb8f6284579",
    "tf_efficientdet_d1": "661baa8a50fd",
    "tf_efficientdet_d5": "08f5b1ba1d26",
    "tf_efficientdet_d6": "2c6c73f57f54",
    "tf_efficientdet_d7x": "6c2f7d623194",
    "tf_efficientdet_lite0": "f1580b888222",
    "tf_efficientdet_lite1": "727490b86500",
    "tf_efficientdet_lite2": "23b738cf6cc6",
    "tf_efficientdet_lite3": "066b9d9cd244",
    "tf_efficientdet_lite3x": "baa1baf942d8",
    "tf_efficientdet_lite4": "765a34da07cb",
}
"""The first digits of SHA-256 over the lines ``key shape``, sorted, of the state dicts that effdet 0.4.1 makes."""
ONE_A_KIND = ("tf_efficientdet_d7x", "tf_efficientdet_lite0", "efficientdet_q1", "efficientdetv2_dt", "cspdarkdet53m")
FILES = {
    "efficientdet_d0-f3276ba8.pth": "efficientdet_d0",
    "efficientdet_d1-bb7e98fe.pth": "efficientdet_d1",
    "tf_efficientdet_d0_34-f153e0cf.pth": "tf_efficientdet_d0",
    "tf_efficientdet_d3_ap-e4a2feab.pth": "tf_efficientdet_d3_ap",
    "tf_efficientdet_d6_52-4eda3773.pth": "tf_efficientdet_d6",
    "tf_efficientdet_d7_53-6d1d7a95.pth": "tf_efficientdet_d7",
    "tf_efficientdet_d7x-f390b87c.pth": "tf_efficientdet_d7x",
    "tf_efficientdet_lite0-dfacfc78.pth": "tf_efficientdet_lite0",
    "tf_efficientdet_lite3x-8404c57b.pth": "tf_efficientdet_lite3x",
    "efficientdet_q0-bdf1bdb5.pth": "efficientdet_q0",
    "efficientdet_q1b-d0612140.pth": "efficientdet_q1",
    "efficientdet_q2-0f7564e5.pth": "efficientdet_q2",
    "efficientdetv2_rw_dt_agc-ad8b8c96.pth": "efficientdetv2_dt",
    "efficientnetv2_rw_ds_agc-cf589293.pth": "efficientdetv2_ds",
    "resdet50_416-08676892.pth": "resdet50",
    "cspresdet50b-386da277.pth": "cspresdet50",
    "cspresdext50pan-92fdd094.pth": "cspresdext50pan",
    "cspdarkdet53m-79062b2d.pth": "cspdarkdet53m",
}
"""Published files and whose they are."""


def detector_of(name: str, num_classes: int = 2):
    layout = PUBLISHED[name].layout
    return create(model_of(name, layout), edit_of(name, layout), num_classes=num_classes)


def state_of(name: str, num_classes: int = 2) -> dict[str, torch.Tensor]:
    """A detector's parameters, all of them one value, under effdet's names."""
    detector = detector_of(name, num_classes)
    naming = naming_of(detector, {} if BY_LEVEL.fullmatch(name) else BY_CONVOLUTION)
    return {naming(key): torch.zeros(()).expand(value.shape) for key, value in detector.state_dict().items()}


@pytest.mark.parametrize(
    "name", [name if name in ONE_A_KIND else pytest.param(name, marks=pytest.mark.slow) for name in DIGESTS]
)
def test_keys_and_shapes_are_those_of_effdet(name):
    state = state_of(name, num_classes=90)
    lines = sorted(f"{key} {tuple(value.shape)}" for key, value in state.items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest().startswith(DIGESTS[name])
    assert read_layout(File(state, state, name)) == PUBLISHED[name].layout


@pytest.mark.parametrize("file", FILES)
def test_published_files_are_known_by_their_names(file):
    own = PUBLISHED[FILES[file]].layout
    assert find_published(own, source=f"folder/{file}", published=None) == FILES[file]
    for layout in {detector.layout for detector in PUBLISHED.values()} - {own}:
        with pytest.raises(CheckpointError, match="names another"):
            find_published(layout, source=f"folder/{file}", published=None)


def test_only_what_is_used_differently_needs_a_name():
    layouts = {detector.layout for detector in PUBLISHED.values()}
    twins = []
    for layout in layouts:
        try:
            find_published(layout, source="best.pth", published=None)
        except CheckpointError:
            twins += [name for name, detector in PUBLISHED.items() if detector.layout == layout]
    scaled = [f"tf_efficientdet_d{n}{suffix}" for n in range(6) for suffix in ("", "_ap")]
    assert sorted(twins) == sorted([*scaled, "tf_efficientdet_d6", "tf_efficientdet_d7"])


def test_use():
    lite = detector_of("tf_efficientdet_lite0")
    assert lite.head.shapes[:2].flatten().tolist() == pytest.approx([3, 3, 4.2, 2.1])
    assert type(lite.head.boxes.activation) is torch.nn.ReLU6
    csp = detector_of("cspdarkdet53m")
    assert csp.head.shapes[1].tolist() == pytest.approx([4 * 2**0.5, 4 * 0.5**0.5])
    assert type(csp.head.boxes.activation) is torch.nn.Mish
    assert {(m.up, m.down) for m in csp.neck.graph.merges} == {("bilinear", "bilinear")}
    assert csp.neck.merges["A3_1"].conv.before.negative_slope == 0.01


@pytest.fixture(scope="module")
def states():
    return {name: state_of(name) for name in ("tf_efficientdet_d0", "efficientdet_d0")}


@pytest.mark.parametrize(
    ("source", "published", "is_half"),
    [
        ("tf_efficientdet_d0_ap-d0cdbd0a.pth", None, True),
        ("tf_efficientdet_d0_34-f153e0cf.pth", None, False),
        ("best.pth", "tf_efficientdet_d0_ap", True),
        ("best.pth", "tf_efficientdet_d0", False),
        ("tf_efficientdet_d0_34-f153e0cf.pth", "tf_efficientdet_d0_ap", True),
    ],
)
def test_the_name_tells_mean_and_standard_deviation(states, source, published, is_half):
    detector = find_importer(states["tf_efficientdet_d0"]).build(
        states["tf_efficientdet_d0"], source=f"folder/{source}", published=published
    )
    given = detector.card.preprocessing
    assert (given.mean, given.std, given.padding) == (
        (HALF, HALF, "black") if is_half else (IMAGENET_MEAN, IMAGENET_STD, "mean")
    )
    assert detector.card.origin == f"effdet's tf_efficientdet_d0{'_ap' if is_half else ''}, 2 classes"


def test_nothing_is_guessed(states):
    said = r"best.pth is effdet's tf_efficientdet_d0 or tf_efficientdet_d0_ap, .*--as NAME or load\("
    with pytest.raises(CheckpointError, match=said):
        EFFDET.build(states["tf_efficientdet_d0"], source="best.pth")
    plain = EFFDET.build(states["efficientdet_d0"], source="best.pth").card
    assert plain.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))
    assert EFFDET.build(states["efficientdet_d0"], source="x", published="efficientdet_d0").card.model == plain.model


@pytest.mark.parametrize(
    ("name", "source", "published", "said"),
    [
        ("tf_efficientdet_d0", "x.pth", "tf_efficientdet_d1_ap", "'tf_efficientdet_d1_ap' names another"),
        ("tf_efficientdet_d0", "x.pth", "efficientdet_d0", "'efficientdet_d0' names another"),
        ("tf_efficientdet_d0", "tf_efficientdet_d1_40-a30f94af.pth", None, "'tf_efficientdet_d1_40-.*names another"),
        ("efficientdet_d0", "x.pth", "tf_efficientdet_d0_ap", "names another; name it .*: efficientdet_d0$"),
        ("efficientdet_d0", "x.pth", "efficientdet_d0_ap", "is no name that"),
        ("efficientdet_d0", "x.pth", "efficientdet_q0", "names another"),
        ("efficientdet_d0", "x.pth", "m2det512", "is no name that effdet's efficientdet_d0 was published under"),
    ],
)
def test_a_name_that_contradicts_the_keys_is_refused(states, name, source, published, said):
    with pytest.raises(CheckpointError, match=said):
        EFFDET.build(states[name], source=source, published=published)


@pytest.mark.parametrize(
    "key",
    [
        "class_net.predict.conv_pw.weight",
        "backbone.conv_stem.weight",
        "fpn.cell.0.fnode.0.combine.edge_weights",
        "fpn.cell.0.fnode.0.after_combine.conv.conv_pw.bias",
    ],
)
def test_a_missing_key_is_named(states, key):
    torn = {name: value for name, value in states["tf_efficientdet_d0"].items() if name != key}
    assert EFFDET.recognizes(torn)
    with pytest.raises(CheckpointError, match=f"missing: {re.escape(key)}$"):
        EFFDET.build(torn, source="tf_efficientdet_d0.pth")


@pytest.mark.parametrize("shape", [(), (18,), (8, 64, 1, 1)])
def test_a_classifier_of_another_shape_is_named(states, shape):
    torn = {**states["tf_efficientdet_d0"], "class_net.predict.conv_pw.weight": torch.zeros(shape)}
    with pytest.raises(CheckpointError, match=r"of another shape: class_net.predict.conv_pw.weight is \("):
        EFFDET.build(torn, source="tf_efficientdet_d0.pth")


D6 = PUBLISHED["tf_efficientdet_d6"].layout


@pytest.mark.parametrize(
    ("source", "published", "name"),
    [
        ("tf_efficientdet_d6_52-4eda3773.pth", None, "tf_efficientdet_d6"),
        ("tf_efficientdet_d7_53-6d1d7a95.pth", None, "tf_efficientdet_d7"),
        ("best.pth", "tf_efficientdet_d7", "tf_efficientdet_d7"),
        ("tf_efficientdet_d6.pth", "tf_efficientdet_d7", "tf_efficientdet_d7"),
    ],
)
def test_d6_and_d7_are_told_apart_by_name(source, published, name):
    assert find_published(D6, source=f"folder/{source}", published=published) == name
    assert [PUBLISHED[f"tf_efficientdet_d{n}"].size for n in ("6", "7", "7x")] == [1280, 1536, 1536]
    assert [PUBLISHED[f"tf_efficientdet_d{n}"].scale for n in ("6", "7", "7x")] == [4, 5, 4]


def test_d6_or_d7_is_not_guessed():
    with pytest.raises(CheckpointError, match=r"best.pth is effdet's tf_efficientdet_d6 or tf_efficientdet_d7, whose"):
        find_published(D6, source="best.pth", published=None)
    with pytest.raises(CheckpointError, match=r"'tf_efficientdet_d7x' names another; name it by --as NAME .*d6 or tf_"):
        find_published(D6, source="best.pth", published="tf_efficientdet_d7x")


def test_other_forms_and_fusions_are_those_of_d0_to_d5():
    d1 = Structure(320, 88, 4, 3)
    for layout in (d1, replace(d1, form="pan"), replace(d1, form="qufpn", is_weighted=False)):
        assert find_published(layout, source="best.pth", published=None) == "efficientdet_d1"
    for layout in (replace(D6, form="pan"), replace(D6, is_weighted=True), replace(d1, num_levels=6)):
        with pytest.raises(CheckpointError, match=r"none of effdet's EfficientDets that are read here \(see"):
            find_published(layout, source="best.pth", published=None)
