"""How often a classifier is right: top-1 and top-5 over a folder of images.

class folders -> read and cropped by threads -> logits -> rank of the true class -> `Accuracy`
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch
from rich.console import Console
from torch import Tensor

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.images.reading import read_image
from pyrafuse.base.progress import create_bar
from pyrafuse.data.augment.cropping import CenterCrop
from pyrafuse.data.reading.class_folders import LabelledImage
from pyrafuse.models.classifier import Classifier

BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Accuracy:
    """How often the true class was among the likeliest.

    Attributes:
        num_images: How many were classified.
        num_top1: Number of images whose likeliest class is the true one.
        num_top5: Number of images whose true class is among the five likeliest.
        failures: Why the others could not be read, one line an image.
    """

    num_images: int
    num_top1: int
    num_top5: int
    failures: tuple[str, ...]

    @property
    def top1(self) -> float:
        """Share in 0..1; nan if nothing could be read."""
        return self.num_top1 / self.num_images if self.num_images else float("nan")

    @property
    def top5(self) -> float:
        """Share in 0..1; nan if nothing could be read."""
        return self.num_top5 / self.num_images if self.num_images else float("nan")


@torch.inference_mode()
def evaluate_classifier(
    classifier: Classifier,
    images: Sequence[LabelledImage],
    *,
    crop: CenterCrop | None = None,
    batch_size: int = 32,
    workers: int = 4,
    console: Console | None = None,
) -> Accuracy:
    """Classify ``images`` and count.

    Args:
        classifier: On the device to compute on.
        images: Files and true classes.
        crop: How they are made ready; by default the classifier's own way.
        batch_size: Images at a time.
        workers: Threads that read.
        console: Where to show the progress and name what cannot be read; nowhere when none.

    Raises:
        PyrafuseError: If a number is out of its range.
    """
    if batch_size < 1 or workers < 1:
        raise PyrafuseError(f"batch_size and workers must be 1 or more, got {batch_size} and {workers}")
    crop = crop or classifier.preprocessing
    device = next(classifier.parameters()).device
    classifier.eval()
    ranks: list[Tensor] = []
    failures: list[str] = []
    with create_bar(console) as bar:
        task = bar.add_task("classify", total=len(images))
        for batch in _read_ahead(images, crop, batch_size, workers):
            readable = [item for item in batch if not isinstance(item, str)]
            for complaint in (item for item in batch if isinstance(item, str)):
                failures.append(complaint)
                bar.console.print(complaint, style="red", highlight=False, markup=False)
            if readable:
                pixels = torch.stack([image for image, _ in readable]).to(device, non_blocking=True)
                labels = torch.tensor([label for _, label in readable], device=device)
                ranks.append(rank_of_truth(classifier(crop.normalize(pixels)), labels))
            bar.advance(task, len(batch))
    rank = torch.cat(ranks).cpu() if ranks else torch.zeros(0, dtype=torch.int64)
    return Accuracy(len(rank), int((rank < 1).sum()), int((rank < 5).sum()), tuple(failures))


def rank_of_truth(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes (B,) are likelier than the true one; of equal ones those with a smaller number.

    A row that is not finite has the last rank.

    Args:
        logits: (B, K).
        labels: (B,) int64 class indices.
    """
    truth = logits.gather(1, labels[:, None])
    number = torch.arange(logits.shape[1], device=logits.device)
    ahead = (logits > truth) | ((logits == truth) & (number < labels[:, None]))
    return torch.where(logits.isfinite().all(1), ahead.sum(1), logits.shape[1])


Read = tuple[Tensor, int] | str
"""A cropped image (3, S, S) uint8 and its label; or why it could not be read."""


def _read_ahead(
    images: Sequence[LabelledImage], crop: CenterCrop, batch_size: int, workers: int
) -> Iterator[list[Read]]:
    """Batches in order, some of them being read while another is classified."""

    def read(item: LabelledImage) -> Read:
        try:
            return crop.crop(read_image(item.path)), item.label
        except DataError as error:
            return str(error)

    rest = iter(images)
    pending: deque[list[Future[Read]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        while True:
            while len(pending) <= BATCHES_AHEAD and (batch := list(islice(rest, batch_size))):
                pending.append([pool.submit(read, item) for item in batch])
            if not pending:
                return
            yield [future.result() for future in pending.popleft()]
