"""EfficientDet's files: whose mean and standard deviation they have, which no key tells, and what is damaged."""

import re

import pytest
import torch

from pyrafuse.core.errors import CheckpointError
from pyrafuse.models.factory import create_model
from pyrafuse.models.importers import effdet
from pyrafuse.models.importers.effdet import import_effdet, looks_like_effdet, name_bifpn, naming_branch
from pyrafuse.models.importers.registry import find_importer
from pyrafuse.models.importers.renaming import by_parts
from pyrafuse.models.uninitialized import Uninitialized

HALF = (0.5, 0.5, 0.5)


def state_of(name: str) -> dict[str, torch.Tensor]:
    """A detector's parameters, all of them one value, under effdet's names."""
    trunk = f"timm/{'tf_' if name.startswith('tf_') else ''}efficientnet_b0"
    with Uninitialized():
        detector = create_model(name, num_classes=2, backbone=trunk)
    branch = naming_branch({"bn_rep.0.0.bn.weight": torch.zeros(1)})
    naming = by_parts(
        {
            "backbone.trunk": ("backbone", str),
            "neck": ("fpn", name_bifpn(detector.neck)),
            "head.classes": ("class_net", branch),
            "head.boxes": ("box_net", branch),
        }
    )
    return {naming(key): torch.zeros(()).expand(value.shape) for key, value in detector.state_dict().items()}


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
        ("efficientdet_d0", "x.pth", "efficientdet_d0_ap", "names another"),
        ("efficientdet_d0", "x.pth", "efficientdet_q0", "names another"),
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
