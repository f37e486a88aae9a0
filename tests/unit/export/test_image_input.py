import numpy as np
import pytest
import torch

from pyrafuse.base.images.fitting import fit_image
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.export.image_input import fit_in_graph, resize_rows


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("interpolation", ["antialias", "bicubic", "opencv"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("shape", [(61, 97), (30, 40), (64, 96), (128, 192), (200, 33), (1300, 1777)])
def test_pixels_are_those_of_the_eager_path(shape, fit, interpolation):
    preprocessing = Preprocessing(size=(64, 96), fit=fit, interpolation=interpolation)
    image = noise(*shape)
    expected, laid = fit_image(image, preprocessing)
    found, inner, own = fit_in_graph(torch.from_numpy(image)[None], preprocessing)
    assert (tuple(inner.tolist()), tuple(own.tolist())) == (laid.size, shape)
    off = (found[0] - torch.from_numpy(expected).permute(2, 0, 1)).abs()
    if interpolation == "opencv" and shape != (64, 96):  # OpenCV rounds its weights
        assert off.max() <= 2
        assert (off > 0).float().mean() < 0.2
    else:
        assert off.max() == 0


def test_rows_by_hand():
    # four rows become two: each is the mean of its own two and, by a third as much, of their neighbours
    rows = torch.tensor([16.0, 80, 160, 240]).view(1, 1, 4, 1)
    four, two = torch.tensor(4), torch.tensor(2)
    halved = resize_rows(rows, four, two, 3, "antialias").flatten()
    assert halved.tolist() == [64, 183, 0]  # (3 * 16 + 3 * 80 + 160) / 7, (80 + 3 * 160 + 3 * 240) / 7 = 182.9
    assert resize_rows(rows, four, two, 2, "opencv").flatten().tolist() == [48, 200]


def test_a_batch_is_fitted_as_each_image():
    preprocessing = Preprocessing(size=(64, 96), fit="letterbox")
    images = torch.from_numpy(np.stack((noise(50, 70), noise(51, 70)[:50])))
    both, _, _ = fit_in_graph(images, preprocessing)
    for image, fitted in zip(images, both, strict=True):
        torch.testing.assert_close(fit_in_graph(image[None], preprocessing)[0][0], fitted, rtol=0, atol=0)


def test_the_size_of_keep_ratio_follows_the_image():
    with pytest.raises(ValueError, match="fit it before"):
        fit_in_graph(torch.zeros(1, 9, 9, 3, dtype=torch.uint8), Preprocessing(fit="keep_ratio"))
