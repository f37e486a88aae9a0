"""Pictures that look alike, by a perceptual hash: files -> 256 bits each -> groups of pictures that differ in few bits.

The bits say of a picture's brightness, on a grid, whether it rises from each cell to the next one: copies that were
resized, compressed again or brightened keep them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import DataError
from pyrafuse.base.images.reading import read_picture

T = TypeVar("T")

NUM_BITS = 256
ALIKE_BITS = 16
"""Pictures that differ in no more of the 256 bits are taken for one picture, as a rule."""

Hash = NDArray[np.uint64]
"""(4,) uint64, or (N, 4) of N pictures."""

_SIDE = 16
_FLAT = 2.0
"""Brightness, of 255, by which neighbours must differ for a bit: less is noise, and a plain picture has no bits."""

_BITS_SET = np.array([bin(value).count("1") for value in range(256)], np.uint8)
_MIXED = np.random.default_rng(0).permutation(NUM_BITS)
_NUM_KEYS = ALIKE_BITS + 1
_MANY = 2048


def hash_picture(pixels: NDArray[np.uint8]) -> Hash:
    """The hash of an image (H, W, 3) RGB: rises of brightness to the right, (16, 8) bits, and downwards, (8, 16)."""
    gray = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    rises = [
        np.diff(cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32), axis=axis) > _FLAT
        for size, axis in (((9, _SIDE), 1), ((_SIDE, 9), 0))
    ]
    return np.packbits(np.concatenate([bits.ravel() for bits in rises])).view(np.uint64)


def hash_pictures(
    paths: Sequence[Path], *, progress: Callable[[int, int], None] | None = None
) -> tuple[Hash, NDArray[np.bool_]]:
    """The hashes (N, 4) of image files, and (N,) whether each could be read.

    Args:
        paths: The files.
        progress: Called with the pictures done and the number of all.
    """

    def read(path: Path) -> Hash | None:
        try:
            return hash_picture(read_picture(path).pixels)
        except DataError:
            return None

    hashes, is_read = np.zeros((len(paths), 4), np.uint64), np.zeros(len(paths), bool)
    for row, found in enumerate(map_in_threads(read, paths, progress=progress)):
        if found is not None:
            hashes[row], is_read[row] = found, True
    return hashes, is_read


def map_in_threads(
    work: Callable[[Path], T], paths: Sequence[Path], *, progress: Callable[[int, int], None] | None
) -> Iterator[T]:
    """What ``work`` gives for each of ``paths``, in order, by as many threads as there are cores."""
    pool = ThreadPoolExecutor(os.cpu_count())  # Pillow decodes outside of Python's lock
    try:
        for done, result in enumerate(pool.map(work, paths), 1):
            yield result
            if progress:
                progress(done, len(paths))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest


def count_differences(hashes: Hash, others: Hash) -> NDArray[np.int64]:
    """The number of bits, 0 to 256, in which hashes (N, 4) differ from as many others, or from one (4,)."""
    different = np.bitwise_xor(hashes, others).view(np.uint8)
    return _BITS_SET[different].sum(axis=-1, dtype=np.int64)


def find_nearest(
    hashes: Hash, others: Hash, *, is_earlier: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N,) the nearest of ``others`` to each hash, the first of several, and (N,) the bits in which they differ.

    Plain pictures, which have no bits, are near to none: 257 bits then, and where there is no other.

    Args:
        hashes: (N, 4).
        others: (M, 4).
        is_earlier: The two are the same, and each is compared with those before it alone.
    """
    nearest, differing = np.zeros(len(hashes), np.int64), np.full(len(hashes), NUM_BITS + 1)
    signs, theirs = (_signs(each) for each in (hashes, others))
    for start in range(0, len(hashes) if len(others) else 0, _MANY):
        rows = slice(start, start + _MANY)
        end = start + _MANY if is_earlier else len(others)
        bits = (NUM_BITS - signs[rows] @ theirs[:end].T) / 2  # a sum of whole numbers: exact
        bits[~hashes[rows].any(axis=1)] = np.inf
        bits[:, ~others[:end].any(axis=1)] = np.inf
        if is_earlier:
            bits[np.triu_indices(len(bits), start, bits.shape[1])] = np.inf
        nearest[rows] = bits.argmin(axis=1)
        differing[rows] = np.minimum(bits.min(axis=1), NUM_BITS + 1)
    return nearest, differing


def _signs(hashes: Hash) -> NDArray[np.float32]:
    """(N, 256) a 1 for each bit that is set, and -1 for each other one."""
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, NUM_BITS // 8), axis=1)
    return bits.astype(np.float32) * 2 - 1


def find_alike(hashes: Hash, *, most: int = ALIKE_BITS) -> NDArray[np.int64]:
    """(P, 2) the pairs, earlier one first, that differ in at most ``most`` of the bits; plain pictures pair with none.

    The bits are cut into 17 keys. Two hashes that differ in 16 bits or fewer have one key in common, so only pictures
    that share a key are compared.

    Args:
        hashes: (N, 4) of `hash_pictures`.
        most: 0 to 16 bits.

    Raises:
        ValueError: If ``most`` is none of these.
    """
    if not 0 <= most <= ALIKE_BITS:
        raise ValueError(f"most must be in 0..{ALIKE_BITS}, got {most}")
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=1)
    rows = np.flatnonzero(bits.any(axis=1))
    parts = np.array_split(bits[rows][:, _MIXED], _NUM_KEYS, axis=1)
    found = [np.zeros((0, 2), np.int64)]
    for part in parts:
        keys = part @ (1 << np.arange(part.shape[1]))
        order = np.argsort(keys, kind="stable")
        for same in np.split(rows[order], np.flatnonzero(np.diff(keys[order])) + 1):
            found += [_pairs_within(hashes, same, most)] if len(same) > 1 else []
    return np.unique(np.concatenate(found), axis=0)


def _pairs_within(hashes: Hash, rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The pairs among ``rows``, in blocks, so that many pictures with one key need little memory."""
    pairs = []
    for start in range(0, len(rows), _MANY):
        block = rows[start : start + _MANY]
        for other_start in range(start, len(rows), _MANY):
            others = rows[other_start : other_start + _MANY]
            near = count_differences(hashes[block][:, None], hashes[others][None]) <= most
            first, second = np.nonzero(np.triu(near, 1) if other_start == start else near)
            pairs.append(np.stack([block[first], others[second]], axis=1))
    return np.concatenate(pairs)


def group_alike(hashes: Hash, *, most: int = ALIKE_BITS) -> NDArray[np.int64]:
    """(N,) the first picture of each one's group, which `find_alike` pairs it with, directly or by way of others."""
    first = np.arange(len(hashes))
    pairs = find_alike(hashes, most=most)
    while True:  # every round carries the least number one pair further, and halves the way it has made
        lowest = first.copy()
        np.minimum.at(lowest, pairs[:, 0], first[pairs[:, 1]])
        np.minimum.at(lowest, pairs[:, 1], first[pairs[:, 0]])
        lowest = lowest[lowest]
        if (lowest == first).all():
            return first
        first = lowest
