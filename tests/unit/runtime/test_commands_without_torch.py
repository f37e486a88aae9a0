"""Commands in a process where torch cannot be imported."""

import json
import re
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image

from pyrafuse.base.exported import Interface

WHITE = np.full((128, 96, 3), 255, np.uint8)

WITHOUT_TORCH = """
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refusal())
from pyrafuse.cli.main import main

sys.exit(main(sys.argv[1:]))
"""


def run_without_torch(*words, cwd=None):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, words)], capture_output=True, text=True, check=False, cwd=cwd
    )


def test_the_command_predicts_where_torch_cannot_be_imported(write, tmp_path):
    Image.fromarray(WHITE).save(tmp_path / "photo.png")
    done = run_without_torch(
        "predict", write(Interface(input="fitted")), tmp_path / "photo.png", "--output", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 objects in 1 image, written to")
    (image,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert [(o["name"], round(o["score"], 3)) for o in image["objects"]] == [
        ("cat", 0.9), ("cat", 0.8), ("dog", 0.7), ("dog", 0.3),
    ]  # fmt: skip


def test_exported_files_are_timed_where_torch_cannot_be_imported(write, tmp_path):
    file = write(Interface(input="fitted"))
    told, picture = tmp_path / "told.json", tmp_path / "told.png"
    done = run_without_torch("bench", file, "--rounds", "2", "--batch", "3", "--json", told, "--picture", picture)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2].split()[:2] == [str(file), "onnx"]
    (figures,) = json.loads(told.read_text())["figures"]
    assert (figures["name"], figures["backend"], figures["peak_share"], figures["parts_ms"]) == (
        str(file), "onnx", None, {},
    )  # fmt: skip
    assert figures["images_per_second"] == pytest.approx(3000 / figures["latency_ms"])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_exported_files_are_served_where_torch_cannot_be_imported(write, tmp_path):
    Image.fromarray(WHITE).save(tmp_path / "photo.png")
    words = [sys.executable, "-c", WITHOUT_TORCH, "serve", write(Interface(input="fitted")), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        address = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline()).group()
        request = urllib.request.Request(
            f"{address}/predict?score=0.75", (tmp_path / "photo.png").read_bytes(), {"Content-Type": "image/png"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            objects = json.load(answer)["objects"]
        server.terminate()
        told, complaint = server.communicate(timeout=20)
    assert [(o["name"], round(o["score"], 3)) for o in objects] == [("cat", 0.9), ("cat", 0.8)]
    assert (server.returncode, told, complaint) == (0, "ended; 1 image answered\n", "")


@pytest.mark.parametrize("words", [("models",), ("predict", "a.ckpt", "photo.png")])
def test_a_command_that_needs_torch_says_what_to_type(words, tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"x")
    Image.fromarray(WHITE).save(tmp_path / "photo.png")
    done = run_without_torch(*words, cwd=tmp_path)
    assert done.returncode == 2
    told = r'pyrafuse: this needs (torch|timm), which is not installed: pip install "pyrafuse\[train\]"(, in .+)?\n'
    assert re.fullmatch(told, done.stderr)


def test_a_public_name_that_needs_torch_says_what_to_type():
    code = (
        WITHOUT_TORCH.partition("from pyrafuse.cli")[0]
        + """
import pyrafuse
print(pyrafuse.runtime.load.__module__, pyrafuse.Detections.__name__)
try:
    pyrafuse.load
except ImportError as error:
    print(error)
"""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    first, second = done.stdout.splitlines()
    assert (done.stderr, first) == ("", "pyrafuse.runtime.loading Detections")
    assert second.startswith('this needs torch, which is not installed: pip install "pyrafuse[train]"')


def test_help_comes_without_torch():
    done = run_without_torch("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "predict" in done.stdout


def write_data(folder):
    """Two white images with a cat where the file finds one, and a dog where the file's second guess is."""
    folder.mkdir()
    images, objects = [], []
    for i in range(2):
        Image.fromarray(np.full((64, 64, 3), 255, np.uint8)).save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
        for category, (x1, y1, x2, y2) in ((3, (0, 0, 32, 32)), (5, (40, 40, 64, 64))):
            box = [x1, y1, x2 - x1, y2 - y1]
            objects.append(
                {"id": len(objects) + 1, "image_id": i, "category_id": category, "bbox": box, "iscrowd": 0,
                 "area": box[2] * box[3]}
            )  # fmt: skip
    categories = [{"id": 5, "name": "dog"}, {"id": 3, "name": "cat"}]
    (folder / "instances_val.json").write_text(
        json.dumps({"images": images, "annotations": objects, "categories": categories})
    )


@pytest.mark.parametrize("interface", [Interface(input="fitted"), Interface(size=(64, 64)), Interface(batch=3)])
def test_the_command_evaluates(write, tmp_path, interface):
    write_data(tmp_path / "data")
    file = write(interface)
    done = run_without_torch("evaluate", file, "data/instances_val.json", "--output", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    # both cats come first; two wrong dogs before two right ones: precision 1/3 and 2/4, so 1/2 at every recall
    assert {c["name"]: round(c["ap"], 3) for c in result["classes"]} == {"cat": 1.0, "dog": 0.5}
    assert round(result["ap"], 3) == 0.75
    rows = json.loads((tmp_path / "out" / "coco_results.json").read_text())
    assert [(r["image_id"], r["category_id"]) for r in rows] == [(i, c) for i in (0, 1) for c in (3, 3, 5, 5)]
    assert rows[3]["bbox"] == [40, 40, 24, 24]
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_an_image_that_is_damaged_ends_an_evaluation(write, tmp_path):
    write_data(tmp_path / "data")
    whole = (tmp_path / "data" / "1.png").read_bytes()
    (tmp_path / "data" / "1.png").write_bytes(whole[:-30])  # its header can be read
    file = write(Interface(input="fitted"))
    done = run_without_torch("evaluate", file, "data/instances_val.json", "--output", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "1.png is damaged or cannot be read" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "does not say what it was trained on; give the data: pyrafuse evaluate"),
        (("data", "--device", "gpu"), "is exported and runs on the processor: leave --device gpu out"),
        (("data", "--optimize"), "is exported, and computes as it was exported: leave --optimize out"),
        (("data", "--size", "96"), "computes at 64 x 64 pixels alone, not at 96 x 96: leave size out"),
        (("data", "--score", "0.0001"), "score 0.0001 is below 0.001, the least that"),
        (("data", "--nms_iou", "0.9"), "suppresses by itself, with nms_iou 0.5: leave nms_iou out"),
    ],
)
def test_what_an_evaluation_of_a_file_cannot_do_is_one_sentence(write, tmp_path, words, told):
    write_data(tmp_path / "data")
    done = run_without_torch("evaluate", write(Interface(size=(64, 64))), *words, "--output", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_results_are_judged_and_compared_with_an_exported_file(write, tmp_path):
    write_data(tmp_path / "data")
    data = "data/instances_val.json"
    cats = [{"image_id": i, "category_id": 3, "bbox": [0, 0, 32, 32], "score": 0.9} for i in range(2)]
    (tmp_path / "cats.json").write_text(json.dumps(cats))
    judged = run_without_torch("evaluate", data, "--results", "cats.json", "--page", "page.html", cwd=tmp_path)
    assert judged.returncode == 0, judged.stderr
    assert "Mending objects that are missed would bring most: AP from 0.500 to 1.000 (+0.500)." in judged.stdout
    assert "Why it fails" in (tmp_path / "page.html").read_text()
    compared = run_without_torch(
        "diff", write(Interface(input="fitted")), "cats.json", data, "--score", "0.25", cwd=tmp_path
    )
    assert compared.returncode == 0, compared.stderr
    # the file finds both cats and, below them, both dogs
    assert "Of 4 objects both find 2, A alone 2, B alone 0, and neither 0" in compared.stdout
