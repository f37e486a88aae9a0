"""Two processes into one place: the second one is refused before it changes anything."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyrafuse.base.card import Card
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.locking import LOCK_FILE, hold_beside, hold_folder, is_held
from pyrafuse.comparison.comparing import compare
from pyrafuse.comparison.planning import Comparison, Variant
from pyrafuse.data.formats.layout import read_all
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.data.writing.converting import plan, write
from pyrafuse.explain.writing import explain_to
from pyrafuse.export.exporting import _give_names, _hidden
from pyrafuse.inference.predicting import predict_to
from pyrafuse.recipes.small import small
from whole_files import contents

IN_USE = "is in use: another process writes its results there; wait until it ends, or choose another --output"


class NeverAsked:
    """A detector that must not be asked."""

    card = Card(names=("cell",))

    def predict_frames(self, frames, **_):
        raise AssertionError


def test_predictions(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    with hold_folder(tmp_path / "out"), pytest.raises(PyrafuseError, match=f"out {IN_USE}"):
        predict_to(NeverAsked(), tmp_path / "a.png", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_explanations(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    with hold_folder(tmp_path / "out"), pytest.raises(PyrafuseError, match=f"out {IN_USE}"):
        explain_to(NeverAsked(), tmp_path / "a.png", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_comparisons(tmp_path):
    asked = Comparison(variants=(Variant("base", small()),), data={"cells": "shapes:train=1,val=1,size=32"}, seeds=(0,))
    with hold_folder(tmp_path / "out"), pytest.raises(PyrafuseError, match=f"out {IN_USE}"):
        compare(asked, tmp_path / "out", slots=())
    assert not (tmp_path / "out").exists()


def test_data_sets(tmp_path):
    write_shapes(tmp_path / "shapes", num_train=1, num_val=1, size=32)
    planned = plan(read_all(tmp_path / "shapes"), "yolo", allow_loss=True)
    with hold_beside(tmp_path / "out") as made:
        (made / "half").touch()
        with pytest.raises(PyrafuseError, match=f"out {IN_USE}"):
            write(planned, tmp_path / "out")
        assert (made / "half").exists()
    assert not (tmp_path / "out").exists()
    write(planned, tmp_path / "out")
    assert [len(reading.data) for reading in read_all(tmp_path / "out")] == [1, 1]


def test_exports(tmp_path):
    with hold_beside(tmp_path / "a.onnx") as made:
        with pytest.raises(PyrafuseError, match=f"a.onnx {IN_USE}"), _hidden(tmp_path / "a.onnx"):
            raise AssertionError
        assert made.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path):
    left = tmp_path / ".a.onnx.part"
    (left / "made").mkdir(parents=True)
    (left / "made/a.onnx").write_text("half")
    (left / LOCK_FILE).touch()
    with hold_beside(tmp_path / "a.onnx") as made:
        assert list(made.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_held_as_long_as_its_process(tmp_path):
    assert not is_held(tmp_path / "run")
    with hold_folder(tmp_path / "run"):
        assert is_held(tmp_path / "run")
    assert not is_held(tmp_path / "run")
    (tmp_path / LOCK_FILE).touch()  # of a killed process
    assert not is_held(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_folder", [True, False])
def test_no_moment_of_an_export_shows_a_mixture(tmp_path, monkeypatch, is_folder):
    """At each renaming the process might be killed: there is the earlier export, the new one, or none."""
    path = tmp_path / ("page" if is_folder else "a.xml")

    def make(folder: Path, value: str) -> Path:
        folder.mkdir()
        inner = folder / path.name if is_folder else folder
        inner.mkdir(exist_ok=True)
        for name in ("a.bin", "a.xml"):
            (inner / name).write_text(value)
        return folder

    def seen() -> dict[str, bytes]:
        found = contents(path) if is_folder else {p.name: p.read_bytes() for p in tmp_path.glob("a.*")}
        return found if path.exists() else {}

    _give_names(make(tmp_path / ".first", "old"), path)
    states = []
    for name in ("replace", "mkdir"):
        change = getattr(shutil.os, name)
        monkeypatch.setattr(shutil.os, name, lambda *a, change=change, **o: (states.append(seen()), change(*a, **o))[1])
    folder = make(tmp_path / ".second", "new")
    states.clear()
    _give_names(folder, path)
    states.append(seen())
    old, new = ({"a.bin": value, "a.xml": value} for value in (b"old", b"new"))
    assert states[0] == old
    assert states[-1] == new
    assert all(state in (old, new, {}) for state in states)
    assert len(states) > 3
