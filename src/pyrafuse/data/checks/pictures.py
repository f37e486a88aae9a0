"""The pictures of a data set, each decoded once: files -> pool -> damage, hash and look of each -> problems.

The look of a picture is which colours it has and how sharp its edges are. A picture whose nearest neighbours among the
others are much farther than is usual is unlike all others.
"""

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import DataError
from pyrafuse.base.images.reading import MAX_PIXELS, read_picture, read_size
from pyrafuse.base.members import find_member, read_bytes, size_of
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.data.checks.likeness import ALIKE_BITS, Hash, find_nearest, hash_picture, map_in_threads
from pyrafuse.data.reading.problems import Evidence, Problem

Progress = Callable[[int, int], None]

NUM_COMPARED = 20
"""Pictures from which on it is known what is usual."""

MOST_COMPARED = 20_000
"""Pictures of one split that are compared with each other: past that, time grows too much."""

NUM_REFERENCES = 5000
"""Pictures, drawn at random where there are more, among which the nearest neighbours of each are looked for."""

LEAK_REMEDY = (
    "kept; what was trained on cannot be measured with: `pyrafuse data split --near-duplicates` divides anew and keeps "
    "such images together"
)

_COLOURS = (4, 6, 6)
"""Steps of brightness, and of the two colours of CIELAB."""

_EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 1e9)
_NEIGHBOURS = 3
_FAR, _LEAST_DISTANCE = 4.0, 0.5
_BLOCK = 2048
_BYTES = 1 << 20


@dataclass(frozen=True)
class Pictures:
    """What decoding N pictures told.

    Attributes:
        errors: Why each cannot be read; empty for one that can.
        notes: What is unusual about the pixels of each.
        hashes: (N, 4) uint64; zeros where it cannot be read.
        looks: (N, F) float32, see `describe_look`; zeros for the same pictures.
    """

    errors: tuple[str, ...]
    notes: tuple[tuple[str, ...], ...]
    hashes: Hash
    looks: NDArray[np.float32]


class _Room:
    """Room for the pixels that all threads hold at a time: so many pictures as cores would not fit into memory.

    Args:
        most: Pixels; a picture of as many or more has all of it for itself.
    """

    def __init__(self, most: int) -> None:
        self._left = self._most = most
        self._changed = threading.Condition()

    @contextmanager
    def taking(self, pixels: int) -> Iterator[None]:
        """A block that waits until ``pixels`` fit, and holds them."""
        pixels = min(pixels, self._most)
        with self._changed:
            self._changed.wait_for(lambda: pixels <= self._left)
            self._left -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._left += pixels
                self._changed.notify_all()


def look_at(paths: Sequence[Path], *, progress: Progress | None = None) -> Pictures:
    """Decode every picture.

    Args:
        paths: The files.
        progress: Called with the pictures done and the number of all.
    """
    room = _Room(MAX_PIXELS)

    def describe(path: Path) -> tuple[str, tuple[str, ...], Hash, NDArray[np.float32]]:
        try:
            height, width = read_size(path)
            with room.taking(height * width):
                picture = read_picture(path)
                return "", picture.notes, hash_picture(picture.pixels), describe_look(picture.pixels)
        except DataError as error:
            return str(error), (), np.zeros(4, np.uint64), np.zeros(LOOK_SIZE, np.float32)

    errors, notes, hashes, looks = zip(*map_in_threads(describe, paths, progress=progress), strict=True)
    return Pictures(errors, notes, np.stack(hashes), np.stack(looks))


