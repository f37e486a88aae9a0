"""RoIAlign and the map from box to level, against mmcv's."""

import numpy as np
import pytest
import torch

from pyrafuse.heads.regions import choose_levels, pool_regions


@pytest.fixture(scope="module")
def golden(vectors):
    return vectors.npz("mmdet/ops.npz")


def test_levels(golden):
    boxes = torch.from_numpy(golden["roimap.rois"][:, 1:])
    levels = choose_levels(boxes, num_levels=4, finest_scale=56)
    assert levels.tolist() == golden["roimap.level"].tolist()


def test_cells(golden, vectors):
    rois = torch.from_numpy(golden["roi.rois"])
    x = vectors.image("image(91,(2,4,25,30))")
    for box, image, expected in zip(rois[:, 1:], rois[:, 0].long(), golden["roi_align_aligned1_sr0"], strict=True):
        cells = pool_regions((x[image : image + 1],), (4,), box[None, None], torch.zeros(1, 1, dtype=torch.int64))
        np.testing.assert_allclose(cells[0, 0], expected, atol=1e-6)
