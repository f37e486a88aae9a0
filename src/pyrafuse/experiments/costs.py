"""What detectors cost side by side, at the input sizes that a data set really gives.

records -> sizes of the network's input with their counts -> parameters, GFLOPs and latency of each detector
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import torch

from pyrafuse.base.images.fitting import compute_padded_size
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import ImageRecord
from pyrafuse.inference.measuring import count_gflops, count_parameters, measure_latencies
from pyrafuse.models.detector import Detector


@dataclass(frozen=True)
class Cost:
    """What one detector costs.

    Attributes:
        parameters: Numbers in all of them.
        gflops: Billions of operations for one image of the median size; a multiplication and its addition are two.
        latency_ms: Median for one image, forward pass and decoding, over the sizes of the data.
        height_px: Height of the network's input, of the image of median area.
        width_px: Width of that input.
        num_sizes: Number of different sizes that were timed; 1 unless ``keep_ratio`` fits.
    """

    parameters: int
    gflops: float
    latency_ms: float
    height_px: int
    width_px: int
    num_sizes: int = 1

    @property
    def size_text(self) -> str:
        """The size in words, such as ``320 px`` or ``800 x 1088 px (median of 12 sizes)``."""
        size = f"{self.height_px} x {self.width_px}" if self.height_px != self.width_px else str(self.height_px)
        return f"{size} px" + (f" (median of {self.num_sizes} sizes)" if self.num_sizes > 1 else "")


def spread_sizes(records: Sequence[ImageRecord], preprocessing: Preprocessing, count: int) -> list[tuple[int, int]]:
    """Height and width of the network's input for ``count`` images, each size as often as ``records`` make it.

    They go from the smallest area to the largest: the quantiles of the data's own sizes.
    """
    sizes = sorted(
        (compute_padded_size(record.height, record.width, preprocessing) for record in records),
        key=lambda size: (size[0] * size[1], size),
    )
    return [sizes[(2 * i + 1) * len(sizes) // (2 * count)] for i in range(count)]


def measure_costs(
    detectors: Mapping[str, Detector], records: Sequence[ImageRecord], *, device: torch.device, rounds: int = 30
) -> dict[str, Cost]:
    """Parameters, operations and latency of each detector; they take turns on ``device``, one image at a time.

    Args:
        detectors: By name; they are moved to ``device``.
        records: The images whose sizes count.
        device: Device that latency is measured on.
        rounds: Timed images of each detector.
    """
    generator = torch.Generator().manual_seed(0)
    sizes, gflops, work = {}, {}, {}
    for name, detector in detectors.items():
        sizes[name] = spread_sizes(records, detector.card.preprocessing, rounds)
        gflops[name] = count_gflops(detector, torch.zeros(1, 3, *sizes[name][rounds // 2]))
        images = {size: torch.randn(1, 3, *size, generator=generator).to(device) for size in dict.fromkeys(sizes[name])}
        work[name] = _decoding_in_turn(detector.to(device), [images[size] for size in sizes[name]])
    latencies = measure_latencies(work, rounds=rounds, device=device)
    costs = {}
    for name, detector in detectors.items():
        height, width = sizes[name][rounds // 2]
        num_sizes = len({*sizes[name]})
        costs[name] = Cost(count_parameters(detector), gflops[name], latencies[name], height, width, num_sizes)
    return costs


def _decoding_in_turn(detector: Detector, images: Sequence[torch.Tensor]) -> Callable[[], object]:
    """A work that decodes the next of ``images`` at each call, and begins again after the last."""
    remaining = cycle(images)
    return lambda: detector.decode(next(remaining))
