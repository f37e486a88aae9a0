import numpy as np
import pytest
import torch

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.images.fitting import fit_image
from pyrafuse.export.image_input import fit_in_graph, resizing_matrix


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("interpolation", ["antialias", "bicubic", "opencv"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("shape", [(61, 97), (30, 40), (64, 96), (200, 33)])
def test_pixels_are_those_of_the_eager_path(shape, fit, interpolation):
    preprocessing = Preprocessing(size=(64, 96), fit=fit, interpolation=interpolation)
    image = noise(*shape)
    expected, laid = fit_image(image, preprocessing)
    found, inner, own = fit_in_graph(torch.from_numpy(image)[None], preprocessing)
    assert (tuple(inner.tolist()), tuple(own.tolist())) == (laid.size, shape)
    off = (found[0] - expected).abs()
    assert off.max() <= 2
    assert (off > 0).float().mean() < (0.2 if interpolation == "opencv" else 0.02)  # OpenCV rounds its weights
    if shape == (64, 96):
        assert off.max() == 0


def test_weights_by_hand():
    # four pixels become two: each is the mean of its own two and, by a third as much, of their neighbours
    halved = resizing_matrix(torch.arange(4), torch.tensor(2), 3, "antialias")
    expected = torch.tensor([[0.75, 0.75, 0.25, 0], [0, 0.25, 0.75, 0.75], [0, 0, 0, 0]])
    torch.testing.assert_close(halved, expected / expected.sum(dim=1, keepdim=True).clamp(min=1))
    plain = resizing_matrix(torch.arange(4), torch.tensor(2), 2, "opencv")
    torch.testing.assert_close(plain, torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]))


def test_a_batch_is_fitted_as_each_image():
    preprocessing = Preprocessing(size=(64, 96), fit="letterbox")
    images = torch.from_numpy(np.stack((noise(50, 70), noise(51, 70)[:50])))
    both, _, _ = fit_in_graph(images, preprocessing)
    for image, fitted in zip(images, both, strict=True):
        torch.testing.assert_close(fit_in_graph(image[None], preprocessing)[0][0], fitted, rtol=0, atol=0)


def test_the_size_of_keep_ratio_follows_the_image():
    with pytest.raises(ValueError, match="fit it before"):
        fit_in_graph(torch.zeros(1, 9, 9, 3, dtype=torch.uint8), Preprocessing(fit="keep_ratio"))
