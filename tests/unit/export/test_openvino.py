"""OpenVINO's files answer as torch does, where its own ONNX reader or its operations would not."""

import numpy as np
import openvino
import pytest
import torch
from torch import nn
from torch.export import Dim

from pyrafuse.base.card import Card
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.exported import METADATA_KEY, Interface, Precision, read_metadata, write_metadata
from pyrafuse.base.images.fitting import fit_image
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.export.exporting import _hidden
from pyrafuse.export.formats.openvino import _save
from pyrafuse.export.image_input import fit_in_graph
from pyrafuse.export.registry import FORMATS, Capture
from pyrafuse.heads.regions import pool_regions
from pyrafuse.layers.deformable import DeformableConv2d

SIZES = ((2, 24, 32), (1, 40, 16))


class Deformed(nn.Module):
    """Deformable convolutions of both versions on bytes of any size, moved by several cells."""

    def __init__(self) -> None:
        super().__init__()
        self.first = DeformableConv2d(3, 8, modulated=True)
        self.second = DeformableConv2d(8, 8, stride=2, groups=2, deformable_groups=4, modulated=False)
        for conv in (self.first, self.second):
            nn.init.normal_(conv.offset.weight, std=0.5)
            nn.init.normal_(conv.weight, std=0.3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(images.permute(0, 3, 1, 2).float() / 255))


BOXES = torch.tensor([[3.0, 2, 13, 12], [5, 5, 30, 23], [2, 2, 9, 2], [4, 1, 4, 20], [0, 0, 0, 0]])
LEVELS = torch.tensor([0, 1, 0, 1, 0])


class Pooled(nn.Module):
    """Cells of two boxes, one a level, and of three boxes without area."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.permute(0, 3, 1, 2).float()
        boxes, levels = BOXES.expand(x.shape[0], -1, -1), LEVELS.expand(x.shape[0], -1)
        return pool_regions((x, x), (1, 2), boxes, levels, resolution=3)


class Sorted(nn.Module):
    """Places of bytes in order, best first and last: few values, many places."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = images.flatten(1).long() // 16
        ways = ((rows.float(), True), (rows, False))
        return torch.stack([x.argsort(dim=1, descending=is_down, stable=True) for x, is_down in ways])


class Fitted(nn.Module):
    """Images of any size as the network's input."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return fit_in_graph(images, FITTED)[0]


FITTED = Preprocessing(size=(48, 64), fit="letterbox")


def make_capture(precision: Precision, module: nn.Module | None = None) -> Capture:
    torch.manual_seed(0)
    module = (module or Deformed()).eval()
    example = {"images": make_images(*SIZES[0])}
    free = {0: Dim("batch", max=64), 1: Dim("height", min=4, max=512), 2: Dim("width", min=4, max=512)}
    program = torch.export.export(module, (torch.from_numpy(example["images"]),), dynamic_shapes=(free,))
    interface = Interface(output="rows", precision=precision)
    metadata = write_metadata(Card(names=("kite", "kettle")), interface)
    return Capture(module, program, example, ("images",), ("output",), interface, metadata)


def make_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize(("precision", "most", "bits"), [("fp32", 1e-5, 32), ("fp16", 1e-2, 16)])
def test_deformable_convolutions_are_exact_for_every_batch_and_size(tmp_path, precision, most, bits):
    pytest.importorskip("openvino")
    capture = make_capture(precision)
    path = tmp_path / "deformed.xml"
    form = FORMATS.create("openvino")
    form.write(capture, path)
    run = form.open(path)
    for size in SIZES:
        images = make_images(*size)
        with torch.no_grad():
            expected = capture.graph(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(run({"images": images})["output"], expected, atol=most * np.abs(expected).max())
    num_weights = sum(weights.numel() for weights in capture.graph.parameters())
    assert (tmp_path / "deformed.bin").stat().st_size == pytest.approx(num_weights * bits / 8, rel=0.25)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["deformed.bin", "deformed.xml"]


def test_boxes_without_area_pool_zeros(tmp_path):
    pytest.importorskip("openvino")
    capture = make_capture("fp32", Pooled())
    form = FORMATS.create("openvino")
    form.write(capture, tmp_path / "pooled.xml")
    run = form.open(tmp_path / "pooled.xml")
    for size in SIZES:
        images = make_images(*size)
        found, expected = run({"images": images})["output"], capture.graph(torch.from_numpy(images)).numpy()
        assert (found[:, 2:] == 0).all()
        assert (expected[:, :2] > 10).all()
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_equal_values_stay_in_order(tmp_path):
    pytest.importorskip("openvino")
    form = FORMATS.create("openvino")
    form.write(make_capture("fp32", Sorted()), tmp_path / "sorted.xml")
    run = form.open(tmp_path / "sorted.xml")
    for size in SIZES:
        images = make_images(*size)
        rows = images.reshape(len(images), -1).astype(int) // 16
        expected = [np.argsort(keys, axis=1, kind="stable") for keys in (-rows, rows)]
        np.testing.assert_array_equal(run({"images": images})["output"], expected)


def test_images_are_resized_as_pillow_does_to_the_bit(tmp_path):
    pytest.importorskip("openvino")
    form = FORMATS.create("openvino")
    form.write(make_capture("fp32", Fitted()), tmp_path / "fitted.xml")
    run = form.open(tmp_path / "fitted.xml")
    for size in (*SIZES, (1, 480, 333), (1, 112, 512), (2, 61, 97)):
        images = make_images(*size)
        expected = np.stack([fit_image(image, FITTED)[0] for image in images]).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(run({"images": images})["output"], expected)


def test_its_file_says_what_it_is(tmp_path):
    openvino = pytest.importorskip("openvino")
    capture = make_capture("fp32")
    FORMATS.create("openvino").write(capture, tmp_path / "deformed.xml")
    text = openvino.Core().read_model(tmp_path / "deformed.xml").get_rt_info()[METADATA_KEY].astype(str)
    card, interface = read_metadata({METADATA_KEY: text}, source="deformed.xml")
    assert card.names == ("kite", "kettle")
    assert interface == capture.interface


def test_a_missing_library_is_told_with_the_line_to_type(monkeypatch):
    monkeypatch.setattr("pyrafuse.export.registry.find_spec", lambda name: None if name == "openvino" else object())
    with pytest.raises(PyrafuseError, match=r'needs openvino, which is not installed; type pip install "pyrafuse\[exp'):
        FORMATS.create("openvino").require("fp32")


def test_a_file_that_is_written_in_part_is_an_error_of_the_disk(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(openvino, "save_model", fail)
    with (
        pytest.raises(PyrafuseError, match=r"cannot write .*a\.xml: .*iostream error.*; free space"),
        _hidden(tmp_path / "a.xml") as place,
    ):
        _save(None, place)
    assert not list(tmp_path.iterdir())
