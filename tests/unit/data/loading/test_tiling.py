"""Tiles to learn from: which objects they hold, what is set aside, and that their pixels are those of the image."""

import numpy as np
import pytest
from PIL import Image

from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.data.formats.layout import Splits
from pyrafuse.data.images.of_records import LoadingError, read_record
from pyrafuse.data.loading.tiling import tile_splits


@pytest.fixture
def splits(tmp_path):
    """An image of 160 x 100 px, and one of 64 x 64 px without objects."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    boxes = np.array(
        [
            [10, 10, 30, 30],  # in the first tile alone
            [90, 40, 110, 60],  # 10 px of its 20 px lie in the second column of tiles: 96..160
            [0, 0, 160, 100],  # no tile shows half of it
            [50, 0, 60, 10],  # a crowd
        ],
        np.float32,
    )
    crowd = np.array([False, False, False, True])
    large = ImageRecord(
        tmp_path / "large.png", 7, 160, 100, boxes, np.arange(4), crowd, np.array([300, 400, 16000, 100], np.float32)
    )
    none = np.zeros(0, np.int64)
    small = ImageRecord(
        tmp_path / "small.png", 8, 64, 64, np.zeros((0, 4), np.float32), none, none > 0, none.astype(np.float32)
    )
    data = DetectionData((large, small), tuple("abcd"), (1, 2, 3, 4), "coco", "train")
    return Splits(data, data, "coco", "", ())


def test_tiles_hold_their_objects_and_pixels(splits):
    tiles = tile_splits(splits, tile=64, overlap=0.0)
    records = tiles.splits.train.records
    # columns at 0, 48 and 96, rows at 0 and 36; the small image as it is
    assert [record.image_id for record in records] == ["7@0,0", "7@48,0", "7@96,0", "7@0,36", "7@48,36", "7@96,36", 8]
    assert tiles.num_hidden == 1
    whole = np.asarray(Image.open(records[0].path))
    for record, left, top in zip(records, (0, 48, 96) * 2, (0,) * 3 + (36,) * 3, strict=False):
        assert (record.width, record.height) == (64, 64)
        assert np.array_equal(read_record(record), whole[top : top + 64, left : left + 64])
    first, corner = records[0], records[5]
    assert first.boxes.tolist() == [[10, 10, 30, 30], [0, 0, 64, 64], [50, 0, 60, 10]]
    assert (first.labels.tolist(), first.crowd.tolist()) == ([0, 2, 3], [False, True, True])
    np.testing.assert_allclose(first.areas, [300, 64 * 64, 100])
    assert corner.boxes.tolist() == [[0, 4, 14, 24], [0, 0, 64, 64]]  # 14 of 20 px
    assert (corner.labels.tolist(), corner.crowd.tolist()) == ([1, 2], [False, True])
    np.testing.assert_allclose(corner.areas, [280, 64 * 64])


def test_without_a_tile_all_is_as_it_was(splits):
    assert tile_splits(splits, tile=None, overlap=0.2).splits is splits
    assert tile_splits(splits, tile=160, overlap=0.2).splits.train == splits.train


def test_a_file_of_another_size_is_refused(splits):
    record = tile_splits(splits, tile=64, overlap=0.0).splits.train.records[0]
    Image.new("RGB", (170, 100)).save(record.path)
    with pytest.raises(LoadingError, match="has 170 x 100 pixels, its annotation says 160 x 100"):
        read_record(record)
