"""Data sets as training and evaluation see them: a row in, a sample at network size out."""

from dataclasses import replace

import numpy as np
from torch.utils.data import Dataset

from pyrafuse.base.images.fitting import Fit, compute_padded_size, fit_image
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.data.augment.mixing import mixup, mosaic
from pyrafuse.data.augment.operations import augment
from pyrafuse.data.augment.sample import Sample
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.images.caching import ImageCache
from pyrafuse.data.images.fitting import resize
from pyrafuse.data.images.of_records import read_record
from pyrafuse.data.loading.batching import VARIATION, Request, create_generator


class TrainSet(Dataset[tuple[int, Sample]]):
    """Answers a `Request` with the row and its varied sample; the same request always has the same answer."""

    def __init__(
        self,
        data: DetectionData,
        *,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        seed: int,
        mix_epochs: int | None = None,
        longest_px: int | None = None,
        cache_mb: int = 0,
    ) -> None:
        self._records = data.records
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._seed = seed
        self._mix_epochs = mix_epochs
        self._sizes = [_shrink(record, longest_px) for record in data.records]
        self._cache = ImageCache(self._sizes, cache_mb)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, request: Request) -> tuple[int, Sample]:
        rng = create_generator(self._seed, VARIATION, request.epoch, request.position, request.index)
        preprocessing = replace(self._preprocessing, size=request.size)
        sample = self._mix(request, preprocessing.fill_color(), rng)
        return request.index, augment(sample, preprocessing, self._augmentation, rng)

    def _mix(self, request: Request, fill: tuple[int, int, int], rng: np.random.Generator) -> Sample:
        settings, count = self._augmentation, len(self)
        sample = self._read(request.index)
        if self._mix_epochs is not None and request.epoch >= self._mix_epochs:
            return sample
        if rng.random() < settings.mosaic_probability:
            others = [self._read(index) for index in rng.integers(count, size=3).tolist()]
            return mosaic([sample, *others], request.size, fill, rng)
        if count > 1 and rng.random() < settings.mixup_probability:
            other = self._read((request.index + 1 + int(rng.integers(count - 1))) % count)
            return mixup(sample, other, rng.beta(settings.mixup_alpha, settings.mixup_alpha))
        return sample

    def _read(self, index: int) -> Sample:
        record, size = self._records[index], self._sizes[index]
        image = self._cache.get(index, lambda: resize(read_record(record), *size, "antialias"))
        return Sample.of(record, image)


class EvalSet(Dataset[tuple[int, Sample, Fit]]):
    """Answers a row with itself, its sample at network size, and the way back to the image's own pixels."""

    def __init__(self, data: DetectionData, *, preprocessing: Preprocessing, cache_mb: int = 0) -> None:
        self._records = data.records
        self._preprocessing = preprocessing
        self._cache = ImageCache(
            [compute_padded_size(r.height, r.width, preprocessing) for r in data.records], cache_mb
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[int, Sample, Fit]:
        record, preprocessing = self._records[index], self._preprocessing
        image = self._cache.get(index, lambda: fit_image(read_record(record), preprocessing)[0])
        fit = Fit.of(record.height, record.width, preprocessing)
        weights = np.ones(len(record.labels), np.float32)
        return index, Sample(image, fit.to_network(record.boxes), record.labels, weights, record.crowd, fit.size), fit


def _shrink(record: ImageRecord, longest_px: int | None) -> tuple[int, int]:
    """Height and width at which an image is kept."""
    longest = max(record.height, record.width)
    if longest_px is None or longest <= longest_px:
        return record.height, record.width
    scale = longest_px / longest
    return max(1, round(record.height * scale)), max(1, round(record.width * scale))
