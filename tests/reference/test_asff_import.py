"""`pyrafuse import` on files in the five official layouts."""

import subprocess
import sys
from pathlib import Path

import pytest

import pyrafuse
from pyrafuse.cli.main import main

LAYOUTS = [
    ("baseline", "YOLOv3 baseline on Darknet-53, {} classes"),
    ("asff", "YOLOv3 with ASFF on Darknet-53, {} classes"),
    ("asff_rfb", "YOLOv3 with ASFF on Darknet-53, RFB (ASFF*), {} classes"),
    ("mobile", "YOLOv3 on MobileNetV2, {} classes"),
    ("mobile_asff", "YOLOv3 with ASFF on MobileNetV2, {} classes"),
]


@pytest.mark.parametrize(("model", "said"), LAYOUTS)
@pytest.mark.parametrize("num_classes", [1, 80])
def test_each_layout_is_recognised(goldens, tmp_path, capsys, model, said, num_classes):
    wrapper = "state_dict" if num_classes == 1 else ""
    file = goldens.write_file(
        tmp_path / "a.pth", model, num_classes=num_classes, prefix="module.", wrapper=wrapper, is_zip=num_classes == 1
    )
    assert main(["import", str(file), "-o", str(tmp_path / "ours.ckpt")]) == 0
    out = capsys.readouterr().out
    assert f"found      official ASFF checkpoint: {said.format(num_classes)}\n" in out
    assert ("80: person, bicycle, car and 77 more" if num_classes == 80 else "1: the file does not name them") in out
    file.unlink()
    detector = pyrafuse.load(tmp_path / "ours.ckpt")
    assert detector.card.origin.endswith(said.format(num_classes))
    # an untouched zero nowhere: everything that was built uninitialised has been filled
    assert not any(bool(value.any()) for value in detector.state_dict().values())
    assert detector.head.get_buffer("shapes").shape == (3, 4, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own peak is read")
@pytest.mark.parametrize("is_zip", [True, False])
def test_memory_stays_below_three_times_the_file(goldens, tmp_path, is_zip):
    file = goldens.write_file(tmp_path / "a.pth", "asff", is_zip=is_zip)
    script = f"""
import re
from pathlib import Path
from pyrafuse.cli.main import main
import pyrafuse.importers.loading
def peak(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
before = peak("VmRSS")
main(["import", {str(file)!r}, "-o", {str(tmp_path / "ours.ckpt")!r}])
print("grown", peak("VmHWM") - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    grown = int(done.stdout.split("grown ")[1])
    size = Path(file).stat().st_size
    assert size < grown < 3 * size  # the model alone is as large as the file
