"""Rare classes: how often their images come, how much their objects count."""

from pathlib import Path

import numpy as np
import pytest

from pyrafuse.base.errors import PyrafuseError, UnknownNameError
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.data.loading.balancing import class_weights, count_images, repeat_factors
from pyrafuse.data.loading.batching import EpochBatchSampler, repeat


def data_of(*labels, names=("often", "rare", "never"), crowd=()):
    """An image for each row of labels; the objects of images in ``crowd`` are crowds."""
    records = tuple(
        ImageRecord(
            Path(f"{i}.png"), i, 10, 10, np.zeros((len(own), 4), np.float32), np.array(own, np.int64),
            np.full(len(own), i in crowd), np.ones(len(own), np.float32),
        )
        for i, own in enumerate(labels)
    )  # fmt: skip
    return DetectionData(records, names, tuple(range(len(names))), "coco", "train")


class TestRepeatFactors:
    def test_an_image_has_the_largest_factor_of_its_classes(self):
        data = data_of([0], [0, 0], [0, 1], *[[0]] * 12, [])  # 16 images: 15 with class 0, one with class 1
        factors = repeat_factors(data, 0.25)
        assert factors.tolist() == [1, 1, 2, *[1] * 13]  # sqrt(0.25 / (1 / 16)) = 2
        assert count_images(data, 0.25) == 17
        assert count_images(data, 0) == 16

    def test_crowds_are_not_objects(self):
        data = data_of([0], [1], [0], [0], crowd=[1])
        assert repeat_factors(data, 1.0).tolist() == pytest.approx([(4 / 3) ** 0.5, 1, (4 / 3) ** 0.5, (4 / 3) ** 0.5])

    def test_a_threshold_below_every_share_repeats_nothing(self):
        assert repeat_factors(data_of([0], [1], [0, 1]), 0.5).tolist() == [1, 1, 1]


def test_the_fractions_are_probabilities():
    factors = np.array([1.0, 1.25, 2.5, 3.0, 1.9])
    counts = np.array([np.bincount(repeat(factors, np.random.default_rng(seed)), minlength=5) for seed in range(2000)])
    assert (counts >= np.floor(factors)).all()
    assert (counts <= np.ceil(factors)).all()
    np.testing.assert_allclose(counts.mean(axis=0), factors, atol=0.04)
    assert set(counts.sum(axis=1)) == {9, 10}  # 9.65 on average
    assert counts.sum(axis=1).mean() == pytest.approx(9.65, abs=0.04)


class TestSampler:
    FACTORS = np.array([1.0, 2.5, 1.0, 1.0, 1.75])

    def sampler(self, **options):
        return EpochBatchSampler(**{"num_images": 5, "batch_size": 2, "seed": 3, "factors": self.FACTORS, **options})

    def drawn(self, epoch, **options):
        sampler = self.sampler(**options)
        sampler.set_epoch(epoch)
        return [[request.index for request in batch] for batch in sampler]

    def test_an_epoch_repeats_images_anew(self):
        assert len(self.sampler()) == 4  # 7.25 images
        epochs = [np.bincount(np.concatenate(self.drawn(epoch))[:7], minlength=5) for epoch in range(8)]
        assert all((counts[[0, 2, 3]] <= 2).all() and counts.min() >= 0 for counts in epochs)
        assert len({tuple(counts) for counts in epochs}) > 1
        assert self.drawn(3) == self.drawn(3) != self.drawn(4)

    def test_processes_and_the_middle_of_an_epoch(self):
        whole = self.drawn(2)
        parts = [self.drawn(2, rank=rank, world_size=2) for rank in (0, 1)]
        assert [a + b for a, b in zip(*parts, strict=True)] == whole
        later = self.sampler()
        later.set_epoch(2)
        later.start_at(2, 3)
        assert [[request.index for request in batch] for batch in later] == whole[3:]

    def test_factors_of_one_change_nothing(self):
        plain = [sorted(np.concatenate(self.drawn(epoch, factors=np.ones(5)))[:5].tolist()) for epoch in (0, 1)]
        assert plain == [[0, 1, 2, 3, 4]] * 2


class TestClassWeights:
    DATA = data_of(*[[0, 0, 0]] * 3, [1], crowd=[])  # nine objects and one

    def test_the_mean_over_the_objects_is_one(self):
        weights = class_weights(self.DATA, "balanced")
        np.testing.assert_allclose(weights, [10 / 18, 5, 1])
        effective = class_weights(data_of(*[[0] * 100] * 20, [1] * 10), "effective")
        numbers = [(1 - 0.999**count) / 0.001 for count in (2000, 10)]
        assert effective[1] / effective[0] == pytest.approx(numbers[0] / numbers[1], rel=1e-5)
        assert (2000 * effective[0] + 10 * effective[1]) / 2010 == pytest.approx(1)

    def test_repeated_images_count_as_often_as_they_come(self):
        assert class_weights(self.DATA, "balanced", np.array([1, 1, 1, 9.0])).tolist() == [1, 1, 1]

    def test_given_weights(self):
        assert class_weights(self.DATA, {"rare": 4, "never": 0}).tolist() == [1, 4, 0]
        assert class_weights(self.DATA, "none") is None

    def test_what_cannot_be(self):
        with pytest.raises(UnknownNameError, match=r"unknown class in data.class_weights 'rarer'; did you mean 'rare'"):
            class_weights(self.DATA, {"rarer": 4})
        with pytest.raises(PyrafuseError, match=r"data.class_weights.rare must be 0 or more, got nan"):
            class_weights(self.DATA, {"rare": float("nan")})

    def test_no_objects_at_all(self):
        assert class_weights(data_of([], []), "balanced").tolist() == [1, 1, 1]
        assert repeat_factors(data_of([], []), 0.5).tolist() == [1, 1]
