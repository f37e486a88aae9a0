"""Checkpoints of earlier versions: each loads, describes itself alike, and computes what it did."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.importers.loading import load
from pyrafuse.models.checkpoint import save

ARCHIVES = sorted((Path(__file__).parents[1] / "fixtures" / "checkpoints").glob("*.zip"))
ENTRIES = [
    pytest.param(path, name.removesuffix(".ckpt"), id=f"{path.stem}-{name.removesuffix('.ckpt')}")
    for path in ARCHIVES
    for name in zipfile.ZipFile(path).namelist()
    if name.endswith(".ckpt")
]


def test_there_are_some():
    assert len(ENTRIES) >= 26


@pytest.mark.parametrize(("archive", "name"), ENTRIES)
def test_a_stored_checkpoint_computes_what_it_did(archive, name, tmp_path):
    with zipfile.ZipFile(archive) as files:
        file = Path(files.extract(f"{name}.ckpt", tmp_path))
        expected = np.load(io.BytesIO(files.read(f"{name}.npz")))
    detector = load(file).eval()
    if name != "trained":
        assert detector.names == ("cat", "dog [old]")
        assert detector.card.category_ids == (1, 7)
        assert detector.card.origin == "made for a test"
        fit = detector.card.preprocessing.fit
        assert detector.card.preprocessing == Preprocessing(size=(64, 96), fit=fit)
    save(detector, tmp_path / "again.ckpt")
    for one in (detector, load(tmp_path / "again.ckpt").eval()):
        with torch.no_grad():
            candidates = one.decode(torch.from_numpy(expected["images"]).float() / 64 - 2)
        rows = torch.from_numpy(expected["rows"])
        # processors round otherwise; on the one that wrote the file both are equal bit for bit
        for found, value in ((candidates.boxes, "boxes"), (candidates.scores, "scores")):
            torch.testing.assert_close(found[:, rows], torch.from_numpy(expected[value]), rtol=1e-4, atol=1e-5)
