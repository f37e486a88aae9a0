"""Perceptual hashes: what keeps them, what does not, and which pictures are grouped."""

import cv2
import numpy as np
import pytest

from pyrafuse.data.checks.likeness import (
    ALIKE_BITS,
    count_differences,
    find_alike,
    group_alike,
    hash_picture,
    hash_pictures,
)
from pyrafuse.data.formats.shapes import draw_shapes


def drawn(index):
    return draw_shapes(index, size=128)[0]


def test_a_ramp_has_the_bits_of_its_rise():
    ramp = np.repeat(np.tile(np.arange(0, 256, 2, dtype=np.uint8), (128, 1))[..., None], 3, axis=2)
    bits = np.unpackbits(hash_picture(ramp).view(np.uint8))
    assert (bits[:128].all(), bits[128:].any()) == (True, False)  # to the right it rises, downwards never
    assert np.unpackbits(hash_picture(ramp.swapaxes(0, 1)).view(np.uint8)).tolist() == [0] * 128 + [1] * 128
    assert not hash_picture(ramp[:, ::-1]).any()


def test_copies_keep_the_hash_and_other_pictures_do_not():
    picture = drawn(0)
    smaller = cv2.resize(picture, (90, 70), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 40])
    brighter = np.clip(picture.astype(int) + 12, 0, 255).astype(np.uint8)
    own = hash_picture(picture)
    for copy in (smaller, cv2.imdecode(jpeg, cv2.IMREAD_COLOR), brighter):
        assert count_differences(hash_picture(copy), own) <= ALIKE_BITS
    others = [int(count_differences(hash_picture(drawn(i)), own)) for i in range(1, 9)]
    assert min(others) > 3 * ALIKE_BITS


def test_pairs_are_those_of_a_loop_over_all():
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2, (300, 256), dtype=np.uint8)
    for row in range(0, 290, 3):  # near copies, some over the limit
        bits[row + 1] = bits[row]
        bits[row + 1, rng.choice(256, rng.integers(0, 25), replace=False)] ^= 1
    bits[7] = 0
    bits[8] = 0
    hashes = np.packbits(bits, axis=1).view(np.uint64)
    for most in (0, 5, ALIKE_BITS):
        expected = [
            [i, j] for i in range(300) for j in range(i + 1, 300)
            if (bits[i] != bits[j]).sum() <= most and bits[i].any() and bits[j].any()
        ]  # fmt: skip
        assert find_alike(hashes, most=most).tolist() == expected
    assert len(expected) > 40
    with pytest.raises(ValueError, match=r"most must be in 0\.\.16, got 17"):
        find_alike(hashes, most=17)


def test_groups_join_over_others():
    bits = np.zeros((6, 256), np.uint8)
    bits[:, 0] = 1
    bits[1, 10:22] = 1  # 12 from the first
    bits[3, 10:34] = 1  # 12 from the second, 24 from the first
    bits[4, 100:200] = 1
    bits[5, 100:201] = 1
    bits[2, 50:90] = 1
    hashes = np.packbits(bits, axis=1).view(np.uint64)
    assert group_alike(hashes).tolist() == [0, 0, 2, 0, 4, 4]
    assert group_alike(hashes, most=0).tolist() == [0, 1, 2, 3, 4, 5]
    assert group_alike(hashes[:0]).tolist() == []


def test_files_are_read_upright_and_damaged_ones_told(tmp_path, write_image):
    stored = write_image(tmp_path / "a.jpg", 96, 64, seed=3)
    turned = write_image(tmp_path / "b.jpg", 96, 64, seed=3, orientation=3)
    (tmp_path / "c.jpg").write_bytes(stored.read_bytes()[:40])
    seen = []
    hashes, is_read = hash_pictures(
        [stored, turned, tmp_path / "c.jpg"], progress=lambda done, total: seen.append((done, total))
    )
    assert is_read.tolist() == [True, True, False]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert (hashes[0] != hashes[1]).any()
    assert not hashes[2].any()
