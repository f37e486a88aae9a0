"""Images in ImageNet's layout, and how a classifier sees them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from pyrafuse.base.errors import DataError
from pyrafuse.data.augment.cropping import CenterCrop
from pyrafuse.data.reading.class_folders import read_class_folders


def lay_out(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name, format="png")
    return root


def labels(root, num_classes):
    return {image.path.relative_to(root).as_posix(): image.label for image in read_class_folders(root, num_classes)}


class TestLabels:
    def test_ids_of_imagenet_though_some_be_missing(self, tmp_path):
        lay_out(tmp_path, "n15075141/a.JPEG", "n01440764/b.jpg", "n01443537/deep/c.png")
        found = labels(tmp_path, 1000)
        assert found == {"n01440764/b.jpg": 0, "n01443537/deep/c.png": 1, "n15075141/a.JPEG": 999}

    def test_numbers(self, tmp_path):
        assert labels(lay_out(tmp_path, "10/a.jpg", "2/b.jpg"), 11) == {"10/a.jpg": 10, "2/b.jpg": 2}

    def test_names_by_rank(self, tmp_path):
        lay_out(tmp_path, "dog/a.jpg", "cat/b.jpg", ".hidden/c.jpg", "dog/notes.csv")
        assert labels(tmp_path, 2) == {"cat/b.jpg": 0, "dog/a.jpg": 1}

    @pytest.mark.parametrize(
        ("names", "num_classes", "message"),
        [
            (["dog/a.jpg", "cat/b.jpg"], 1000, "2 class folders, and the classifier tells 1000 classes"),
            (["3/a.jpg"], 3, "has class 3, and the classifier tells 3"),
            (["a.jpg"], 3, "holds no folders"),
            (["0/a.csv"], 3, "no images in the folders"),
        ],
    )
    def test_what_does_not_fit(self, tmp_path, names, num_classes, message):
        with pytest.raises(DataError, match=message):
            read_class_folders(lay_out(tmp_path, *names), num_classes)

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(DataError, match="no such folder"):
            read_class_folders(tmp_path / "none", 10)


class TestCrop:
    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    @pytest.mark.parametrize(("height", "width"), [(40, 61), (61, 40), (33, 33), (20, 21)])
    def test_equals_torchvision(self, interpolation, height, width):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        crop = CenterCrop(size_px=25, resize_px=32, interpolation=interpolation)
        theirs = v2.Compose(
            [v2.Resize(32, interpolation=v2.InterpolationMode(interpolation)), v2.CenterCrop(25), v2.PILToTensor()]
        )
        assert torch.equal(crop.crop(pixels), theirs(Image.fromarray(pixels)))

    def test_normalize(self):
        crop = CenterCrop(mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
        images = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
        assert crop.normalize(images).flatten().tolist() == [1, 1, 0]

    def test_in_words(self):
        assert str(CenterCrop()) == (
            "shorter side to 256 px (bilinear), middle 224 x 224 px, mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225"
        )

    @pytest.mark.parametrize(("size", "resize"), [(33, 32), (0, 32)])
    def test_impossible(self, size, resize):
        with pytest.raises(ValueError, match=f"a crop of {size} px does not fit into {resize} px"):
            CenterCrop(size_px=size, resize_px=resize)
