"""`pyrafuse import`: what it writes, and what it refuses."""

import os
import subprocess
import sys

import pytest
import torch

import pyrafuse
from pyrafuse.cli.main import main
from pyrafuse.importers.asff import LAYOUTS, MOBILE_ANCHORS, _reorder, asff_naming
from pyrafuse.importers.origins import ASFF, ORIGINS, TORCHVISION
from pyrafuse.importers.registry import IMPORTERS
from pyrafuse.importers.torchvision.families import FAMILIES
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model

MOBILE = {
    "backbone": {"name": "mobilenet_v2", "classifier_conv": True},
    "necks": {
        "yolo_fpn": {"activation": "relu6", "widen": (False, False, False)},
        "asff": {"activation": "relu6"},
    },
    "head": {"anchors": MOBILE_ANCHORS, "adaption": False},
}


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return create_model("yolov3_asff", num_classes=3, **MOBILE).eval()


@pytest.fixture(scope="module")
def state(detector):
    """The detector as its authors' code would have saved it."""
    naming = asff_naming(LAYOUTS[True, True])
    return {naming(key): _reorder(key, value) for key, value in detector.state_dict().items()}


@pytest.fixture
def official(state, tmp_path):
    torch.save(state, tmp_path / "official.pth")
    return tmp_path / "official.pth"


def test_the_weights_arrive(detector, official, tmp_path, capsys):
    out = tmp_path / "new" / "ours.ckpt"
    assert main(["import", str(official), "--output", str(out), "--names", "cat, dog,hen"]) == 0
    said = capsys.readouterr().out
    assert "YOLOv3 with ASFF on MobileNetV2, 3 classes" in said
    assert "classes    3: cat, dog, hen\n" in said
    assert "input 416 x 416 px (stretch)" in said
    assert f"pyrafuse predict {out} images/" in said
    ours = pyrafuse.load(out)
    assert ours.names == ("cat", "dog", "hen")
    for (name, got), expected in zip(ours.state_dict().items(), detector.state_dict().values(), strict=True):
        assert torch.equal(got, expected), name


def test_names_from_a_file(official, tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\nhen, small\n\n")
    assert main(["import", str(official), "-o", str(tmp_path / "a"), "--names", str(tmp_path / "names.txt")]) == 0
    assert pyrafuse.load(tmp_path / "a").names == ("cat", "dog", "hen, small")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("cat,dog", "the checkpoint has 3 classes, and 2 names are given"),
        ("cat,,dog", "name 2 of 'cat,,dog' is empty"),
        ("cat,dog,cat", "cat comes more than once"),
    ],
)
def test_names_that_do_not_fit(official, tmp_path, capsys, names, said):
    assert main(["import", str(official), "-o", str(tmp_path / "a"), "--names", names]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_nothing_is_overwritten_without_force(official, tmp_path, capsys):
    out = tmp_path / "a.ckpt"
    out.write_text("precious")
    assert main(["import", str(official), "-o", str(out)]) == 2
    assert "a.ckpt exists; choose another output, or replace it with --force" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert main(["import", str(official), "-o", str(out), "--force"]) == 0
    assert len(pyrafuse.load(out).names) == 3
    assert main(["import", str(official), "-o", str(official), "--force"]) == 2
    assert "is the file that is read" in capsys.readouterr().err
    assert main(["import", str(official), "-o", str(tmp_path)]) == 2
    assert "is a folder; name a file in it" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["a.pth"], ["-o", "b.ckpt"]])
def test_words_that_are_missing(words, capsys):
    assert main(["import", *words]) == 2
    assert "import needs FILE and -o OUT: pyrafuse import" in capsys.readouterr().err


def test_our_own_needs_no_import(detector, tmp_path, capsys):
    save(detector, tmp_path / "a.ckpt")
    assert main(["import", str(tmp_path / "a.ckpt"), "-o", str(tmp_path / "b.ckpt")]) == 2
    assert "is a checkpoint of pyrafuse already" in capsys.readouterr().err


def test_an_unknown_layout(tmp_path, capsys):
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "a.pth")
    assert main(["import", str(tmp_path / "a.pth"), "-o", str(tmp_path / "b.ckpt")]) == 2
    said = capsys.readouterr().err
    assert "found keys a.weight" in said
    assert "official ASFF" in said
    assert "nonsense" not in said
    assert main(["import", str(tmp_path / "a.pth"), "-o", str(tmp_path / "b.ckpt"), "--as", "nonsense"]) == 2
    assert "the name 'nonsense' does not tell it either: names are such as" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("level_1_header.guide_wh.bias"), "missing: level_1_header.guide_wh.bias"),
        (lambda s: s.update({"level_9.bias": torch.zeros(1)}), "extra: level_9.bias"),
        (
            lambda s: s.update({"level_0_conv.weight_levels.weight": torch.zeros(3, 7, 1, 1)}),
            "level_0_conv.weight_levels.weight is (3, 7, 1, 1), needs (3, 48, 1, 1)",
        ),
        (
            lambda s: s.update({"level_2_header.conv.weight": torch.zeros(4 * 8 + 1, 128, 1, 1)}),
            "level_2_header.conv.weight is (33, 128, 1, 1), needs (32, 256, 1, 1)",
        ),
        (lambda s: s.update({"level_2_header.conv.weight": torch.zeros(32)}), "level_2_header.conv.weight is (32,)"),
    ],
)
def test_what_does_not_fit_is_named(state, tmp_path, capsys, change, said):
    state = dict(state)
    change(state)
    torch.save(state, tmp_path / "a.pth")
    assert main(["import", str(tmp_path / "a.pth"), "-o", str(tmp_path / "b.ckpt")]) == 2
    assert said in capsys.readouterr().err


class Code:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_is_refused_and_not_executed(state, tmp_path, capsys, is_zip):
    content = {"state_dict": state, "hook": Code(tmp_path / "proof")}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    assert main(["import", str(tmp_path / "a.pth"), "-o", str(tmp_path / "b.ckpt")]) == 2
    assert "posix.mkdir. Nothing was executed" in capsys.readouterr().err
    assert not (tmp_path / "proof").exists()
    assert not (tmp_path / "b.ckpt").exists()


def test_the_list_does_not_wait_for_torch():
    code = (
        "import sys; from pyrafuse.cli.main import main; main(['import', '--list']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("official ASFF (arXiv:1911.09516)\n  YOLOv3 baseline on Darknet-53\n")
    assert [line for line in done.stdout.splitlines() if not line.startswith(" ")] == [o.name for o in ORIGINS]


def test_the_list_is_what_the_importers_read():
    assert tuple(importer.origin for importer in IMPORTERS) == ORIGINS
    assert {layout.name for layout in LAYOUTS.values()} < set(ASFF.layouts)
    assert tuple(FAMILIES) == TORCHVISION.layouts
