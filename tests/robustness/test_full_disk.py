"""A disk that is full, or read-only, at every single step of whatever writes: one sentence, and nothing half."""

import errno
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faulty_disk import Disk
from pyrafuse.base.card import Card
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.locking import hold_folder
from pyrafuse.base.pictures import save_picture
from pyrafuse.base.writing import write_text
from pyrafuse.comparison.planning import Comparison, Settled, Variant, claim_folder, keep
from pyrafuse.core.storage import write_tensors
from pyrafuse.data.formats.layout import read_all
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.data.writing.converting import plan, write
from pyrafuse.export.exporting import _hidden
from pyrafuse.inference.predicting import predict_to
from pyrafuse.recipes.small import small
from pyrafuse.search.journal import open_journal
from pyrafuse.training.reporting import add_row
from whole_files import contents, find_faults, find_leftovers

SOURCE = Path("source")


class OneBox:
    """Finds the same box in every image."""

    card = Card(names=("cell",))

    def predict_frames(self, frames, **_):
        for frame in frames:
            boxes, image = np.array([[1.5, 2.0, 9.0, 9.5]], np.float32), frame.image.transpose(2, 0, 1).copy()
            yield Detections(
                boxes, np.ones(1, np.float32), *np.zeros((2, 1), np.int64), ("cell",), (20, 30), frame.name, image
            )


@pytest.fixture(autouse=True)
def source(tmp_path, monkeypatch):
    """Two images, the working folder beside them."""
    monkeypatch.chdir(tmp_path)
    (SOURCE / "inner").mkdir(parents=True)
    for number, name in enumerate(("a.png", "inner/b.png")):
        Image.fromarray(np.full((20, 30, 3), 50 + number, np.uint8)).save(SOURCE / name)


def text(out: Path, value: int) -> None:
    write_text(out / "a.json", f"[{value}]")


def checkpoint(out: Path, value: int) -> None:
    write_tensors(out / "last.ckpt", {"weights": torch.full((3,), value)})


def metrics(out: Path, value: int) -> None:
    add_row(out / "metrics.csv", 1, {"loss": value})


def picture(out: Path, value: int) -> None:
    save_picture(np.full((3, 8, 9), value, np.uint8), out / "a.png")


def predictions(out: Path, value: int) -> None:
    source = SOURCE / ("a.png" if value == 1 else "inner/b.png")
    predict_to(OneBox(), source, out, formats=("json", "coco", "yolo", "crop"))


def comparison(out: Path, value: int) -> None:
    asked = Comparison(variants=(Variant("base", small()),), data={"cells": "x"}, seeds=(0,))
    with hold_folder(out):
        claim_folder(out, asked)
        keep(out, asked, Settled({"cells": value}))


def shapes(out: Path, value: int) -> None:
    write_shapes(out / "shapes", num_train=1, num_val=1, size=32, seed=value)


def exported_pair(out: Path, value: int) -> None:
    with _hidden(out / "a.xml") as made:
        for path in (made, made.with_suffix(".bin")):
            path.write_text(str(value))


def exported_folder(out: Path, value: int) -> None:
    with _hidden(out / "page") as made:
        made.mkdir()
        for name in ("model.json", "page.html"):
            (made / name).write_text(f"[{value}]" if name == "model.json" else f"{value}</html>")


SLOW = pytest.param(predictions, marks=pytest.mark.slow)
WRITERS = [text, checkpoint, metrics, picture, SLOW, comparison, shapes, exported_pair, exported_folder]


def run_full(run: Callable[[], None], full_from: int, reason: int = errno.ENOSPC) -> str:
    """What an error says of a disk that is full from a step on; empty where nothing failed."""
    with Disk(full_from, reason).inserted():
        try:
            run()
        except PyrafuseError as error:
            return str(error)
    return ""


@pytest.mark.parametrize("write_out", WRITERS)
def test_a_disk_that_is_full_at_any_step(write_out, tmp_path):
    new = tmp_path / "new"
    write_out(new, 1)
    write_out(new, 2)
    old = tmp_path / "old"
    write_out(old, 1)
    known = {
        name: {found.get(name) for found in (contents(old), contents(new))} for name in contents(old) | contents(new)
    }
    for full_from in itertools.count(1):
        out = tmp_path / f"out-{full_from}"
        write_out(out, 1)
        told = run_full(lambda out=out: write_out(out, 2), full_from)
        assert find_leftovers(out) == []
        assert find_faults(out) == []
        found = contents(out)
        for name in found:
            content = found[name].replace(str(out.name).encode(), b"old")
            assert content in {c and c.replace(b"new", b"old") for c in known[name]}, (full_from, name)
        if not told:
            break
        assert re.search(r"^cannot write .*: No space left on device; free space or choose another place$", told)
        assert out.name in told
        write_out(out, 2)
        assert contents(out).keys() == contents(new).keys()
    assert full_from > 5
    if write_out is exported_pair:
        assert contents(new) == {"a.xml": b"2", "a.bin": b"2"}


@pytest.mark.parametrize("write_out", WRITERS)
def test_a_read_only_disk(write_out, tmp_path):
    told = run_full(lambda: write_out(tmp_path / "out", 1), 1, errno.EROFS)
    assert re.search(r"^cannot write .*out.*: Read-only file system; free space or choose another place$", told)
    assert not (tmp_path / "out").exists()


def test_a_data_set_is_written_whole_or_not_at_all(tmp_path):
    write_shapes(tmp_path / "shapes", num_train=2, num_val=1, size=32)
    planned = plan(read_all(tmp_path / "shapes"), "yolo", allow_loss=True)
    for full_from in itertools.count(1):
        told = run_full(lambda: write(planned, tmp_path / "out"), full_from)
        if not told:
            break
        assert re.search(r"^cannot write .*out: No space left on device; free space or choose another place$", told)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["shapes", "source"]
    assert full_from > 10
    assert [len(reading.data) for reading in read_all(tmp_path / "out")] == [2, 1]


def test_a_journal_keeps_whole_lines(tmp_path):
    values = {"source": "random", "answers": {}, "fingerprint": "f", "size": 64, "cost": {}}
    with open_journal(tmp_path / "s", {"seed": 0}) as opened:
        opened.begin(**values)
    whole = (tmp_path / "s/journal.jsonl").read_bytes()

    def go_on():
        with open_journal(tmp_path / "s", {"seed": 0}) as opened:
            opened.begin(**values)

    for full_from in itertools.count(1):
        if not (told := run_full(go_on, full_from)):
            break
        assert re.search(r"^cannot write .*: No space left on device; free space", told)
        assert (tmp_path / "s/journal.jsonl").read_bytes() == whole
        assert find_leftovers(tmp_path) == []
    assert full_from > 2
    assert (tmp_path / "s/journal.jsonl").read_bytes().startswith(whole)
