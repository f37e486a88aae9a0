"""Rare classes made up for: their images come more often, or their objects count more for the class loss.

images and objects of each class -> factor of each image, weight of each class
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import check_between, unknown_name
from pyrafuse.base.records import DetectionData
from pyrafuse.data.loading.batching import count_repeated

BETA = 0.999
"""Of the effective number of samples: past 1 / (1 - BETA) objects of a class, further ones hardly count."""


def repeat_factors(data: DetectionData, threshold: float) -> NDArray[np.float64]:
    """How often each of N images comes in an epoch, (N,) of 1 or more (Gupta et al., LVIS, arXiv:1908.03195, B.2).

    A class in a share f of the images has the factor max(1, sqrt(threshold / f)), and an image the largest factor of
    its classes. Crowds are not counted.

    Args:
        data: The training images.
        threshold: Share of the images below which a class is rare; 0 repeats nothing.
    """
    labels = [np.unique(record.labels[~record.crowd]) for record in data.records]
    counts = np.bincount(np.concatenate([*labels, np.zeros(0, np.int64)]), minlength=len(data.names))
    shares = np.maximum(counts, 1) / max(len(data), 1)
    of_classes = np.maximum(1, np.sqrt(threshold / shares))
    return np.array([of_classes[own].max(initial=1) for own in labels], np.float64)


def count_images(data: DetectionData, threshold: float) -> int:
    """Images of an epoch: those of ``data``, with the repeated ones under ``threshold``."""
    return count_repeated(repeat_factors(data, threshold)) if threshold else len(data)


def class_weights(
    data: DetectionData, given: str | Mapping[str, float], factors: NDArray[np.float64] | None = None
) -> NDArray[np.float32] | None:
    """How much an object of each class counts for the class loss, (K,) with a mean of 1 over the objects.

    Args:
        data: The training images.
        given: ``balanced`` weighs a class by 1 over the number of its objects; ``effective`` by 1 over their effective
            number (Cui et al., arXiv:1901.05555, equation 2), which lies below; a mapping gives weights as they are,
            1 where it names no class; ``none`` gives None.
        factors: How often each image comes, of `repeat_factors`; by default once.

    Raises:
        UnknownNameError: If the mapping has a class that is not in the data.
        PyrafuseError: If a weight is no number of 0 or more.
    """
    if isinstance(given, Mapping):
        return _as_given(data.names, given)
    if given == "none":
        return None
    counts = np.zeros(len(data.names))
    for record, factor in zip(data.records, np.ones(len(data)) if factors is None else factors, strict=True):
        np.add.at(counts, record.labels[~record.crowd], factor)
    present = np.maximum(counts, 1)
    weights = 1 / present if given == "balanced" else (1 - BETA) / (1 - BETA**present)
    weights[counts == 0] = 0
    mean = (weights * counts).sum() / max(counts.sum(), 1)
    return np.where(counts > 0, weights / (mean or 1), 1).astype(np.float32)


def _as_given(names: tuple[str, ...], given: Mapping[str, float]) -> NDArray[np.float32]:
    weights = np.ones(len(names), np.float32)
    for name, weight in given.items():
        if name not in names:
            raise unknown_name("class in data.class_weights", name, names)
        check_between(f"data.class_weights.{name}", weight, 0)
        weights[names.index(name)] = weight
    return weights
