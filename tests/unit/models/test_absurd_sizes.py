"""A description of absurd size fails by its part's name, before memory is taken for it."""

import pytest
import torch

from pyrafuse.base.card import CARD_KEY
from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.importers.loading import load
from pyrafuse.models import uninitialized
from pyrafuse.models.building import build, build_without_weights
from pyrafuse.models.checkpoint import BEYOND, save
from pyrafuse.models.describing import describe, read_file, write_yaml
from pyrafuse.models.uninitialized import Bounded


def small(**changes):
    return describe("yolov3_small", num_classes=1, backbone={"width": 0.25}, **changes)


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("atss", {"neck": {"out_channels": 10**9}}, "out_channels of the neck fpn holds 1000000000"),
        ("atss", {"neck": {"num_levels": 10**9}}, "num_levels of the neck fpn holds 1000000000"),
        ("atss", {"neck": {"num_levels": 99_999}}, "num_levels=99999 is more than the 16 of a pyramid"),
        ("atss", {"head": {"num_convs": 10**9}}, "num_convs of the head atss holds 1000000000"),
        ("retinanet", {"head": {"scales_per_octave": 10**9}}, "scales_per_octave of the head retinanet holds"),
        ("efficientdet_d0", {"neck": {"repeats": 10**9}}, "repeats of the neck bifpn holds"),
        ("retinanet_nas_fpn", {"neck": {"stack": 50_000}}, "run 50,000 times are more than the 10,000 of a graph"),
        ("yolov3", {"backbone": {"depths": (1, 10**400, 8, 8, 4)}}, "depths of the backbone darknet53 holds 100000"),
        ("yolov3", {"postprocess": {"max_detections": 10**9}}, "max_detections of the selection"),
        ("atss", {"num_classes": 10**9}, "num_classes must be a whole number, 1 to 100,000, got 1000000000"),
        ("atss", {"neck": {"out_channels": 100_000}}, "cannot build the neck fpn: the detector would have more than"),
    ],
)
def test_options_are_bounded(name, changes, told):
    with pytest.raises(PyrafuseError) as caught:
        build_without_weights(describe(name, **changes))
    assert told in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_is_made_is_counted_before_it_is_there():
    with Bounded(100):
        torch.empty(10, 9)
        torch.zeros((5, 2))
        with pytest.raises(MemoryError, match="more than 100 values"):
            torch.empty(2**60)


def test_many_small_parts_are_too_many(monkeypatch):
    monkeypatch.setattr(uninitialized, "MOST_TENSORS", 30)
    with pytest.raises(PyrafuseError, match=r"cannot build the backbone mobilenet_v2: .* or 30 tensors"):
        build_without_weights(small())


def test_a_card_describes_no_more_than_its_file_stores(tmp_path):
    path = tmp_path / "a.ckpt"
    save(build(small()), path)
    stored = torch.load(path, weights_only=True)
    stored[CARD_KEY]["card"]["spec"]["backbone"]["width"] = 60.0
    torch.save(stored, path)
    with pytest.raises(CheckpointError, match=r"a\.ckpt needs a part that cannot be built: .* more than [\d,]+ values"):
        load(path)
    values = sum(value.numel() for value in stored["state_dict"].values())
    assert 2 * values + BEYOND < 100_000_000


def test_descriptions_in_files_are_bounded_too(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(write_yaml(small()).replace("num_classes: 1", "num_classes: 1000000000"))
    with pytest.raises(PyrafuseError, match=r"a\.yaml: num_classes must be a whole number, 1 to 100,000"):
        read_file(str(path))
    path.write_text("- 10\n" * 800_001)
    with pytest.raises(PyrafuseError, match=r"a\.yaml: [\d,]+ letters, more than the 4,000,000 of YAML"):
        read_file(str(path))
