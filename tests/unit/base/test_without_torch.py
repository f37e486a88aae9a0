"""Everything in base and runtime works in a process where torch cannot be imported."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base.detections import Detections
from pyrafuse.base.images.fitting import fit_image, resize
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.images import fitting

WITHOUT_TORCH = """
import importlib, json, sys
from pathlib import Path

REFUSED = {"torch", "torchvision", "lightning", "timm"}

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError(f"{name} is refused")

sys.meta_path.insert(0, Refusal())
source, output = map(Path, sys.argv[1:])
import pyrafuse
package = Path(pyrafuse.__file__).parent
rooms = ("base", "runtime", "inference/writers")
modules = [path for room in rooms for path in (package / room).rglob("*.py") if path.stem != "__init__"]
modules.append(package / "inference" / "predicting.py")
for path in modules:
    importlib.import_module(".".join(("pyrafuse", *path.relative_to(package).with_suffix("").parts)))

import numpy as np
from pyrafuse.base.detections import Detections
from pyrafuse.base.images.fitting import fit_image
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.images.sources import open_source
from pyrafuse.base.preprocessing import Preprocessing

(frame,) = open_source(str(source))
shapes = {}
for fit in ("stretch", "letterbox", "keep_ratio"):
    for interpolation in ("antialias", "bicubic", "opencv"):
        preprocessing = Preprocessing(size=(64, 64), fit=fit, interpolation=interpolation)
        fitted, laid = fit_image(frame.image, preprocessing)
        batch = np.moveaxis(fitted, -1, 0)[None]
        prepared = normalize(preprocessing, batch, [laid.size])
        point = laid.to_image(np.ones((1, 4), np.float32)).tolist()
        shapes[f"{fit} {interpolation}"] = [*prepared.shape, str(prepared.dtype), point]
found = Detections(
    np.array([[5, 5, 40, 30], [-9, -9, -1, -1]], np.float32), np.array([0.9, 0.4], np.float32), np.array([0, 1]),
    np.array([0, 2]), ("cat",), frame.image.shape[:2], "a.png", np.moveaxis(frame.image, -1, 0),
)
found.save(output / "a.jpg")
found.clip().save(output / "a.json")
found[np.array([True, False])].save(output / "a.txt")
print(json.dumps([
    len(modules), shapes, found.is_visible().tolist(), [part.shape for part in found.crop()], found.draw().shape,
    type(found.draw()).__name__, repr(found), len(found._repr_html_()) > 100, sorted(REFUSED & set(sys.modules)),
]))
"""


def test_images_are_read_fitted_normalized_and_drawn_where_torch_cannot_be_imported(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, tmp_path / "photo.png", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    num_modules, prepared, is_visible, crops, drawn, kind, text, has_html, loaded = json.loads(done.stdout)
    assert num_modules > 20
    for interpolation in ("antialias", "bicubic", "opencv"):
        assert prepared[f"stretch {interpolation}"] == [1, 3, 64, 64, "float32", [[1.5625, 0.78125, 1.5625, 0.78125]]]
        assert prepared[f"letterbox {interpolation}"] == [1, 3, 64, 64, "float32", [[1.5625] * 4]]
        assert prepared[f"keep_ratio {interpolation}"] == [1, 3, 32, 64, "float32", [[1.5625] * 4]]
    assert is_visible == [True, False]
    assert crops == [[3, 25, 35], [3, 1, 1]]
    assert (drawn, kind, text) == ([3, 50, 100], "ndarray", "<2 detections: 1 cat, 1 1 in a.png>")
    assert has_html
    assert loaded == []
    with Image.open(tmp_path / "a.jpg") as picture:
        assert picture.size == (100, 50)
    (kept,) = json.loads((tmp_path / "a.json").read_text())["objects"]
    assert (kept["name"], kept["box_xyxy"], kept["level"]) == ("cat", [5, 5, 40, 30], 0)
    assert (tmp_path / "a.txt").read_text() == "0 0.225000 0.350000 0.350000 0.500000 0.900000\n"


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("fit", ["stretch", "keep_ratio"])
def test_arrays_are_normalized_bit_for_bit_as_tensors_are(fit, bgr):
    preprocessing = Preprocessing(size=(32, 32), fit=fit, bgr=bgr)
    images = np.random.default_rng(1).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    ours = normalize(preprocessing, images, [(20, 32), (32, 7)])
    theirs = normalize(preprocessing, torch.from_numpy(images), [(20, 32), (32, 7)])
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("interpolation", ["antialias", "bicubic", "opencv"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox", "keep_ratio"])
def test_images_are_fitted_within_a_grey_level_of_what_torch_fits(fit, interpolation):
    image = np.array(
        Image.fromarray(np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)).resize((130, 90))
    )
    preprocessing = Preprocessing(size=(48, 64), fit=fit, interpolation=interpolation)
    ours, laid = fit_image(image, preprocessing)
    theirs, same = fitting.fit_image(image, preprocessing)
    assert laid == same
    differences = np.abs(np.moveaxis(ours, -1, 0).astype(int) - theirs.numpy())
    assert differences.max() <= (0 if interpolation == "opencv" else 1)


def test_pillow_is_what_resizes_without_torch():
    image = np.random.default_rng(3).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    expected = Image.fromarray(image).resize((7, 5), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize(image, 5, 7, "antialias"), np.array(expected))


def test_arrays_and_tensors_give_the_same_detections():
    boxes = np.array([[10.4, 5.5, 40.2, 30.1], [-9, -9, 2, 3], [60, 2, 90, 47]], np.float32)
    columns = (boxes, np.array([0.9, 0.8, 0.4], np.float32), np.array([0, 1, 0]), np.array([0, 2, 1]))
    image = np.random.default_rng(4).integers(0, 256, (3, 50, 80), dtype=np.uint8)
    rows = np.array([7, 3, 9])
    arrays = Detections(*columns, ("cat",), (50, 80), "a.png", image, rows)
    tensors = Detections(
        *map(torch.from_numpy, columns), ("cat",), (50, 80), "a.png", torch.from_numpy(image), torch.from_numpy(rows)
    )
    assert arrays.to_dict() == tensors.to_dict()
    assert arrays.clip().to_dict() == tensors.clip().to_dict()
    np.testing.assert_array_equal(arrays.draw(), tensors.draw().numpy())
    for ours, theirs in zip(arrays.crop(margin=0.1), tensors.crop(margin=0.1), strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())
    mask = np.array([True, False, True])
    assert arrays[mask].rows.tolist() == tensors[mask].rows.tolist() == [7, 9]
    assert len(tensors[np.zeros(3, bool)]) == len(arrays[np.zeros(3, bool)]) == 0
    assert isinstance(arrays.cpu()[1].boxes, np.ndarray)


def test_named_models_are_described_without_torch():
    code = (
        "import sys; from pyrafuse.models.registry import MODELS; "
        "print(MODELS.get('libra_rcnn')().stages[0].name, len(MODELS.names()) > 20, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "roi True False\n", "")
