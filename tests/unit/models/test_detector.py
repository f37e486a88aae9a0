"""What a detector says of what it is given, whatever its parts are."""

import pytest
import torch
from torch import nn

from pyrafuse.core.predictions import Candidates
from pyrafuse.core.preprocessing import Preprocessing
from pyrafuse.models.detector import Card, Detector
from pyrafuse.postprocess.dense import DensePostprocess

BOXES = torch.tensor([[-4.0, 30, 20, 70], [8, 8, 24, 24], [64, 0, 90, 20]])


@pytest.fixture
def detector() -> Detector:
    """Finds the same boxes in every image; the first reaches outside a 64 x 64 one, the last lies there."""

    def decode(images):
        batch = len(images)
        scores = torch.tensor([[0.9], [0.8], [0.7]]).expand(batch, -1, -1)
        return Candidates(BOXES.expand(batch, -1, -1), scores, torch.zeros(3, dtype=torch.int64))

    made = Detector(
        nn.Conv2d(3, 3, 1), nn.Identity(), nn.Identity(), decode=decode, criterion=nn.Identity(),
        postprocess=DensePostprocess(),
    )  # fmt: skip
    made.card = Card(preprocessing=Preprocessing(size=(64, 64)))
    return made


def test_predictions_end_at_the_edges_of_the_image_and_detections_do_not(detector):
    (found,) = detector.predict(torch.zeros(3, 32, 128, dtype=torch.uint8))
    assert found.boxes.tolist() == [[0, 15, 40, 32], [16, 4, 48, 12]]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8]))
    (whole,) = detector.detect(torch.zeros(1, 3, 64, 64))
    assert whole.boxes.tolist() == BOXES.tolist()


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(3, 64, 64), r"shape \(3, 64, 64\) and torch\.float32"),
        (torch.zeros(1, 1, 64, 64), r"shape \(1, 1, 64, 64\) and torch\.float32"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), r"shape \(1, 3, 64, 64\) and torch\.uint8"),
        (torch.zeros(64), r"shape \(64,\) and torch\.float32"),
    ],
)
def test_what_is_no_batch_of_normalised_images(detector, images, said):
    for answer in (detector.decode, detector.detect):
        with pytest.raises(ValueError, match=rf"images of {said} cannot be decoded: normalised floats \(B, 3, H, W\)"):
            answer(images)
