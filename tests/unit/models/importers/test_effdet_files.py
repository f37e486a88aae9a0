"""EfficientDet's files: what keys do not tell, whose mean and standard deviation they have say, and what is damaged."""

import hashlib
import re
from dataclasses import replace

import pytest
import torch

from pyrafuse.core.errors import CheckpointError
from pyrafuse.models.importers import effdet
from pyrafuse.models.importers.effdet import create_published, import_effdet, looks_like_effdet, naming_of
from pyrafuse.models.importers.effdet_published import PUBLISHED, Layout, find_published
from pyrafuse.models.importers.registry import find_importer
from pyrafuse.models.uninitialized import Uninitialized

HALF = (0.5, 0.5, 0.5)
BY_LEVEL = ()
"""Whose files have the norms of the heads in the second order."""
BY_CONVOLUTION = {f"{net}.bn_rep.0.0.bn.weight": torch.zeros(1) for net in ("class_net", "box_net")}
"""Tells the first order of the norms in the heads."""
DIGESTS = {
    "efficientdet_d1": "b4c83017c3d3",
    "tf_efficientdet_d6": "2c6c73f57f54",
    "tf_efficientdet_d7": "2c6c73f57f54",
    "tf_efficientdet_d7x": "6c2f7d623194",
}
"""The first digits of SHA-256 over the lines ``key shape``, sorted, of the state dicts that effdet 0.4.1 makes."""


def state_of(name: str, num_classes: int = 2) -> dict[str, torch.Tensor]:
    """A detector's parameters, all of them one value, under effdet's names."""
    with Uninitialized():
        detector = create_published(name, PUBLISHED[name].layout, num_classes=num_classes)
    naming = naming_of(detector, {} if name in BY_LEVEL else BY_CONVOLUTION)
    return {naming(key): torch.zeros(()).expand(value.shape) for key, value in detector.state_dict().items()}


@pytest.mark.parametrize("name", DIGESTS)
def test_keys_and_shapes_are_those_of_effdet(name):
    state = state_of(name, num_classes=90)
    lines = sorted(f"{key} {tuple(value.shape)}" for key, value in state.items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest().startswith(DIGESTS[name])
    assert effdet._read_layout(state, name) == PUBLISHED[name].layout


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
    assert ((given.mean, given.std) == (HALF, HALF)) == is_half
    assert detector.card.origin == f"effdet's tf_efficientdet_d0{'_ap' if is_half else ''}, 2 classes"


def test_nothing_is_guessed(states):
    said = r"best.pth is effdet's tf_efficientdet_d0 or tf_efficientdet_d0_ap, .*--as NAME or load\("
    with pytest.raises(CheckpointError, match=said):
        import_effdet(states["tf_efficientdet_d0"], source="best.pth")
    plain = import_effdet(states["efficientdet_d0"], source="best.pth").card
    assert plain.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))
    assert import_effdet(states["efficientdet_d0"], source="x", published="efficientdet_d0").card.model == plain.model


@pytest.mark.parametrize(
    ("name", "source", "published", "said"),
    [
        ("tf_efficientdet_d0", "x.pth", "tf_efficientdet_d1_ap", "'tf_efficientdet_d1_ap' names another"),
        ("tf_efficientdet_d0", "x.pth", "efficientdet_d0", "'efficientdet_d0' names another"),
        ("tf_efficientdet_d0", "tf_efficientdet_d1_40-a30f94af.pth", None, "'tf_efficientdet_d1_40-.*names another"),
        ("efficientdet_d0", "x.pth", "tf_efficientdet_d0_ap", "names another; name it .*: efficientdet_d0$"),
        ("efficientdet_d0", "x.pth", "efficientdet_d0_ap", "is no name that"),
        ("efficientdet_d0", "x.pth", "tf_efficientdet_d7x", "names another"),
        ("efficientdet_d0", "x.pth", "m2det512", "is no name that effdet's efficientdet_d0 was published under"),
    ],
)
def test_a_name_that_contradicts_the_keys_is_refused(states, name, source, published, said):
    with pytest.raises(CheckpointError, match=said):
        import_effdet(states[name], source=source, published=published)


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
    assert looks_like_effdet(torn)
    with pytest.raises(CheckpointError, match=f"missing: {re.escape(key)}$"):
        import_effdet(torn, source="tf_efficientdet_d0.pth")


@pytest.mark.parametrize("shape", [(), (18,), (8, 64, 1, 1)])
def test_a_classifier_of_another_shape_is_named(states, shape):
    torn = {**states["tf_efficientdet_d0"], effdet._CLASSIFIER: torch.zeros(shape)}
    with pytest.raises(CheckpointError, match=r"of another shape: class_net.predict.conv_pw.weight is \("):
        import_effdet(torn, source="tf_efficientdet_d0.pth")


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
    d1 = Layout(320, 88, 4, 3)
    for layout in (d1, replace(d1, form="pan"), replace(d1, form="qufpn", is_weighted=False)):
        assert find_published(layout, source="best.pth", published=None) == "efficientdet_d1"
    for layout in (replace(D6, form="pan"), replace(D6, is_weighted=True), replace(d1, num_levels=6)):
        with pytest.raises(CheckpointError, match=r"none of effdet's EfficientDets that are read here \(see"):
            find_published(layout, source="best.pth", published=None)
