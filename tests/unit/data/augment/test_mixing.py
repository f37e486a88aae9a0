import numpy as np
import pytest

from pyrafuse.base.images.fitting import blank
from pyrafuse.data.augment.mixing import lay_around, mixup, mosaic
from pyrafuse.data.augment.sample import Sample
from vectors import FOLDER


def sample_of(image, boxes, labels=None, crowd=None):
    count = len(boxes)
    return Sample(
        image,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.arange(count) if labels is None else np.array(labels, np.int64),
        np.ones(count, np.float32),
        np.zeros(count, bool) if crowd is None else np.array(crowd),
    )


@pytest.mark.parametrize("j", [0, 1])
def test_mixup_equals_the_official_one(j):
    golden = np.load(FOLDER / "asff/data.npz")
    first, second = (
        sample_of(golden[image], golden[labels][:, :4], golden[labels][:, 4])
        for image, labels in (("bgr", "labels1"), ("bgr2", "labels2"))
    )
    mixed = mixup(first, second, float(golden[f"mix{j}_lambda"]))
    expected = golden[f"mix{j}_labels"]
    assert np.array_equal(mixed.image, golden[f"mix{j}_img"])
    assert np.array_equal(mixed.boxes, expected[:, :4])
    assert np.array_equal(mixed.labels, expected[:, 4])
    assert np.array_equal(mixed.weights, expected[:, 5].astype(np.float32))


def test_mixup_lays_both_on_black_and_truncates():
    tall, wide = blank((80, 20), (100, 100, 101)), blank((10, 40), (200, 0, 0))
    mixed = mixup(sample_of(tall, [], []), sample_of(wide, [[1, 2, 3, 4]], [5], [True]), 0.25)
    assert mixed.image.shape == (80, 40, 3)
    assert mixed.image[0, 0].tolist() == [175, 25, 25]
    assert mixed.image[79, 19].tolist() == [25, 25, 25]
    assert mixed.image[9, 39].tolist() == [150, 0, 0]
    assert mixed.image[10:, 20:].max() == 0
    assert (mixed.labels.tolist(), mixed.weights.tolist(), mixed.crowd.tolist()) == ([5], [0.75], [True])


def test_a_mosaic_is_cut_at_its_border_and_between_its_images():
    colors = [(10, 0, 0), (20, 0, 0), (30, 0, 0), (40, 0, 0)]
    samples = [
        # 50 x 60 of which the lower right 40 x 30 shows: moved by (-20, -20)
        sample_of(blank((50, 60), colors[0]), [[30, 30, 50, 40], [0, 0, 30, 30], [10, 20, 50, 50]], [0, 1, 2]),
        # 20 x 100 of which the left 60 x 20 shows: moved by (40, 10)
        sample_of(blank((20, 100), colors[1]), [[50, 0, 70, 20], [40, 0, 70, 20]], [3, 4], [True, False]),
        sample_of(blank((40, 10), colors[2]), [[0, 0, 10, 40]], [5]),
        sample_of(blank((90, 90), colors[3]), [[0, 0, 8, 8], [70, 0, 90, 90]], [6, 7], [False, True]),
    ]
    laid = lay_around(samples, center=(40, 30), size=(80, 100), fill=(7, 7, 7))
    assert laid.boxes.tolist() == [
        [10, 10, 30, 20],
        [0, 0, 30, 30],  # [-10, 0, 30, 30] cut
        [90, 10, 100, 30],  # a crowd of which half is seen
        [80, 10, 100, 30],  # [80, 10, 110, 30]: its centre 95 is seen
        [30, 30, 40, 70],
        [40, 30, 48, 38],
    ]
    assert laid.labels.tolist() == [0, 2, 3, 4, 5, 6]
    red = np.full((80, 100), 7)
    red[0:30, 0:40] = 10
    red[10:30, 40:100] = 20
    red[30:70, 30:40] = 30
    red[30:80, 40:100] = 40
    assert np.array_equal(laid.image[..., 0], red)


def test_a_mosaic_depends_on_its_generator_alone():
    samples = [sample_of(blank((30, 50), (i, i, i)), [[5, 5, 25, 25]], [i]) for i in range(4)]
    first, second, other = (mosaic(samples, (64, 96), (9, 9, 9), np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.image.shape == (64, 96, 3)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.boxes, second.boxes)
    assert not np.array_equal(first.image, other.image)
    for i, (x1, y1, x2, y2) in zip(first.labels, first.boxes.round().astype(int), strict=True):
        assert (first.image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] == i).all()  # a box still frames its own image
