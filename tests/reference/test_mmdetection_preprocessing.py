"""Images fitted and normalised as mmdetection does, against what it made of one."""

import numpy as np
import pytest
import torch

from pyrafuse.base.images.fitting import compute_padded_size
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.images.fitting import fit_image, resize_to_fit
from vectors import FOLDER

RGB = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
CAFFE = {"mean": (123.675, 116.28, 103.53), "std": (1, 1, 1), "bgr": True}
FCOS = {"mean": (122.7717, 115.9465, 102.9801), "std": (1, 1, 1), "bgr": True}
YOLO = {"mean": (0, 0, 0), "std": (255, 255, 255)}
NETWORKS = {
    "torchvision_rgb": RGB,
    "caffe_bgr": CAFFE,
    "fcos_bgr": FCOS,
    "yolov3": YOLO,
    "nasfpn128": {**RGB, "pad_multiple": 128},
}


@pytest.fixture(scope="module")
def arrays():
    return np.load(FOLDER / "mmdet/preproc.npz")


@pytest.fixture(scope="module")
def image(arrays):
    return np.ascontiguousarray(arrays["img_bgr"][..., ::-1])


def create(limits=(160, 96), *, mean=(0, 0, 0), std=(255, 255, 255), **more):
    of_one = {"mean": tuple(m / 255 for m in mean), "std": tuple(s / 255 for s in std)}
    return Preprocessing(size=limits, fit="keep_ratio", interpolation="opencv", **of_one, **more)


@pytest.mark.parametrize("limits", [(160, 96), (64, 48), (1333, 80), (61, 61)])
def test_resized_images(arrays, image, limits):
    name = f"keep{limits[0]}x{limits[1]}"
    for size in (limits, limits[::-1]):
        preprocessing = create(size)
        expected = arrays[f"{name}.img"][..., ::-1]
        got = resize_to_fit(image, preprocessing)
        assert got.shape == expected.shape
        assert abs(got.astype(int) - expected).max() == 0
        _, fit = fit_image(image, preprocessing)
        assert (fit.scale_x, fit.scale_y) == pytest.approx(tuple(arrays[f"{name}.scale_factor"]))
        assert fit.size == expected.shape[:2]


@pytest.mark.parametrize("name", NETWORKS)
def test_network_inputs(arrays, image, name):
    preprocessing = create(**NETWORKS[name])
    pixels, fit = fit_image(image, preprocessing)
    got = normalize(preprocessing, pixels[None], [fit.size])
    assert tuple(got.shape) == tuple(arrays[f"{name}.input.shape"])
    assert tuple(got.shape[2:]) == compute_padded_size(*image.shape[:2], preprocessing)
    sub = got.flatten()[:: int(arrays[f"{name}.input.stride"])]
    mean, std, low, high = arrays[f"{name}.input.stats"]
    torch.testing.assert_close(sub, torch.from_numpy(arrays[f"{name}.input.sub"]), atol=1e-6 * std, rtol=1e-6)
    assert got.double().mean().item() == pytest.approx(mean, abs=1e-5 * std)
    assert got.double().std(correction=0).item() == pytest.approx(std, rel=1e-5)
    assert (got.min().item(), got.max().item()) == pytest.approx((low, high), rel=1e-5)
    assert (got[..., fit.size[0] :, :] == 0).all()
    assert (got[..., fit.size[1] :] == 0).all()
