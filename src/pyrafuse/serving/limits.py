"""How much one client may ask of a server."""

from dataclasses import dataclass
from math import inf

from pyrafuse.base.errors import check_between


@dataclass(frozen=True)
class Limits:
    """Bounds of requests, and of what is computed at a time.

    Attributes:
        megabytes: Largest body of a request, in 10^6 bytes.
        megapixels: Largest image, in 10^6 pixels; a larger one is refused before it is decoded.
        seconds: Longest time from a request to its answer.
        concurrency: Most requests at a time; more are refused.
        batch: Most images that a detector computes at a time.
        wait_ms: Longest time that an image waits for others to fill its batch, in milliseconds.
    """

    megabytes: float = 20.0
    megapixels: float = 50.0
    seconds: float = 30.0
    concurrency: int = 64
    batch: int = 8
    wait_ms: float = 5.0

    def __post_init__(self) -> None:
        bounds = {
            "megabytes": (0.001, 1000.0),
            "megapixels": (0.001, 178.0),
            "seconds": (0.1, 3600.0),
            "concurrency": (1, 10_000),
            "batch": (1, inf),
            "wait_ms": (0, 1000.0),
        }
        for name, (least, most) in bounds.items():
            check_between(name, getattr(self, name), least, most)

    @property
    def max_bytes(self) -> int:
        """Bytes of the largest body."""
        return round(self.megabytes * 1e6)

    @property
    def max_pixels(self) -> int:
        """Pixels of the largest image."""
        return round(self.megapixels * 1e6)


DEFAULT_LIMITS = Limits()