def describe_look(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The roots of the shares of 64 x 64 pixels of an image (H, W, 3) RGB in each bin of colour, and of edge strength.

    The distance of two looks is Hellinger's, of both histograms together: 0 to 2.
    """
    small = cv2.resize(np.ascontiguousarray(pixels), (64, 64), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    colours = cv2.calcHist([lab], [0, 1, 2], None, list(_COLOURS), [0, 100.01, -60, 60, -60, 60])
    edges, _ = np.histogram(np.abs(cv2.Laplacian(lab[..., 0], cv2.CV_32F)), _EDGES)
    shares = [counts.ravel() / max(counts.sum(), 1) for counts in (colours, edges)]
    return np.sqrt(np.concatenate(shares), dtype=np.float32)


LOOK_SIZE = int(np.prod(_COLOURS)) + len(_EDGES) - 1


def find_damaged(records: Sequence[ImageRecord], pictures: Pictures) -> list[Problem]:
    """Tell of pictures that cannot be read, and of pixels that were taken otherwise than they lie in the file."""
    problems = []
    for record, error, notes in zip(records, pictures.errors, pictures.notes, strict=True):
        if error:
            problems.append(
                Problem("error", "unreadable image", record.path, f"image {record.image_id}", error,
                        "replace it or remove it from the annotations")
            )  # fmt: skip
        problems += [
            Problem("warning", "image that is not plain RGB of 8 bits", record.path, f"image {record.image_id}",
                    note, "kept as told; save the images as RGB of 8 bits if this is not what was annotated")
            for note in notes
        ]  # fmt: skip
    return problems


def find_copies(train: DetectionData, val: DetectionData) -> list[Problem]:
    """The same picture twice, by its bytes; files of a size of their own need not be read."""
    by_size: dict[int, list[tuple[Path, str]]] = defaultdict(list)
    for data in (train, val):
        for path in dict.fromkeys(record.path for record in data.records):
            by_size[size_of(path)].append((path, data.split))
    problems = []
    for candidates in chain.from_iterable(map(_by_checksum, by_size.values())):
        first: dict[bytes, tuple[Path, str]] = {}
        for path, split in candidates if len(candidates) > 1 else []:
            other, other_split = first.setdefault(_hash(path), (path, split))
            if split != other_split:
                problems.append(
                    Problem("warning", "image in both splits", path, "", f"the same as {other} in {other_split}",
                            "remove one: what was trained on cannot be measured with",
                            Evidence(path, other=other))
                )  # fmt: skip
            elif path != other:
                problems.append(
                    Problem("warning", "image twice in one split", path, "", f"the same as {other}", "remove one",
                            Evidence(path, other=other))
                )  # fmt: skip
    return problems


def _by_checksum(files: Sequence[tuple[Path, str]]) -> Iterable[list[tuple[Path, str]]]:
    """Files of one size in groups that share none: where all lie in shards, by the checksums that are known."""
    members = [find_member(path) for path, _ in files]
    groups: dict[int, list[tuple[Path, str]]] = defaultdict(list)
    for file, member in zip(files, members, strict=True):
        groups[0 if member is None or None in members else member.crc].append(file)
    return groups.values()


def _hash(path: Path) -> bytes:
    if find_member(path):
        return hashlib.blake2b(read_bytes(path), digest_size=16).digest()
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(_BYTES):
            digest.update(block)
    return digest.digest()


def find_near_copies(
    records: Sequence[ImageRecord], hashes: Hash, *, num_train: int, train_name: str, known: frozenset[Path]
) -> list[Problem]:
    """Tell of validation pictures that look like a training picture, and of pictures that look alike in one split.

    Args:
        records: The images, training first.
        hashes: (N, 4) of each.
        num_train: Training images.
        train_name: Name of the training split.
        known: Files of which it is told already that they are copies.
    """
    train, val = np.arange(num_train), np.arange(num_train, len(records))
    within = [(rows, rows) for rows in (train, val) if len(rows) <= MOST_COMPARED]
    problems = [
        Problem("note", "split that is not searched for near-duplicates in itself", records[rows[0]].path.parent, "",
                f"{len(rows):,} images, and {MOST_COMPARED:,} are compared with each other at most",
                "those of validation are compared with those of training all the same")
        for rows in (train, val) if len(rows) > MOST_COMPARED
    ]  # fmt: skip
    for rows, others in ((val, train), *within):
        is_leak = rows is not others
        nearest, bits = find_nearest(hashes[rows], hashes[others], is_earlier=not is_leak)
        alike = np.flatnonzero(bits <= ALIKE_BITS)
        for row, other, differing in zip(rows[alike], others[nearest[alike]], bits[alike].tolist(), strict=True):
            own, theirs = records[row], records[other]
            if own.path == theirs.path or own.path in known:
                continue
            problems.append(
                Problem(
                    "warning" if is_leak else "hint",
                    "near-duplicate across splits" if is_leak else "near-duplicate in one split",
                    own.path,
                    f"image {own.image_id}",
                    f"looks like {theirs.path}{f' in {train_name}' if is_leak else ''}: {differing} of 256 bits of "
                    "their hashes differ",
                    LEAK_REMEDY if is_leak else "kept; many frames of one scene teach little more than a few",
                    Evidence(own.path, other=theirs.path),
                )
            )
    return problems


def find_unlike(records: Sequence[ImageRecord], pictures: Pictures) -> list[Problem]:
    """Tell of pictures that are unlike all others, the farthest first."""
    rows = np.flatnonzero([not error for error in pictures.errors])
    if len(rows) < NUM_COMPARED:
        return []
    distances = _find_distances(pictures.looks[rows])
    usual, upper = np.percentile(distances, (50, 75)).tolist()
    is_far = (distances > usual + _FAR * max((upper - usual) / 0.674, 0.02)) & (distances > _LEAST_DISTANCE)
    problems = []
    for row in np.argsort(-distances, kind="stable")[: np.count_nonzero(is_far)].tolist():
        record, times = records[int(rows[row])], float(distances[row] / max(usual, 0.01))
        problems.append(
            Problem("hint", "image unlike all others", record.path, f"image {record.image_id}",
                    f"its colours and edges are {times:.1f} times as far from the nearest other images as is usual",
                    "leave it out if it does not belong here, or add more like it", Evidence(record.path))
        )  # fmt: skip
    return problems


def _find_distances(looks: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) how far the third nearest of the others is from each of ``looks``."""
    references = np.arange(len(looks))
    if len(looks) > NUM_REFERENCES:
        references = np.sort(np.random.default_rng(0).choice(len(looks), NUM_REFERENCES, replace=False))
    others, found = looks[references], []
    lengths = np.square(looks).sum(axis=1)
    for start in range(0, len(looks), _BLOCK):
        block = slice(start, start + _BLOCK)
        squares = lengths[block, None] + lengths[references] - 2 * looks[block] @ others.T
        squares[np.arange(len(looks))[block, None] == references] = np.inf  # itself
        found.append(np.partition(squares, _NEIGHBOURS - 1, axis=1)[:, _NEIGHBOURS - 1])
    return np.sqrt(np.maximum(np.concatenate(found), 0).astype(np.float64))
