"""What every detector promises of its classes: a class keeps its outputs in a detector of other classes."""

import pytest
import torch

from pyrafuse.core.predictions import DensePredictions, GuidedPredictions
from pyrafuse.core.regions import TwoStagePredictions
from pyrafuse.models.factory import create_model
from pyrafuse.models.transfer import find_class_rows, match_classes, transfer

THEIRS, OURS = ("ant", "bee", "cat"), ("dog", "cat", "eel", "ant", "fox")
HERE = [OURS.index("ant"), OURS.index("cat")]
THERE = [THEIRS.index("ant"), THEIRS.index("cat")]


@pytest.fixture(scope="module")
def other(detector):
    """The same detector with fresh weights for five classes."""
    return create_model(detector.card.spec, num_classes=len(OURS)).eval()


def randomize(detector):
    """Values that tell every row from its neighbour."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def test_heads_tell_every_layer_that_depends_on_the_classes(detector, other):
    before, after = detector.state_dict(), other.state_dict()
    assert set(before) == set(after)
    assert {key for key in after if before[key].shape != after[key].shape} == set(find_class_rows(other))


@torch.no_grad()
def test_classes_of_the_same_name_keep_their_outputs(detector, other):
    randomize(detector)
    fresh = {key: value.clone() for key, value in other.state_dict().items()}
    classes = match_classes(THEIRS, OURS, num_theirs=len(THEIRS))
    assert classes.pairs == ((2, 1), (0, 3))
    done = transfer(other, detector.state_dict(), classes, num_theirs=len(THEIRS), num_ours=len(OURS))
    assert set(done.partial) == set(find_class_rows(other))
    assert (done.fresh, done.left_out) == ((), ())
    images = torch.rand(1, 3, 64, 96)
    given, made = (model.eval()(images) for model in (detector, other))
    if isinstance(given, TwoStagePredictions):
        assert torch.equal(made.proposals.deltas, given.proposals.deltas)
        for ours, theirs in zip(made.stages[:1], given.stages[:1], strict=True):  # each later one needs all classes
            # the last logit is the background's
            torch.testing.assert_close(ours.classes[..., [*HERE, -1]], theirs.classes[..., [*THERE, -1]])
            boxes = (ours.deltas, theirs.deltas)
            if ours.deltas.shape[2] > 1:
                boxes = (ours.deltas[:, :, HERE], theirs.deltas[:, :, THERE])
            torch.testing.assert_close(*boxes)
    else:
        assert isinstance(given, DensePredictions | GuidedPredictions)
        has_background = given.classes.shape[-1] > len(THEIRS)
        last = [-1] if has_background else []
        torch.testing.assert_close(made.classes[..., [*HERE, *last]], given.classes[..., [*THERE, *last]])
        torch.testing.assert_close(made.deltas, given.deltas)
    for key, rows in find_class_rows(other).items():
        own = other.state_dict()[key]
        of_fresh = torch.tensor([label not in HERE for label in range(len(OURS))])
        size = rows.before + len(OURS) * rows.width + rows.after
        by_class = own.unflatten(0, (-1, size))[:, rows.before : size - rows.after].unflatten(1, (-1, rows.width))
        before = fresh[key].unflatten(0, (-1, size))[:, rows.before : size - rows.after].unflatten(1, (-1, rows.width))
        assert torch.equal(by_class[:, of_fresh], before[:, of_fresh])
