"""The wheel and the source archive, built and installed into an environment that holds nothing else."""

import email
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pyrafuse

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
BARE = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def run(*words: object, folder: Path) -> str:
    done = subprocess.run([*map(str, words)], cwd=folder, env=BARE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", place, folder=place)
    python = place / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "build", folder=place)
    return python


@pytest.fixture(scope="module")
def built(python, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    run(python, "-m", "build", "--outdir", folder, ROOT, folder=folder)  # the wheel is made of the source archive
    return folder


@pytest.mark.parametrize("suffix", [".whl", ".tar.gz"])
def test_what_is_built_installs_and_runs(python, built, tmp_path, suffix):
    (file,) = (path for path in built.iterdir() if path.name.endswith(suffix))
    run(python, "-m", "pip", "install", "--quiet", "--force-reinstall", file, folder=tmp_path)
    assert run(python, "-m", "pyrafuse", "--version", folder=tmp_path) == f"pyrafuse {pyrafuse.__version__}\n"
    assert "explain" in run(python.parent / "pyrafuse", "--help", folder=tmp_path)
    shown = run(python, "-c", "import pyrafuse; print(pyrafuse.__file__)", folder=tmp_path)
    assert shown.startswith(str(python.parents[1]))  # not this checkout


def test_the_wheel_tells_all_about_itself(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        about = email.message_from_bytes(archive.read(next(n for n in names if n.endswith("METADATA"))))
    assert (about["Name"], about["Version"], about["License-Expression"]) == ("pyrafuse", "0.1.0", "Apache-2.0")
    assert about.get_all("Project-URL")
    assert "Typing :: Typed" in about.get_all("Classifier", [])
    assert about["Description-Content-Type"] == "text/markdown"
    assert {"pyrafuse/py.typed", "pyrafuse/inference/costs.json", "pyrafuse/backbones/pretrained/mobilenet_v2.txt"} <= {
        *names
    }
    assert [name for name in names if not name.startswith(("pyrafuse/", "pyrafuse-0.1.0.dist-info/"))] == []


def test_the_source_archive_holds_what_is_built_from(built):
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "Makefile",
        "scripts/setup",
        "docs/index.md",
    } <= names
    assert not any(name.startswith((".venv", "runs/")) for name in names)
